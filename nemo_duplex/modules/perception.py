"""Perception: the user's audio -> one embedding a frame, by NeMo's cache-aware FastConformer and an adapter.

    samples [B, T*1280] -> mel [B, 80, 8T] -> 8x subsampling [B, T, d] -> encoder -> adapter -> linear [B, T, D]

Alignment (decided here): the audio is preceded by silence, and embedding t uses every sample up to the end of frame t and
none after it. NeMo's own alignment would see 12.5 ms into frame t and give 251 frames for 20 s; here the mel frames are
shifted by half a window (200 samples), so that T frames of audio give exactly T embeddings and no audio is left waiting:

    frame t           |1280t ........................ 1280(t+1)|
    mel windows             |  8t+1  |  8t+2  | ... |  8t+8  |      each 400 samples, the last ends with the frame

Latency: with att_context [70, 0] the algorithmic latency is one frame (80 ms) and every frame steps. With [70, 1] (the
paper's) frames come in pairs: `frames_per_step` is 2 and the first of a pair waits 80 ms more. Both are exact.
State: 360 samples and 9 mel frames of history (the subsampling sees 15 mel frames back, 7 of them new or carried), and
NeMo's own caches. The silence before a session is the fresh state, so a row can start at any frame.
Boundary: NeMo's classes do the work; only the history is ours.
"""

import math
from dataclasses import dataclass

import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor, ConformerEncoder
from torch import Tensor, nn

from nemo_duplex.clock import FrameClock
from nemo_duplex.config import EncoderConfig, PerceptionConfig
from nemo_duplex.state import State, rows_on

MEL_STRIDE_S, MEL_WINDOW_S, MEL_FFT = 0.01, 0.025, 512
MEL_HISTORY = 9  # mel frames before the new ones that 8x causal subsampling needs (3 convolutions of kernel 3)
MEL_EDGE = 2  # mel frames at the start of a window that miss samples on their left
SUBSAMPLING = 8
SUBSAMPLING_EDGE = 2  # subsampled frames at the start of a window that miss mel frames on their left


@dataclass
class ConformerState(State):
    """NeMo's caches: last_channel [L, B, left context, d], last_time [L, B, d, kernel-1], length [B] int64."""

    last_channel: Tensor = rows_on(1)
    last_time: Tensor = rows_on(1)
    length: Tensor = rows_on(0)


@dataclass
class PerceptionState(State):
    """samples [B, history], mel [B, mels, MEL_HISTORY], and the caches of the encoder and the adapter."""

    samples: Tensor = rows_on(0)
    mel: Tensor = rows_on(0)
    encoder: ConformerState = rows_on(1)
    adapter: ConformerState = rows_on(1)


def _conformer(
    config: EncoderConfig, feat_in: int, layers: int, heads: int, dropout: float, subsampling: int
) -> ConformerEncoder:
    return ConformerEncoder(
        feat_in=feat_in,
        n_layers=layers,
        d_model=config.width,
        n_heads=heads,
        ff_expansion_factor=config.ff_expansion,
        subsampling="dw_striding",
        subsampling_factor=subsampling,
        subsampling_conv_channels=config.subsampling_channels,
        causal_downsampling=True,
        att_context_size=list(config.att_context),
        att_context_style="chunked_limited",
        xscaling=False,
        conv_kernel_size=config.conv_kernel,
        conv_norm_type="layer_norm",
        conv_context_size="causal",
        dropout=dropout,
        dropout_pre_encoder=dropout,
        dropout_emb=0.0,
        dropout_att=dropout,
    )


def _full_lengths(x: Tensor) -> Tensor:
    """[B] int64, the lengths that NeMo asks for when every row is valid to its end."""
    return torch.full((x.shape[0],), x.shape[1], dtype=torch.long, device=x.device)


def _advance(conformer: ConformerEncoder, x: Tensor, state: ConformerState, bypass: bool) -> Tensor:
    """[B, T, d] -> [B, T, d] through a cache-aware Conformer, whose state is advanced in place."""
    result = conformer(
        audio_signal=x if bypass else x.transpose(1, 2),
        length=_full_lengths(x),
        cache_last_channel=state.last_channel,
        cache_last_time=state.last_time,
        cache_last_channel_len=state.length,
        bypass_pre_encode=bypass,
    )
    out, _, state.last_channel, state.last_time, state.length = conformer.streaming_post_process(result)
    return out.transpose(1, 2)


