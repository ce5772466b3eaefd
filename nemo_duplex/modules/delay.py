"""The delay: the one place where the codes lag the text, and where labels become inputs.

    frame            0     1     2     3
    text label       PAD   BOS   he    llo      (as the text stream is)
    codes label      unk   c0    c1    c2       delay 1: the codes of frame t are predicted at frame t+1
    text input       PAD   PAD   BOS   he       input[t] = label[t-1]
    codes input      unk   unk   c0    c1

With `boundaries` (the paper's option) the codes at a text BOS or EOS frame are replaced by the code bos or eos.
Boundary: index arithmetic on token ids.
"""

import torch
from torch import Tensor

from nemo_duplex.streams import DuplexBatch, DuplexStreams
from nemo_duplex.tokens import CodeTokens, TextTokens


def _push(ids: Tensor, frames: int, filler: int) -> Tensor:
    """Moves [B, T, ...] `frames` later on the clock; what enters is `filler`, what leaves is dropped."""
    if frames == 0:
        return ids
    return torch.cat([torch.full_like(ids[:, :frames], filler), ids[:, : ids.shape[1] - frames]], dim=1)


def mark_boundaries(codes: Tensor, text: Tensor, text_tokens: TextTokens, code_tokens: CodeTokens) -> Tensor:
    """Replaces the codes [B, T, Q] of BOS and EOS frames of the text [B, T] by the code bos and eos."""
    codes = codes.masked_fill((text == text_tokens.bos)[..., None], code_tokens.bos)
    return codes.masked_fill((text == text_tokens.eos)[..., None], code_tokens.eos)


def to_streams(
    batch: DuplexBatch, delay: int, boundaries: bool, text_tokens: TextTokens, code_tokens: CodeTokens
) -> DuplexStreams:
    """Puts a batch on the clock: delays the codes and derives the inputs from the labels.

    Raises:
        ValueError: when the batch is shorter than the delay.
    """
    if batch.agent_text.shape[1] <= delay:
        raise ValueError(
            f"a batch of {batch.agent_text.shape[1]} frames is not longer than the code delay of {delay}: use longer sessions"
        )
    codes = batch.agent_codes
    if boundaries:
        codes = mark_boundaries(codes, batch.agent_text, text_tokens, code_tokens)
    codes = _push(codes, delay, code_tokens.unk)
    return DuplexStreams(
        text_input=_push(batch.agent_text, 1, text_tokens.pad),
        text_label=batch.agent_text,
        codes_input=_push(codes, 1, code_tokens.unk),
        codes_label=codes,
        mask=batch.mask,
    )
