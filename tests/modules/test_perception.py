"""Perception: streamed equals offline, mel included; causal; rows independent; one embedding for each frame."""

import pytest
import torch
from tiny import CLOCK, cuts_of, tiny_config

from nemo_duplex.modules.perception import Perception

FRAMES = 90  # longer than the encoder's left context of 70 frames


def perception(look_ahead: int) -> Perception:
    torch.manual_seed(0)
    return Perception(tiny_config(look_ahead).perception, CLOCK, width=24).eval()


def audio(rows: int = 3, frames: int = FRAMES) -> torch.Tensor:
    return torch.randn(rows, frames * CLOCK.user_hop, generator=torch.Generator().manual_seed(2)) * 0.1


@pytest.mark.parametrize(
    ("look_ahead", "piece"), [(0, 1), (0, 3), (0, 7), (0, FRAMES), (1, 2), (1, 4), (1, 14), (1, FRAMES)]
)
@torch.inference_mode()
def test_streamed_equals_offline(look_ahead, piece):
    module, signal = perception(look_ahead), audio()
    whole = module(signal)
    assert whole.shape == (3, FRAMES, 24)
    state, hop = module.initial_state(3), CLOCK.user_hop
    streamed = torch.cat([module(signal[:, a * hop : b * hop], state) for a, b in cuts_of(FRAMES, piece)], dim=1)
    assert (streamed - whole).abs().max() <= 1e-4


@torch.inference_mode()
def test_matches_nemo_offline_forward():
    """NeMo's own preprocessor and encoder.forward on the same signal, preceded by silence, give the same encoder frames."""
    module, signal = perception(0), audio(rows=1, frames=20)
    lead = 4  # frames of silence: more than the reach of the subsampling
    padded = torch.cat([torch.zeros(1, lead * CLOCK.user_hop + 200), signal], dim=1)
    mel, count = module.preprocessor(input_signal=padded, length=torch.tensor([padded.shape[1]]))
    mel = (mel[:, :, : int(count)] - module.mel_mean) / module.mel_std
    subsampled, _ = module.encoder.pre_encode(x=mel.transpose(1, 2), lengths=count)
    ours = module._subsample(module._mel(signal, state := module.initial_state(1)), state)
    assert (subsampled[:, lead + 1 :] - ours).abs().max() <= 1e-4
    encoded, _ = module.encoder(audio_signal=ours, length=torch.tensor([20]), bypass_pre_encode=True)
    from nemo_duplex.modules.perception import _advance

    cached = _advance(module.encoder, ours, module.initial_state(1).encoder, bypass=True)
    assert (encoded.transpose(1, 2) - cached).abs().max() <= 1e-4


@pytest.mark.parametrize(("look_ahead", "first"), [(0, 40), (1, 40), (1, 41)])
@torch.inference_mode()
def test_causal(look_ahead, first):
    """A change in frame t is heard from frame t on, or from the first frame of its pair, and not before."""
    module, signal = perception(look_ahead), audio(rows=1)
    changed = signal.clone()
    changed[:, first * CLOCK.user_hop :] += 0.5
    difference = (module(changed) - module(signal)).abs().amax(dim=(0, 2))
    heard = first - first % module.frames_per_step
    assert difference[:heard].max() <= 1e-5
    assert difference[heard] > 1e-4


@torch.inference_mode()
def test_uses_its_own_frame_to_the_end():
    """Latency: the last 5 ms of frame t already change embedding t."""
    module, signal = perception(0), audio(rows=1)
    changed = signal.clone()
    changed[:, 41 * CLOCK.user_hop - 80 : 41 * CLOCK.user_hop] += 0.5
    difference = (module(changed) - module(signal)).abs().amax(dim=(0, 2))
    assert difference[:40].max() <= 1e-5
    assert difference[40] > 1e-3


@pytest.mark.parametrize("look_ahead", [0, 1])
@torch.inference_mode()
def test_row_that_joins_late_equals_a_fresh_session(look_ahead):
    module, signal, hop = perception(look_ahead), audio(frames=40), CLOCK.user_hop
    state, out, step = module.initial_state(3), [], module.frames_per_step
    for start in range(0, 40, step):
        if start == 12:
            state.copy_rows([1], module.initial_state(3))
        out.append(module(signal[:, start * hop : (start + step) * hop], state))
    out = torch.cat(out, dim=1)
    assert (out[1:2, 12:] - module(signal[1:2, 12 * hop :])).abs().max() <= 1e-4
    assert (out[[0, 2]] - module(signal[[0, 2]])).abs().max() <= 1e-4


def test_refuses_part_of_a_frame():
    with pytest.raises(ValueError, match=r"whole frames of 1280 user samples, got 1000"):
        perception(0)(torch.zeros(1, 1000))


def test_refuses_a_left_context_that_is_not_whole_chunks():
    config = tiny_config().perception
    config.encoder.att_context = [71, 1]
    with pytest.raises(ValueError, match=r"\[71, 1\].*multiple of 2"):
        Perception(config, CLOCK, width=8)
