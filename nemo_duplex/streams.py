"""The data that flows: batches, streams, logits and frames. One legend of shape letters for the whole package:

    B sessions (rows) | T frames | S samples | Q codebooks | C codes per codebook (control codes included in logits)
    V text vocabulary | D width | L layers                      order: B, T, Q

    DuplexBatch (from data/)  ->  DuplexStreams (on the clock)  ->  shift  ->  DuplexNet  ->  DuplexLogits  ->  loss
    AgentFrame: what one step of the engine gives back, one frame for each row

Boundary: shapes and their checks; no computation.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class DuplexBatch:
    """A batch of sessions as the loader gives it.

    Attributes:
        ids: names of the sessions, B of them.
        user_audio: [B, S] float32 in [-1, 1] at the user's sample rate, S = T * user_hop, zero after each row's end.
        agent_text: [B, T] int64 text ids (PAD after each row's end).
        agent_codes: [B, T, Q] int64 codec codes, frame-aligned with the audio they stand for (no delay yet).
        frames: [B] int64 number of valid frames in each row.
        cut_tokens: text ids of interrupted turns that the cut left unsaid, in all rows (training logs the count).
    """

    ids: list[str]
    user_audio: Tensor
    agent_text: Tensor
    agent_codes: Tensor
    frames: Tensor
    cut_tokens: int = 0

    def __post_init__(self):
        rows, frames = self.agent_text.shape
        for name, got in (
            ("user_audio", self.user_audio.shape[0]),
            ("agent_codes", self.agent_codes.shape[0]),
            ("ids", len(self.ids)),
        ):
            assert got == rows, f"expected {rows} rows in {name}, got {got}"
        assert self.agent_codes.shape[1] == frames, (
            f"expected {frames} frames of codes, got {self.agent_codes.shape[1]}"
        )

    def to(self, device, non_blocking: bool = False) -> "DuplexBatch":
        """The same batch with every tensor on `device`."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        moved = {k: v.to(device, non_blocking=non_blocking) if isinstance(v, Tensor) else v for k, v in values.items()}
        return DuplexBatch(**moved)

    @property
    def mask(self) -> Tensor:
        """[B, T] bool, True on valid frames."""
        steps = torch.arange(self.agent_text.shape[1], device=self.frames.device)
        return steps[None] < self.frames[:, None]


@dataclass
class DuplexStreams:
    """The agent's two streams on the clock after the delay, as inputs (frame t-1) and labels (frame t).

    Attributes:
        text_input, text_label: [B, T] int64; input[t] = label[t-1], PAD at t = 0.
        codes_input, codes_label: [B, T, Q] int64; input[t] = label[t-1]; the labels are `delay` frames behind the text.
        mask: [B, T] bool, True on valid frames.
    """

    text_input: Tensor
    text_label: Tensor
    codes_input: Tensor
    codes_label: Tensor
    mask: Tensor


@dataclass
class DuplexLogits:
    """What the heads predict for each frame: text [B, T, V] and codes [B, T, Q, C]."""

    text: Tensor
    codes: Tensor


@dataclass
class AgentFrame:
    """One frame of the agent for each row: text ids [B], codes [B, Q] (of the frame before) and audio [B, S] in [-1, 1]."""

    text: Tensor
    codes: Tensor
    audio: Tensor
