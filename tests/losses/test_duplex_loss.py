"""The loss by hand on small logits: weights of the streams, of token classes, and the mask."""

import pytest
import torch
import torch.nn.functional as F

from nemo_duplex.config import LossConfig
from nemo_duplex.losses.duplex_loss import DuplexLoss
from nemo_duplex.streams import DuplexLogits, DuplexStreams
from nemo_duplex.tokens import TextTokens

TEXT = TextTokens(pad=0, bos=1, eos=2)


def case(frames: int = 4, valid: int = 4):
    generator = torch.Generator().manual_seed(0)
    logits = DuplexLogits(
        torch.randn(1, frames, 6, generator=generator), torch.randn(1, frames, 4, 9, generator=generator)
    )
    labels = torch.tensor([[0, 1, 5, 2]])[:, :frames]
    codes = torch.randint(0, 9, (1, frames, 4), generator=generator)
    return logits, DuplexStreams(labels, labels, codes, codes, torch.arange(frames)[None] < valid)


def by_hand(logits, streams, valid):
    text = F.cross_entropy(logits.text[0, :valid], streams.text_label[0, :valid])
    books = [F.cross_entropy(logits.codes[0, :valid, q], streams.codes_label[0, :valid, q]) for q in range(4)]
    return 3 / 7 * text + sum(books) / 7


def test_text_three_sevenths_and_each_codebook_one_seventh():
    logits, streams = case()
    assert DuplexLoss(LossConfig(), TEXT)(logits, streams).total == pytest.approx(
        float(by_hand(logits, streams, 4)), abs=1e-6
    )


def test_frames_after_the_end_do_not_count():
    logits, streams = case(valid=2)
    parts = DuplexLoss(LossConfig(), TEXT)(logits, streams)
    assert parts.total == pytest.approx(float(by_hand(logits, streams, 2)), abs=1e-6)
    logits.text[:, 2:] = 1e4
    logits.codes[:, 2:] = -1e4
    assert DuplexLoss(LossConfig(), TEXT)(logits, streams).total == parts.total


def test_token_classes_are_weighted():
    logits, streams = case()
    config = LossConfig(pad_weight=0.5, bos_weight=12.5, eos_weight=7.5, token_weight=5.0)
    each = F.cross_entropy(logits.text[0], streams.text_label[0], reduction="none")
    weights = torch.tensor([0.5, 12.5, 5.0, 7.5])
    assert DuplexLoss(config, TEXT)(logits, streams).text == pytest.approx(
        float((each * weights).sum() / 25.5), abs=1e-6
    )


def test_refuses_a_batch_without_a_valid_frame():
    with pytest.raises(ValueError, match="no valid frame"):
        DuplexLoss(LossConfig(), TEXT)(*case(valid=0))
