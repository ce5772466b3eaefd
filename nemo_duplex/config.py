"""Every default of the package, in one place: dataclasses merged with the yaml by OmegaConf as structured configs.

An unknown key in a yaml is an error that names it (`load` below). Sections that belong to others (`trainer`: Lightning,
`exp_manager`: NeMo, `sched`: NeMo, `train_ds`: NeMo's Lhotse loader) are checked by their owners' own schemas.
Boundary: dataclasses and OmegaConf; no NeMo, no torch.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_duplex.clock import FrameClock


@dataclass
class ClockConfig:
    frame_ms: int = 80
    user_sample_rate: int = 16000
    agent_sample_rate: int = 22050


@dataclass
class TokenizerConfig:
    """A Hugging Face `tokenizer.json` (any LLM's) and the names of its three control tokens."""

    path: str = MISSING
    pad: str = "<pad>"
    bos: str = "<s>"
    eos: str = "</s>"


@dataclass
class EncoderConfig:
    """NeMo's cache-aware FastConformer. att_context [70, 0] steps every 80 ms; [70, 1] in pairs of frames, every 160 ms."""

    layers: int = 17
    width: int = 512
    heads: int = 8
    ff_expansion: int = 4
    subsampling_channels: int = 256
    conv_kernel: int = 9
    att_context: list[int] = field(default_factory=lambda: [70, 0])
    dropout: float = 0.1


@dataclass
class AdapterConfig:
    """Conformer layers between the encoder and the LLM, at the encoder's width and look-ahead."""

    layers: int = 2
    heads: int = 8
    dropout: float = 0.1


@dataclass
class PerceptionConfig:
    """mel_mean, mel_std: constants of the log-mel. 0 and 1 for NeMo's pretrained encoders, which saw it as it is; an encoder
    that starts at random hears words much sooner with about -8 and 4, for digital silence lies at -16.6."""

    mels: int = 80
    mel_mean: float = 0.0
    mel_std: float = 1.0
    dither: float = 1e-5
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)


@dataclass
class BackboneConfig:
    """Shape of the Megatron-core GPT. `context_frames` is its attention window and the size of the ring of keys and values."""

    layers: int = 22
    width: int = 2048
    heads: int = 32
    kv_groups: int = 4
    ffn: int = 5632
    context_frames: int = 4096
    rotary_base: int = 10000
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    dropout: float = 0.0


@dataclass
class FusionConfig:
    """Channel fusion: user embedding x user_weight + text embedding + sum of the code embeddings."""

    user_weight: float = 1.0


@dataclass
class CodecConfig:
    """The agent's codec: a path to an AudioCodecModel `.nemo`, or the name of a published one."""

    path: str | None = None


@dataclass
class LossConfig:
    """Text 3/7 and each of four codebooks 1/7 (the paper's 3 : 1), and a weight for each class of text token."""

    text: float = 3.0
    codebook: float = 1.0
    pad_weight: float = 1.0
    bos_weight: float = 1.0
    eos_weight: float = 1.0
    token_weight: float = 1.0


@dataclass
class SamplingConfig:
    """temperature 0 is greedy; top_k 0 keeps every id. The same seed gives the same session."""

    text_temperature: float = 0.0
    codes_temperature: float = 0.0
    top_k: int = 0
    seed: int = 0


@dataclass
class SchedulerConfig:
    """NeMo's learning-rate schedules by name; max_steps comes from the trainer when it is not given."""

    name: str = "InverseSquareRootAnnealing"
    warmup_steps: int | None = 2500
    min_lr: float = 0.0
    max_steps: int | None = None


@dataclass
class OptimizerConfig:
    name: str = "adamw"
    lr: float = 3e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    weight_decay: float = 0.0
    sched: SchedulerConfig = field(default_factory=SchedulerConfig)


