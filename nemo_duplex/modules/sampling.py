"""Sampling: logits of one frame -> ids, greedy or by temperature and top-k with a seed for each row.

Each row draws from its own generator, so a session's choices depend on its seed alone and not on its neighbours.
Boundary: ids only; which ids are allowed is said by the caller.
"""

import torch
from torch import Tensor

from nemo_duplex.config import SamplingConfig


def check_sampling(config: SamplingConfig) -> None:
    """Raises ValueError for a negative temperature or top_k."""
    for name in ("text_temperature", "codes_temperature", "top_k"):
        value = getattr(config, name)
        if value < 0:
            raise ValueError(f"sampling.{name} must be 0 (off) or more, got {value}")


def row_generator(seed: int) -> torch.Generator:
    """The generator of one row at the start of a session."""
    return torch.Generator().manual_seed(seed)


def _draw(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> Tensor:
    """[N, C] logits of one row -> [N] ids."""
    logits = logits.float().cpu() / temperature
    if top_k and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], float("-inf"))
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def sample(logits: Tensor, temperature: float, top_k: int, generators: list[torch.Generator]) -> Tensor:
    """[B, N, C] logits -> [B, N] ids; temperature 0 is the argmax."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    rows = [_draw(row, temperature, top_k, generator) for row, generator in zip(logits, generators, strict=True)]
    return torch.stack(rows).to(logits.device)
