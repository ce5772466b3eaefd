"""The agent's codec: NeMo's AudioCodecModel, decoded frame by frame.

    audio [B, S] -> encode -> codes [B, T, Q]                 offline only: the encoder sees up to 8 frames ahead
    codes [B, T, Q] + state -> forward -> audio [B, T * hop]  causal: frame t needs the codes up to t and no more

What a causal decoder keeps from one call to the next:

    conv, kernel 3        inputs   a b | c d e         -> a b, the last (k-1) * dilation inputs
    transposed conv       outputs  . . . . | x x       -> x x, the outputs that the next input adds to

A fresh state is all zeros, which is exactly the padding that NeMo's layers put before the first frame, so one frame at
a time gives what NeMo gives for the whole. NeMo itself has no streaming decode of this model.
Boundary: the decoder's modules and weights are NeMo's and stay untouched in `model`, so it can be saved and restored
by NeMo; this module only walks them. Training a codec is in models/voice_codec.py.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from nemo.collections.tts.models.audio_codec import AudioCodecModel
from nemo.collections.tts.modules.audio_codec_modules import CausalHiFiGANDecoder
from torch import Tensor, nn

from nemo_duplex.clock import FrameClock
from nemo_duplex.modules.codec_check import check_decoder, check_hop, drop_training_parts
from nemo_duplex.state import State, rows_on

TAIL_FRAMES = 16  # silence after the end while encoding: more than any of NeMo's encoders look ahead
SILENCE_S = 2.0


@dataclass
class CodecState(State):
    """What the decoder keeps of the past, in the order in which the signal meets the layers.

    Attributes:
        inputs: for each causal convolution its last inputs, [B, channels, (kernel - 1) * dilation].
        overlaps: for each transposed convolution the outputs still to be added to, [B, channels, kernel - stride].
    """

    inputs: list[Tensor] = rows_on(0)
    overlaps: list[Tensor] = rows_on(0)


class _Walk:
    """One pass over the decoder: takes what each layer kept, and collects what each layer keeps next."""

    def __init__(self, weights: dict[nn.Module, tuple], state: CodecState):
        self.weights = weights
        self.past = (iter(state.inputs), iter(state.overlaps))
        self.state = CodecState([], [])

    def conv(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A CausalConv1dNorm on `x` and the inputs before it."""
        weight, bias = self.weights[layer]
        past = next(self.past[0])
        x = torch.cat([past, x], dim=-1)
        self.state.inputs.append(x[..., x.shape[-1] - past.shape[-1] :].clone())
        return layer.activation(F.conv1d(x, weight, bias, dilation=layer.conv.dilation, groups=layer.conv.groups))

    def up_conv(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A CausalConvTranspose1dNorm on `x`, added to the overlap of the inputs before it."""
        weight, bias = self.weights[layer]
        past = next(self.past[1])
        out = F.conv_transpose1d(x, weight, stride=layer.conv.stride, groups=layer.conv.groups)
        out[..., : past.shape[-1]] += past
        done = x.shape[-1] * layer.conv.stride[0]
        self.state.overlaps.append(out[..., done:].clone())
        return layer.activation(out[..., :done] + bias[:, None])

    def res_layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A HiFiGANResLayer: the mean over kernel sizes of residual blocks in a row."""
        return sum(self._res_blocks(blocks.res_blocks, x) for blocks in layer.res_blocks) / len(layer.res_blocks)

    def _res_blocks(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        for block in blocks:
            hidden = block.skip_activation(self.conv(block.input_conv, block.input_activation(x)))
            x = x + self.conv(block.skip_conv, hidden)
        return x


class Codec(nn.Module):
    """A frozen AudioCodecModel in fp32, with a decoder that carries its state.

    Args:
        model: NeMo's codec; its discriminator is dropped, its weights are frozen.
        clock: the clock that the codec's frames must fit.

    Raises:
        ValueError: when the decoder is not causal, or when rate and hop are not the clock's.
    """

    def __init__(self, model: AudioCodecModel, clock: FrameClock):
        super().__init__()
        check_decoder(model.audio_decoder)
        check_hop(model, clock)
        drop_training_parts(model)
        model.freeze()
        self.model = model.float()
        self._weights: dict[nn.Module, tuple] = {}
        self.register_load_state_dict_post_hook(_forget_weights)
        self.eval()

    @property
    def codebooks(self) -> int:
        """Q."""
        return self.model.num_codebooks

    @property
    def codebook_size(self) -> int:
        """C, the codec's own codes of one codebook."""
        return self.model.codebook_size

    @property
    def hop(self) -> int:
        """Samples of one frame."""
        return self.model.samples_per_frame

    @property
    def sample_rate(self) -> int:
        """Rate of the decoded audio in Hz."""
        return self.model.output_sample_rate

    def train(self, mode: bool = True) -> "Codec":
        """Always in evaluation mode: training the model around it does not train the codec."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, audio: Tensor, samples: Tensor) -> Tensor:
        """Codes of whole signals, for training data and tests; never for live audio (the encoder is not causal).

        Every row is followed by silence before it is encoded, so that its codes depend neither on the other rows nor
        on their length. Frames after the end of a row hold the codes of that silence.

        Args:
            audio: [B, S] float in [-1, 1].
            samples: [B] valid samples of each row.

        Returns:
            [B, T, Q] int64, T = ceil(S / hop).
        """
        frames = -(-audio.shape[1] // self.hop)
        length = (frames + TAIL_FRAMES) * self.hop
        inside = torch.arange(audio.shape[1], device=audio.device) < samples[:, None]
        padded = F.pad(audio.float() * inside, (0, length - audio.shape[1]))
        with torch.autocast(audio.device.type, enabled=False):
            codes_BQT, _ = self.model.encode(audio=padded, audio_len=torch.full_like(samples, length))
        return codes_BQT[..., :frames].transpose(1, 2).long()

    @torch.no_grad()
    def silence_codes(self) -> Tensor:
        """[Q] codes of digital silence, from the middle of two seconds of it."""
        device = next(self.model.parameters()).device
        silence = torch.zeros(1, int(SILENCE_S * self.sample_rate), device=device)
        codes = self.encode(silence, torch.tensor([silence.shape[1]], device=device))
        return codes[0, codes.shape[1] // 2]

    def initial_state(self, batch: int) -> CodecState:
        """The state of `batch` fresh sessions."""
        fresh = CodecState([], [])
        for layer in _layers_in_order(self.model.audio_decoder):
            kernel, stride = layer.conv.kernel_size[0], layer.conv.stride[0]
            weight = self._plain_weights()[layer][0]
            if isinstance(layer.conv, nn.ConvTranspose1d):
                fresh.overlaps.append(weight.new_zeros(batch, layer.conv.out_channels, kernel - stride))
            else:
                past = (kernel - 1) * layer.conv.dilation[0]
                fresh.inputs.append(weight.new_zeros(batch, layer.conv.in_channels, past))
        return fresh

    @torch.no_grad()
    def forward(self, codes: Tensor, state: CodecState | None = None) -> tuple[Tensor, CodecState]:
        """[B, T, Q] codes -> ([B, T * hop] audio in [-1, 1], the next state). `state` itself is not changed.

        Raises:
            ValueError: for a code that is not the codec's (a control code must be replaced before).
        """
        self._check_codes(codes)
        rows, frames, _ = codes.shape
        with torch.autocast(codes.device.type, enabled=False):
            length = torch.full((rows,), frames, device=codes.device)
            latent = self.model.dequantize(tokens=codes.transpose(1, 2), tokens_len=length)
            walk = _Walk(self._plain_weights(), state if state is not None else self.initial_state(rows))
            audio = self._decode(walk, latent)
        return audio, walk.state

    def step(self, codes: Tensor, state: CodecState) -> tuple[Tensor, CodecState]:
        """One frame: [B, Q] codes -> ([B, hop] audio, the next state)."""
        return self(codes[:, None], state)

    def _decode(self, walk: _Walk, x: Tensor) -> Tensor:
        """CausalHiFiGANDecoder's own order of layers: [B, D, T] -> [B, T * hop]."""
        decoder = self.model.audio_decoder
        x = walk.conv(decoder.pre_conv, x)
        stages = zip(decoder.activations, decoder.up_sample_conv_layers, decoder.res_layers, strict=True)
        for activation, up_conv, res_layer in stages:
            x = walk.res_layer(res_layer, walk.up_conv(up_conv, activation(x)))
        x = walk.conv(decoder.post_conv, decoder.post_activation(x))
        return decoder.out_activation(x)[:, 0]

    def _check_codes(self, codes: Tensor) -> None:
        low, high = torch.aminmax(codes)
        if low < 0 or high >= self.codebook_size:
            raise ValueError(
                f"codes from {int(low)} to {int(high)}; expected 0 to {self.codebook_size - 1}: "
                "replace control codes (pad, unk, bos, eos) by silence_codes() before decoding"
            )

    def _plain_weights(self) -> dict[nn.Module, tuple]:
        """Weight and bias of each layer with its weight norm applied once; recomputed after a load or a move."""
        if not self._weights:
            layers = _layers_in_order(self.model.audio_decoder)
            self._weights = {layer: (layer.conv.weight.detach(), layer.conv.bias.detach()) for layer in layers}
        return self._weights

    def _apply(self, fn, recurse=True):
        self._weights = {}
        return super()._apply(fn, recurse)


def _forget_weights(codec: Codec, incompatible_keys) -> None:
    codec._weights = {}


def _layers_in_order(decoder: CausalHiFiGANDecoder):
    """The convolutions of the decoder, in the order in which the signal meets them."""
    yield decoder.pre_conv
    for up_conv, res_layer in zip(decoder.up_sample_conv_layers, decoder.res_layers, strict=True):
        yield up_conv
        for blocks in res_layer.res_blocks:
            for block in blocks.res_blocks:
                yield from (block.input_conv, block.skip_conv)
    yield decoder.post_conv
