"""The delay as literal matrices."""

import pytest
import torch

from nemo_duplex.modules.delay import to_streams
from nemo_duplex.streams import DuplexBatch
from nemo_duplex.tokens import CodeTokens, TextTokens

PAD, BOS, EOS = 0, 1, 2
TEXT = TextTokens(pad=PAD, bos=BOS, eos=EOS)
CODES = CodeTokens(size=10)
UNK, CODE_BOS, CODE_EOS = 12, 13, 14


def batch() -> DuplexBatch:
    return DuplexBatch(
        ids=["a"],
        user_audio=torch.zeros(1, 6),
        agent_text=torch.tensor([[PAD, BOS, 7, 8, EOS, PAD]]),
        agent_codes=torch.tensor([[[0], [1], [2], [3], [4], [5]]]),
        frames=torch.tensor([5]),
    )


def row(tensor):
    return tensor[0].flatten().tolist()


def test_codes_lag_text_by_one_frame():
    streams = to_streams(batch(), 1, False, TEXT, CODES)
    assert row(streams.text_label) == [PAD, BOS, 7, 8, EOS, PAD]
    assert row(streams.text_input) == [PAD, PAD, BOS, 7, 8, EOS]
    assert row(streams.codes_label) == [UNK, 0, 1, 2, 3, 4]
    assert row(streams.codes_input) == [UNK, UNK, 0, 1, 2, 3]
    assert row(streams.mask) == [True, True, True, True, True, False]


@pytest.mark.parametrize(
    ("delay", "labels"), [(0, [0, 1, 2, 3, 4, 5]), (2, [UNK, UNK, 0, 1, 2, 3]), (3, [UNK, UNK, UNK, 0, 1, 2])]
)
def test_other_delays(delay, labels):
    assert row(to_streams(batch(), delay, False, TEXT, CODES).codes_label) == labels


def test_boundaries_mark_the_codes_of_bos_and_eos_frames():
    assert row(to_streams(batch(), 1, True, TEXT, CODES).codes_label) == [UNK, 0, CODE_BOS, 2, 3, CODE_EOS]


def test_refuses_a_batch_shorter_than_the_delay():
    with pytest.raises(ValueError, match="6 frames is not longer than the code delay of 6"):
        to_streams(batch(), 6, False, TEXT, CODES)
