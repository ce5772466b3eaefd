"""The whole net: streamed equals offline, causal, rows independent, golden loss and tokens, and it can learn."""

import pytest
import torch
from tiny import CLOCK, CODES, TEXT, cuts_of, random_batch, tiny_net

from nemo_duplex.config import LossConfig
from nemo_duplex.losses.duplex_loss import DuplexLoss
from nemo_duplex.modules.delay import to_streams

FRAMES = 24
GOLDEN_LOSS = 6.5181
GOLDEN_TEXT = [19, 41, 37, 31, 38, 46, 22, 24]
GOLDEN_CODES = [[3603, 3433, 2675, 430], [2810, 3753, 2503, 2833]]


def greedy(logits):
    return logits.text[:, 0].argmax(-1), logits.codes[:, 0].argmax(-1)


def live(net, audio, frames=FRAMES, state=None):
    """Chosen text [B, T] and codes [B, T, Q] of a streamed session."""
    state = state or net.initial_state(audio.shape[0])
    size, chosen = net.frames_per_step * CLOCK.user_hop, []
    for start in range(0, frames * CLOCK.user_hop, size):
        chosen += net.step(audio[:, start : start + size], state, greedy)
    return torch.stack([text for text, _ in chosen], 1), torch.stack([codes for _, codes in chosen], 1)


def streams_of(batch):
    return to_streams(batch, 1, False, TEXT, CODES)


@pytest.mark.parametrize(("look_ahead", "piece"), [(0, 1), (0, 3), (0, 7), (0, FRAMES), (1, 2), (1, 6)])
@torch.inference_mode()
def test_streamed_equals_offline(look_ahead, piece):
    net, batch = tiny_net(look_ahead), random_batch()
    streams, hop = streams_of(batch), CLOCK.user_hop
    whole = net(batch.user_audio, streams.text_input, streams.codes_input)
    state = net.initial_state(2)
    pieces = [
        net(batch.user_audio[:, a * hop : b * hop], streams.text_input[:, a:b], streams.codes_input[:, a:b], state)
        for a, b in cuts_of(FRAMES, piece)
    ]
    assert (torch.cat([p.text for p in pieces], 1) - whole.text).abs().max() <= 1e-4
    assert (torch.cat([p.codes for p in pieces], 1) - whole.codes).abs().max() <= 1e-4


@pytest.mark.parametrize(("look_ahead", "context_frames"), [(0, 64), (1, 64), (0, 6)])
@torch.inference_mode()
def test_a_live_session_equals_the_offline_net_on_its_own_choices(look_ahead, context_frames):
    """context 6: the session is longer than the ring."""
    net, batch = tiny_net(look_ahead, context_frames), random_batch()
    batch.agent_text, batch.agent_codes = live(net, batch.user_audio)
    text_input = torch.cat([torch.full((2, 1), TEXT.pad), batch.agent_text[:, :-1]], 1)
    codes_input = torch.cat([torch.full((2, 1, 4), CODES.unk), batch.agent_codes[:, :-1]], 1)
    offline = net(batch.user_audio, text_input, codes_input)
    assert torch.equal(offline.text.argmax(-1), batch.agent_text)
    assert torch.equal(offline.codes.argmax(-1), batch.agent_codes)


@torch.inference_mode()
def test_causal_in_every_input():
    net, batch = tiny_net(), random_batch()
    streams = streams_of(batch)
    inputs = [batch.user_audio, streams.text_input, streams.codes_input]
    before = net(*inputs).text
    for index, place in ((0, 10 * CLOCK.user_hop), (1, 10), (2, 10)):
        changed = [x.clone() for x in inputs]
        changed[index][:, place:] = 0
        difference = (net(*changed).text - before).abs().amax(dim=(0, 2))
        assert difference[:10].max() <= 1e-5
        assert difference[10] > 1e-4


@torch.inference_mode()
def test_rows_are_independent_and_may_start_at_any_frame():
    net, audio = tiny_net(), random_batch(rows=3, frames=40).user_audio
    alone, _ = live(net, audio[1:2, 16 * CLOCK.user_hop :])
    state = net.initial_state(3)
    live(net, audio, frames=16, state=state)
    state.copy_rows([1], net.initial_state(3))
    text, _ = live(net, audio[:, 16 * CLOCK.user_hop :], state=state)
    assert torch.equal(text[1:2], alone)


def test_golden_loss_and_tokens():
    """A refactor must not move these."""
    net, batch = tiny_net(), random_batch()
    streams = streams_of(batch)
    loss = DuplexLoss(LossConfig(), TEXT)(net(batch.user_audio, streams.text_input, streams.codes_input), streams)
    text, codes = live(net, batch.user_audio, frames=8)
    assert float(loss.total) == pytest.approx(GOLDEN_LOSS, abs=2e-4)
    assert text[0].tolist() == GOLDEN_TEXT
    assert codes[0, :2].tolist() == GOLDEN_CODES


def test_overfits_one_batch():
    net, batch = tiny_net(seed=3).train(), random_batch(rows=2, frames=12)
    batch.user_audio[1] = 0  # one user makes noise, the other is silent: all that tells the first frames apart
    streams, loss = streams_of(batch), DuplexLoss(LossConfig(), TEXT)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(120):
        total = loss(net(batch.user_audio, streams.text_input, streams.codes_input), streams).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    logits = net.eval()(batch.user_audio, streams.text_input, streams.codes_input)
    assert float(total) < 0.1
    assert torch.equal(logits.text.argmax(-1), streams.text_label)
    assert torch.equal(logits.codes.argmax(-1), streams.codes_label)


def test_every_weight_learns():
    net, batch = tiny_net().train(), random_batch()
    streams = streams_of(batch)
    DuplexLoss(LossConfig(), TEXT)(
        net(batch.user_audio, streams.text_input, streams.codes_input), streams
    ).total.backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0] == []
