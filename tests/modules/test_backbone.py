"""Backbone: the ring equals the full forward, for every cut, beyond its own length, and for rows that join late."""

import pytest
import torch
from tiny import cuts_of

from nemo_duplex.config import BackboneConfig
from nemo_duplex.modules.backbone import Backbone

FRAMES = 45


def backbone(context_frames: int = 64, tie: bool = False, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    shape = {"layers": 2, "width": 48, "heads": 4, "kv_groups": 2, "ffn": 96}
    return Backbone(BackboneConfig(**shape, context_frames=context_frames, tie_embeddings=tie), vocabulary=50).eval()


def inputs(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, FRAMES, 48, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("context_frames", [64, 8])
@pytest.mark.parametrize("piece", [1, 3, 7, FRAMES])
@torch.inference_mode()
def test_streamed_equals_offline(context_frames, piece):
    """context 8: the session is five times longer than the ring."""
    module, x = backbone(context_frames), inputs()
    state = module.initial_state(3)
    streamed = torch.cat([module(x[:, a:b], state) for a, b in cuts_of(FRAMES, piece)], dim=1)
    assert (streamed - module(x)).abs().max() <= 1e-5
    assert state.frame == FRAMES


@torch.inference_mode()
def test_window_forgets_what_is_older_than_the_context():
    """Two layers of window 8 reach back 14 frames; frame 30 cannot know frame 10."""
    module, x = backbone(context_frames=8), inputs(rows=1)
    changed = x.clone()
    changed[:, 10] += 1
    difference = (module(changed) - module(x)).abs().amax(dim=(0, 2))
    assert difference[:10].max() == 0
    assert difference[10] > 1e-3
    assert difference[25:].max() <= 1e-6


@pytest.mark.parametrize("context_frames", [64, 8])
@torch.inference_mode()
def test_row_that_joins_late_equals_a_fresh_session(context_frames):
    module, x = backbone(context_frames), inputs()
    state, out = module.initial_state(3), []
    for t in range(FRAMES):
        if t == 20:
            state.copy_rows([1], module.initial_state(3))
        out.append(module(x[:, t : t + 1], state))
    out = torch.cat(out, dim=1)
    assert (out[1:2, 20:] - module(x[1:2, 20:])).abs().max() <= 1e-5
    assert (out[[0, 2]] - module(x[[0, 2]])).abs().max() <= 1e-5


@torch.inference_mode()
def test_position_is_kept_after_hours():
    """A session that starts at frame 10 million (9 days) of a server's counter equals one that starts at 0."""
    module, x = backbone(), inputs()
    late = module.initial_state(3)
    late.frame = 10_000_000
    out = torch.cat([module(x[:, t : t + 1], late) for t in range(FRAMES)], dim=1)
    assert (out - module(x)).abs().max() <= 1e-4


def test_every_weight_learns():
    module, x = backbone(tie=True), inputs()
    logits = module.text_logits(module(x + module.embed_text(torch.zeros(3, FRAMES, dtype=torch.long))))
    assert logits.shape == (3, FRAMES, 50)
    logits.square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []


def test_tied_embeddings_are_one_table():
    tied, untied = (sum(p.numel() for p in backbone(tie=tie).parameters()) for tie in (True, False))
    assert untied - tied == 50 * 48