@dataclass
class ModelConfig:
    """All that a DuplexModel needs; what a `.nemo` carries."""

    clock: ClockConfig = field(default_factory=ClockConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    code_delay: int = 1
    code_boundaries: bool = False
    loss: LossConfig = field(default_factory=LossConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    optim: OptimizerConfig = field(default_factory=OptimizerConfig)
    train_ds: dict[str, Any] | None = None
    validation_ds: dict[str, Any] | None = None
    target: str | None = None  # written by NeMo: the class,
    nemo_version: str | None = None  # its version,
    codec_model: dict[str, Any] | None = None  # and the codec's own config, so that a .nemo needs no other file


@dataclass
class TrainConfig:
    """examples/duplex_train.py"""

    name: str = "duplex"
    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    exp_manager: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    save_to: str = MISSING


@dataclass
class TimelineConfig:
    """The paper's construction, in seconds: gaps before each turn, and what a barge-in leaves of the agent's turn.

    user_gap_jitter_s: each user waits up to this much longer than lead_s or user_gap_s (0 in the paper).
    cut_fade_s: the last of a cut turn fades out over this long, so that it does not click.
    """

    lead_s: float = 0.4
    response_gap_s: float = 0.64
    user_gap_s: float = 0.64
    user_gap_jitter_s: float = 0.0
    barge_in_probability: float = 0.3
    barge_in_overlap_s: float = 0.64
    barge_in_after_s: float = 0.8
    cut_fade_s: float = 0.005
    trailing_silence_s: float = 1.6


@dataclass
class VoiceConfig:
    """One voice. backend: hibari | kokoro; speaker: the back end's name of it; warp < 1 is a larger, lower speaker."""

    name: str = MISSING
    backend: str = "hibari"
    speaker: str = ""
    warp: float = 1.0


@dataclass
class PrepareConfig:
    """examples/duplex_prepare_data.py

    turns: least and most question/answer exchanges of a session. level_dbfs: RMS level of every spoken turn.
    edge_s: what is left of the silence before and after the speech of a turn.
    """

    questions: str = MISSING
    output: str = MISSING
    sessions: int = 240
    held_out_sessions: int = 24
    turns: list[int] = field(default_factory=lambda: [2, 4])
    agent_voice: VoiceConfig = field(default_factory=lambda: VoiceConfig(name="heart"))
    user_voices: list[VoiceConfig] = field(default_factory=list)
    held_out_voices: list[VoiceConfig] = field(default_factory=list)
    timeline: TimelineConfig = field(default_factory=TimelineConfig)
    clock: ClockConfig = field(default_factory=ClockConfig)
    level_dbfs: float = -24.0
    edge_s: float = 0.04
    vocabulary: int = 512
    workers: int = 2
    seed: int = 0


@dataclass
class EncodeConfig:
    """examples/duplex_encode_codes.py: agent audio -> cached codes, and the Shar that training reads."""

    cuts: str = MISSING
    codec: str = MISSING
    output: str = MISSING
    shard_size: int = 100
    batch: int = 8
    silence_outside_turns: bool = True
    clock: ClockConfig = field(default_factory=ClockConfig)


@dataclass
class AudioCodecConfig:
    """NeMo's AudioCodecModel: encoder, decoder and quantizer by `_target_`, its losses and its optimizer.

    Sample rate and samples of a frame come from the clock. The quantizer's default is that of NanoCodec at 0.6 kbps.
    """

    audio_encoder: dict[str, Any] = MISSING
    audio_decoder: dict[str, Any] = MISSING
    vector_quantizer: dict[str, Any] = field(
        default_factory=lambda: {
            "_target_": "nemo.collections.tts.modules.audio_codec_modules.GroupFiniteScalarQuantizer",
            "num_groups": 4,
            "num_levels_per_group": [9, 8, 8, 7],
        }
    )
    discriminator: dict[str, Any] | None = None
    generator_loss: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "nemo.collections.tts.losses.audio_codec_loss.GeneratorSquaredLoss"}
    )
    discriminator_loss: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "nemo.collections.tts.losses.audio_codec_loss.DiscriminatorSquaredLoss"}
    )
    feature_loss_type: str = "absolute"
    disc_updates_per_period: int = 1
    disc_update_period: int = 2
    loss_resolutions: list[list[int]] = field(
        default_factory=lambda: [[window, window // 4, window] for window in (32, 64, 128, 256, 512, 1024, 2048)]
    )
    mel_loss_dims: list[int] = field(default_factory=lambda: [5, 10, 20, 40, 80, 160, 320])
    mel_loss_l1_scale: float = 1.0
    mel_loss_l2_scale: float = 0.0
    mel_loss_log_guard: float = 1.0
    stft_loss_scale: float = 20.0
    stft_loss_log_guard: float = 1.0
    time_domain_loss_scale: float = 0.0
    commit_loss_scale: float = 0.0
    clip_grad_norm: float | None = None
    optim: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "torch.optim.Adam", "lr": 2e-4, "betas": [0.8, 0.99]}
    )


