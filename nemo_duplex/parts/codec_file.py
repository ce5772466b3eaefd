"""NeMo's AudioCodecModel from a file or a published name, checked like every file from a stranger.

    codec.nemo | published name -> checked as in checkpoint_checks.py -> AudioCodecModel without discriminator,
                                                                         every weight accounted for
Boundary: files; whether a codec can speak on the clock is judged in modules/codec.py.
"""

from nemo.collections.tts.models.audio_codec import AudioCodecModel

from nemo_duplex.clock import FrameClock
from nemo_duplex.modules.codec import Codec
from nemo_duplex.parts.checkpoint import CODEC_MODEL, DuplexSaveRestoreConnector

# Parts that only training needs, and whose networks NeMo would download.
TRAINING_PARTS = frozenset(["discriminator", "use_scl_loss", "use_slm_loss"])


class CodecConnector(DuplexSaveRestoreConnector):
    """AudioCodecModel loads weights with strict=False whatever is asked; this one refuses a file that lacks some."""

    def __init__(self):
        super().__init__(expected=CODEC_MODEL, left_out=TRAINING_PARTS)

    def load_instance_with_state_dict(self, instance, state_dict, strict):
        missing = sorted(instance.state_dict().keys() - state_dict.keys())
        if missing:
            raise ValueError(
                f"the codec file lacks {len(missing)} of {len(instance.state_dict())} weights, the first is {missing[0]!r}: "
                "it was saved from another configuration, or is damaged"
            )
        super().load_instance_with_state_dict(instance, state_dict, strict)


def restore_audio_codec(path: str) -> AudioCodecModel:
    """NeMo's model from a `.nemo` file, or from the name of a published one, without its training parts.

    Raises:
        UnsafeCheckpointError: naming what in the file is refused, and why.
    """
    restore = AudioCodecModel.restore_from if path.endswith(".nemo") else AudioCodecModel.from_pretrained
    return restore(path, map_location="cpu", save_restore_connector=CodecConnector())


def load_codec(path: str, clock: FrameClock) -> Codec:
    """The codec of `restore_audio_codec`, ready to encode and decode."""
    return Codec(restore_audio_codec(path), clock)
