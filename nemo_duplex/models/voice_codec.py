"""Training of the agent's codec on one voice: NeMo's AudioCodecModel, its losses and its optimizers.

    utterances -> random crops -> encoder -> FSQ codes -> causal decoder -> mel + STFT losses  [-> discriminators]
                                                                            reconstruction         adversarial

A codec of four codebooks at 12.5 frames a second has no room for every voice, but for one voice it is enough.
Boundary: the model and its training; what it saves is a plain AudioCodecModel `.nemo` without discriminator, which stock
NeMo restores and modules/codec.py decodes frame by frame. The crops come from data/utterances.py.
"""

from lightning.pytorch import Trainer
from nemo.collections.tts.losses.audio_codec_loss import MultiResolutionMelLoss
from nemo.collections.tts.models.audio_codec import AudioCodecModel
from omegaconf import DictConfig, OmegaConf

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import VoiceCodecConfig
from nemo_duplex.modules.codec_check import check_decoder, check_hop
from nemo_duplex.parts.codec_file import restore_audio_codec

STAGES = ("reconstruction", "adversarial")
LOG_MEL = {"mel_dims": [80], "resolutions": [[1024, 256, 1024]], "log_guard": 1e-5}


def audio_codec_config(config: VoiceCodecConfig, clock: FrameClock) -> DictConfig:
    """NeMo's config of the model: the `codec` section with the clock's rate and hop, and the discriminator of the stage.

    Raises:
        ValueError: for an unknown stage, or an adversarial one without a discriminator.
    """
    if config.stage not in STAGES:
        raise ValueError(f"stage {config.stage!r}; expected one of {', '.join(STAGES)}")
    codec = OmegaConf.create(OmegaConf.to_container(config.codec, resolve=True))
    if config.stage == "reconstruction":
        codec.discriminator = None
    elif codec.discriminator is None:
        raise ValueError("stage 'adversarial' needs `codec.discriminator`; expected NeMo's Discriminator by _target_, got null")
    codec.sample_rate, codec.samples_per_frame, codec.max_steps = clock.agent_sample_rate, clock.agent_hop, config.steps
    return codec


def optimizer_steps(config: VoiceCodecConfig) -> int:
    """`trainer.max_steps` for `config.steps` batches: Lightning counts the steps of every optimizer, and NeMo has two
    in the adversarial stage, of which the discriminator's runs in some batches only."""
    if config.stage == "reconstruction":
        return config.steps
    updates, period = config.codec.disc_updates_per_period, config.codec.disc_update_period
    return config.steps + config.steps // period * updates + min(config.steps % period, updates)


class VoiceCodecModel(AudioCodecModel):
    """NeMo's codec with a validation by log-mel distance, and a `save_to` that writes a plain AudioCodecModel.

    NeMo's own training_step runs both stages: without a discriminator it uses the mel and STFT losses alone.

    Args:
        cfg: NeMo's config, from `audio_codec_config`.
        clock: the clock that the codec's frames must fit.
        base: the codec whose weights to start from, a `.nemo` or a published name.
    """

    def __init__(self, cfg: DictConfig, clock: FrameClock, base: str | None = None, trainer: Trainer | None = None):
        super().__init__(cfg, trainer)
        check_decoder(self.audio_decoder)
        check_hop(self, clock)
        self.log_mel_loss = MultiResolutionMelLoss(sample_rate=clock.agent_sample_rate, **LOG_MEL)
        if base is not None:
            self._start_from(restore_audio_codec(base), base)

    def _start_from(self, other: AudioCodecModel, name: str) -> None:
        for part in ("audio_encoder", "vector_quantizer", "audio_decoder"):
            try:
                getattr(self, part).load_state_dict(getattr(other, part).state_dict())
            except RuntimeError as error:
                raise ValueError(f"`base` {name}: its {part} is not the one in `codec.{part}`: {error}") from error

    def validation_step(self, batch, batch_idx):
        """Mean distance of log-mel spectrograms (80 mels, natural log) between the voice and its reconstruction."""
        audio, audio_len, audio_gen, *_ = self._process_batch(batch)
        distance, _ = self.log_mel_loss(audio_real=audio, audio_gen=audio_gen, audio_len=audio_len)
        self.log("val_log_mel", distance, prog_bar=True, on_epoch=True, sync_dist=True, batch_size=len(audio))

    def plain_model(self) -> AudioCodecModel:
        """An AudioCodecModel of the same weights, without discriminator."""
        config = OmegaConf.create({key: value for key, value in self.cfg.items() if key not in ("target", "nemo_version")})
        config.discriminator = None
        plain = AudioCodecModel(config)
        weights = self.state_dict()
        plain.load_state_dict({key: weights[key] for key in plain.state_dict()})
        return plain.eval()

    def save_to(self, save_path: str) -> None:
        """Writes what stock NeMo restores as an AudioCodecModel."""
        self.plain_model().save_to(save_path)