@dataclass
class VoiceCodecConfig:
    """examples/voice_codec_finetune.py: utterances of one voice -> an AudioCodecModel `.nemo`.

    stage: `reconstruction` trains on the mel and STFT losses alone (what a CPU can afford); `adversarial` adds NeMo's
    discriminators and needs `codec.discriminator`. base: the codec to start from (a `.nemo` or a published name).
    steps: batches; validate_every: batches between two validations. audio_field: where a cut holds the voice.
    """

    name: str = "voice_codec"
    utterances: str = MISSING
    audio_field: str = "recording"
    held_out: int = 4
    stage: str = "reconstruction"
    base: str | None = None
    codec: AudioCodecConfig = field(default_factory=AudioCodecConfig)
    crop_frames: int = 14
    batch: int = 16
    steps: int = 10000
    validate_every: int = 200
    workers: int = 0
    clock: ClockConfig = field(default_factory=ClockConfig)
    trainer: dict[str, Any] = field(default_factory=dict)
    exp_manager: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    save_to: str = MISSING


@dataclass
class EvaluateConfig:
    """examples/duplex_evaluate.py: stream held-out sessions through the engine and report.

    model: a `.nemo`; cuts: a Shar directory or a cut manifest; output: directory of the report. `sessions` of the cuts are
    streamed, `rows` beside each other; `frame_ms` is measured on one of them alone. `show` names the session of the picture.
    `stages`: a json of stage name -> seconds to merge into the report. `silence_dbfs`: the agent's audio counts as silent
    below it. `intelligibility`: Whisper tiny.en from packages listens to the agent. `threads`: of torch on the CPU; small
    nets are fastest with one, and two on a busy machine of two cores took five times as long for each frame.
    """

    model: str = MISSING
    cuts: str = MISSING
    output: str = MISSING
    sessions: int = 24
    rows: int = 4
    threads: int = 1
    show: str | None = None
    stages: str | None = None
    silence_dbfs: float = -40.0
    intelligibility: bool = False


def build(schema: type, values: Any = None) -> Any:
    """Merges `values` (a mapping, a DictConfig or None) into the defaults of a dataclass; returns a DictConfig.

    Raises:
        ValueError: for an unknown key or a value of the wrong type, naming it.
    """
    try:
        # plain first: a typed section would bring keys of its own along
        plain = OmegaConf.to_container(values, resolve=True) if isinstance(values, DictConfig) else values
        return OmegaConf.merge(OmegaConf.structured(schema), plain if plain is not None else {})
    except OmegaConfBaseException as error:
        raise ValueError(
            f"{schema.__name__}: {str(error).splitlines()[0]} (key {error.full_key!r}). "
            "Every key stands in nemo_duplex/config.py: remove or rename it"
        ) from error


def clock_from(config: DictConfig | ClockConfig) -> FrameClock:
    """The FrameClock of a `clock` section."""
    return FrameClock(config.frame_ms, config.user_sample_rate, config.agent_sample_rate)
