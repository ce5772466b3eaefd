"""Sampling: greedy is the argmax, a seed repeats, rows do not disturb each other."""

import pytest
import torch

from nemo_duplex.config import SamplingConfig
from nemo_duplex.modules.sampling import check_sampling, row_generator, sample


def logits(rows: int) -> torch.Tensor:
    return torch.randn(rows, 4, 30, generator=torch.Generator().manual_seed(0))


def draw(rows: int, seeds: list[int], top_k: int = 0):
    return sample(logits(rows), 1.0, top_k, [row_generator(seed) for seed in seeds])


def test_temperature_zero_is_the_argmax():
    assert torch.equal(sample(logits(2), 0, 0, []), logits(2).argmax(-1))


def test_a_seed_repeats_and_another_differs():
    assert torch.equal(draw(1, [5]), draw(1, [5]))
    assert not all(torch.equal(draw(1, [5]), draw(1, [seed])) for seed in range(6, 10))


def test_a_row_does_not_depend_on_its_neighbours():
    assert torch.equal(draw(3, [1, 2, 3])[:2], draw(2, [1, 2]))
    assert torch.equal(draw(2, [9, 2])[1], draw(2, [1, 2])[1])


def test_top_k_keeps_the_k_best():
    best = logits(1).topk(2).indices
    for seed in range(20):
        assert all(
            int(got) in allowed.tolist() for got, allowed in zip(draw(1, [seed], top_k=2)[0], best[0], strict=True)
        )


@pytest.mark.parametrize("bad", [{"text_temperature": -1}, {"codes_temperature": -0.1}, {"top_k": -2}])
def test_refuses_negative_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        check_sampling(SamplingConfig(**bad))
