"""Small seeded nets that the tests share: every class is the real one, only the sizes are small."""

import torch
from omegaconf import DictConfig

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import ModelConfig, build
from nemo_duplex.modules.duplex_net import DuplexNet
from nemo_duplex.streams import DuplexBatch
from nemo_duplex.tokens import CodeTokens, TextTokens

CLOCK = FrameClock()
TEXT = TextTokens(pad=0, bos=1, eos=2)
CODES = CodeTokens(size=4032)
VOCABULARY, CODEBOOKS = 50, 4


def tiny_config(look_ahead: int = 0, context_frames: int = 64, **changes) -> DictConfig:
    """A model section of two layers everywhere and no dropout."""
    base = {
        "perception": {
            "mel_mean": -8.0,
            "mel_std": 4.0,
            "encoder": {
                "layers": 2,
                "width": 32,
                "heads": 4,
                "subsampling_channels": 16,
                "att_context": [70, look_ahead],
                "dropout": 0.0,
            },
            "adapter": {"layers": 1, "heads": 4, "dropout": 0.0},
        },
        "backbone": {"layers": 2, "width": 48, "heads": 4, "kv_groups": 2, "ffn": 96, "context_frames": context_frames},
    }
    return build(ModelConfig, {**base, **changes})


def tiny_net(look_ahead: int = 0, context_frames: int = 64, seed: int = 0) -> DuplexNet:
    """A seeded DuplexNet whose code embeddings are not zero, so that every input matters."""
    torch.manual_seed(seed)
    config = tiny_config(look_ahead, context_frames)
    net = DuplexNet(config, CLOCK, TEXT, VOCABULARY, CODEBOOKS, CODES)
    torch.nn.init.normal_(net.fusion.codes.weight, std=0.3)
    return net.eval()


def random_batch(rows: int = 2, frames: int = 24, seed: int = 1) -> DuplexBatch:
    """Noise for the user, random text and codes for the agent, all frames valid."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda high, *shape: torch.randint(0, high, shape, generator=generator)  # noqa: E731
    return DuplexBatch(
        ids=[f"session {row}" for row in range(rows)],
        user_audio=torch.randn(rows, frames * CLOCK.user_hop, generator=generator) * 0.1,
        agent_text=draw(VOCABULARY, rows, frames),
        agent_codes=draw(CODES.size, rows, frames, CODEBOOKS),
        frames=torch.full((rows,), frames),
    )


def cuts_of(total: int, size: int):
    """(start, end) of pieces of `size` that cover 0..total."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def tiny_codec_model(seed: int = 0):
    """A seeded, untrained AudioCodecModel of NanoCodec's class: hop 1764, four codebooks of 4032 codes, causal decoder."""
    from nemo.collections.tts.models import AudioCodecModel
    from omegaconf import OmegaConf

    from nemo_duplex.config import AudioCodecConfig

    modules = "nemo.collections.tts.modules.audio_codec_modules."
    strides = {"encoder": [2, 3, 6, 7, 7], "decoder": [7, 7, 6, 3, 2]}
    kernels = {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [1]}
    config = build(
        AudioCodecConfig,
        {
            "audio_encoder": {
                "_target_": modules + "HiFiGANEncoder",
                "down_sample_rates": strides["encoder"],
                "encoded_dim": 16,
                "base_channels": 2,
                **kernels,
            },
            "audio_decoder": {
                "_target_": modules + "CausalHiFiGANDecoder",
                "up_sample_rates": strides["decoder"],
                "input_dim": 16,
                "base_channels": 32,
                "output_activation": "clamp",
                **kernels,
            },
            "loss_resolutions": [[256, 64, 256]],
            "mel_loss_dims": [20],
        },
    )
    plain = OmegaConf.create(OmegaConf.to_container(config))
    plain.sample_rate, plain.samples_per_frame = CLOCK.agent_sample_rate, CLOCK.agent_hop
    torch.manual_seed(seed)
    model = AudioCodecModel(cfg=plain).eval()
    for name, weight in model.audio_encoder.named_parameters():
        if name.startswith("post_conv") and name.endswith("original0"):
            weight.data *= 300  # so that different audio has different codes, though nothing is trained
    return model


def tiny_model_config(folder) -> DictConfig:
    """A tiny model section with a real tokenizer and codec file in `folder`."""
    from nemo_duplex.data.text_stream import train_tokenizer

    tokenizer = {"path": str(folder / "tokenizer.json")}
    train_tokenizer(["the capital of france is paris"], 300, build(ModelConfig, {"tokenizer": tokenizer}).tokenizer)
    tiny_codec_model().save_to(str(folder / "codec.nemo"))
    return tiny_config(tokenizer=tokenizer, codec={"path": str(folder / "codec.nemo")})