class Perception(nn.Module):
    """The user's side of the model.

    Args:
        config: sizes of the encoder and the adapter.
        clock: gives the sample rate and the frame.
        width: D, the backbone's width.
    """

    def __init__(self, config: PerceptionConfig, clock: FrameClock, width: int):
        super().__init__()
        left, right = config.encoder.att_context
        if left % (right + 1):
            raise ValueError(
                f"att_context [{left}, {right}]: the left context must be a multiple of {right + 1}, as NeMo's chunks are"
            )
        self.clock = clock
        self.mel_mean, self.mel_std = config.mel_mean, config.mel_std
        self.frames_per_step = right + 1
        self.preprocessor = AudioToMelSpectrogramPreprocessor(
            sample_rate=clock.user_sample_rate,
            window_size=MEL_WINDOW_S,
            window_stride=MEL_STRIDE_S,
            n_fft=MEL_FFT,
            features=config.mels,
            normalize="NA",
            dither=config.dither,
            pad_to=0,
        )
        encoder, adapter = config.encoder, config.adapter
        self.encoder = _conformer(encoder, config.mels, encoder.layers, encoder.heads, encoder.dropout, SUBSAMPLING)
        self.adapter = _conformer(encoder, encoder.width, adapter.layers, adapter.heads, adapter.dropout, 1)
        self.projection = nn.Linear(encoder.width, width)
        self._check_clock()

    @property
    def _mel_hop(self) -> int:
        return self.preprocessor.featurizer.hop_length

    @property
    def _history(self) -> int:
        """Samples before the new ones: the edge frames, and the left half of the first window."""
        return MEL_EDGE * self._mel_hop + self.preprocessor.featurizer.win_length // 2 - self._mel_hop

    def _check_clock(self):
        expected = SUBSAMPLING * self._mel_hop
        if self.clock.user_hop != expected:
            raise ValueError(
                f"a frame of {self.clock.user_hop} user samples does not fit the encoder, which makes one frame of {expected} "
                f"samples ({SUBSAMPLING} mel frames): use frame_ms 80"
            )

    def initial_state(self, batch: int) -> PerceptionState:
        """The state of `batch` fresh sessions: silence."""
        like = self.projection.weight
        featurizer = self.preprocessor.featurizer
        silence = (math.log(featurizer.log_zero_guard_value_fn(torch.zeros(1))) - self.mel_mean) / self.mel_std
        caches = [
            ConformerState(*conformer.get_initial_cache_state(batch, dtype=like.dtype, device=like.device))
            for conformer in (self.encoder, self.adapter)
        ]
        mel = torch.full((batch, featurizer.nfilt, MEL_HISTORY), silence, device=like.device)
        return PerceptionState(mel.new_zeros(batch, self._history), mel, *caches)

    def forward(self, audio: Tensor, state: PerceptionState | None = None) -> Tensor:
        """[B, T*hop] samples -> [B, T, D]. Continues from `state` and advances it in place; None is a fresh session.

        With look-ahead 1, every call but the last must bring whole pairs of frames (`frames_per_step`) to be exact.

        Raises:
            ValueError: when the samples are not whole frames.
        """
        if audio.shape[1] % self.clock.user_hop or not audio.shape[1]:
            raise ValueError(
                f"expected whole frames of {self.clock.user_hop} user samples, got {audio.shape[1]} samples: pad with silence"
            )
        state = state or self.initial_state(audio.shape[0])
        x = self._subsample(self._mel(audio, state), state)
        x = _advance(self.encoder, x, state.encoder, bypass=True)
        x = _advance(self.adapter, x, state.adapter, bypass=False)
        return self.projection(x)

    def _mel(self, audio: Tensor, state: PerceptionState) -> Tensor:
        """[B, S] -> [B, mels, S/160] fp32, the windows that end inside the new samples."""
        window = torch.cat([state.samples, audio.float()], dim=1)
        state.samples = window[:, -self._history :].clone()
        mel, _ = self.preprocessor(input_signal=window, length=_full_lengths(window))
        new = mel[:, :, MEL_EDGE : MEL_EDGE + audio.shape[1] // self._mel_hop]
        return (new - self.mel_mean) / self.mel_std

    def _subsample(self, mel: Tensor, state: PerceptionState) -> Tensor:
        """[B, mels, 8T] -> [B, T, d] with NeMo's own subsampling layers."""
        window = torch.cat([state.mel, mel], dim=2)
        state.mel = window[:, :, -MEL_HISTORY:].clone()
        window = window.transpose(1, 2).to(self.projection.weight.dtype)
        x, _ = self.encoder.pre_encode(x=window, lengths=_full_lengths(window))
        return x[:, SUBSAMPLING_EDGE:]
