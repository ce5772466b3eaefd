"""What a codec must be like to speak on the clock.

    a causal HiFi-GAN decoder, hop and rate of the clock                        or a ValueError that says which is not

Boundary: checks; decoding is in modules/codec.py, files are in parts/codec_file.py.
"""

import math

from nemo.collections.tts.models.audio_codec import AudioCodecModel
from nemo.collections.tts.modules.audio_codec_modules import CausalHiFiGANDecoder
from omegaconf import open_dict
from torch import nn

from nemo_duplex.clock import FrameClock


def check_decoder(decoder: nn.Module) -> None:
    """ValueError unless the decoder is the causal one that this module can walk."""
    remedy = "use a codec with NeMo's CausalHiFiGANDecoder (NanoCodec's decoder), which needs no future frame"
    if not isinstance(decoder, CausalHiFiGANDecoder):
        raise ValueError(f"the codec's decoder is {type(decoder).__name__}; expected CausalHiFiGANDecoder: {remedy}")
    for layer in decoder.up_sample_conv_layers:
        if layer.padding_left:
            raise ValueError(f"a transposed convolution trims {layer.padding_left} samples on the left; expected 0: {remedy}")


def check_hop(model: AudioCodecModel, clock: FrameClock) -> None:
    """ValueError unless the codec's frame is the clock's frame, in samples of the same rate."""
    made = math.prod(model.audio_decoder.up_sample_rates)
    got = (model.sample_rate, model.output_sample_rate, model.samples_per_frame, made)
    rate, hop = clock.agent_sample_rate, clock.agent_hop
    if got != (rate, rate, hop, hop):
        raise ValueError(
            f"the codec reads {got[0]} Hz, writes {got[1]} Hz, has {got[2]} samples in a frame and its decoder makes {got[3]}; "
            f"the clock expects {rate} Hz and {hop} samples ({clock.frame_ms} ms): choose a codec of this frame rate or set "
            "`clock.frame_ms` and `clock.agent_sample_rate` to the codec's"
        )


def drop_training_parts(model: AudioCodecModel) -> None:
    """Removes the discriminator, also from the configuration, so that a file saved from the model builds none."""
    model.discriminator = None
    with open_dict(model.cfg):
        model.cfg.discriminator = None
