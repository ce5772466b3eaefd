"""Trains a codec on one voice, or fine-tunes a published one.

    python examples/voice_codec_finetune.py                                    the demo's: conf/demo/voice_codec.yaml
    python examples/voice_codec_finetune.py codec=nano base=nano_codec.nemo utterances=mine.jsonl.gz batch=32

Run it again after a stop and it goes on from its last checkpoint. Watch it with: tensorboard --logdir runs/demo/codec
"""

import logging

from lightning.pytorch import Trainer, seed_everything
from nemo.core.config import hydra_runner
from nemo.utils.exp_manager import exp_manager
from torch.utils.data import DataLoader

from nemo_duplex.config import VoiceCodecConfig, clock_from
from nemo_duplex.data.utterances import VoiceCrops, WholeUtterances, read_utterances
from nemo_duplex.models.voice_codec import VoiceCodecModel, audio_codec_config, optimizer_steps

log = logging.getLogger("voice_codec")


@hydra_runner(config_path="../conf/demo", config_name="voice_codec", schema=VoiceCodecConfig)
def main(config):
    clock = clock_from(config.clock)
    train, held_out = read_utterances(config.utterances, config.audio_field, config.held_out, clock)
    crops = VoiceCrops(train, config.audio_field, config.crop_frames * clock.agent_hop, config.validate_every * config.batch)

    seed_everything(config.seed)
    trainer = Trainer(**config.trainer, max_steps=optimizer_steps(config), logger=False, enable_checkpointing=False)
    exp_manager(trainer, config.exp_manager)
    model = VoiceCodecModel(audio_codec_config(config, clock), clock, config.base, trainer)
    trainer.fit(
        model,
        DataLoader(crops, batch_size=config.batch, num_workers=config.workers),
        DataLoader(WholeUtterances(held_out, config.audio_field), batch_size=1),
    )
    model.save_to(config.save_to)
    log.info("%s: val_log_mel %.3f", config.save_to, trainer.callback_metrics["val_log_mel"])


if __name__ == "__main__":
    main()
