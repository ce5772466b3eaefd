"""From text dialogues to batches: the data of full-duplex sessions."""
