"""DuplexEngine: frame in, frame out; rows join, leave and reset by themselves; live equals offline."""

import pytest
import torch
from tiny import CLOCK, CODES, TEXT, random_batch, tiny_codec_model, tiny_net

from nemo_duplex.config import SamplingConfig
from nemo_duplex.modules.codec import Codec
from nemo_duplex.streaming.engine import DuplexEngine

FRAMES = 12
WARM = SamplingConfig(text_temperature=0.8, codes_temperature=0.8, top_k=20, seed=7)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(tiny_codec_model(), CLOCK)


def engine(codec, rows=2, sampling=None, look_ahead=0) -> DuplexEngine:
    return DuplexEngine(tiny_net(look_ahead), codec, CLOCK, rows, sampling or SamplingConfig())


def talk(live: DuplexEngine, audio: torch.Tensor, start=0, end=FRAMES):
    """AgentFrames of frames start..end of the audio [B, T*hop], stacked: text [B, T], codes [B, T, Q], audio [B, T*hop]."""
    frames, hop = [], CLOCK.user_hop
    for at in range(start * hop, end * hop, live.samples_per_step):
        frames += live.step(audio[:, at : at + live.samples_per_step])
    text, codes = (torch.stack([getattr(frame, name) for frame in frames], 1) for name in ("text", "codes"))
    return text, codes, torch.cat([frame.audio for frame in frames], 1)


def user_audio(rows=2, frames=FRAMES):
    return random_batch(rows, frames).user_audio


@pytest.mark.parametrize("look_ahead", [0, 1])
def test_frame_in_frame_out_equals_the_offline_net_and_codec(codec, look_ahead):
    live = engine(codec, look_ahead=look_ahead)
    assert live.samples_per_step == CLOCK.user_hop * (1 + look_ahead)
    for row in range(2):
        live.join(row)
    text, codes, audio = talk(live, user_audio())
    assert audio.shape == (2, FRAMES * CLOCK.agent_hop)
    with torch.inference_mode():
        text_input = torch.cat([torch.full((2, 1), TEXT.pad), text[:, :-1]], 1)
        codes_input = torch.cat([torch.full((2, 1, 4), CODES.unk), codes[:, :-1]], 1)
        offline = live.net(user_audio(), text_input, codes_input)
    assert torch.equal(offline.text.argmax(-1), text)
    assert torch.equal(offline.codes.argmax(-1), codes)
    control = (codes >= CODES.size).any(-1, keepdim=True)
    decoded, _ = codec(torch.where(control, codec.silence_codes(), codes))
    assert (decoded - audio).abs().max() <= 1e-4


def test_control_codes_are_heard_as_silence(codec):
    live = engine(codec, rows=1)
    live.join(0)
    frame = live._frame(torch.tensor([5]), torch.tensor([[3, CODES.unk, 4, 5]]))
    fresh = engine(codec, rows=1)
    fresh.join(0)
    assert torch.equal(frame.audio, fresh._frame(torch.tensor([5]), codec.silence_codes()[None]).audio)


@pytest.mark.parametrize("sampling", [SamplingConfig(), WARM])
def test_a_session_does_not_depend_on_rows_or_on_when_it_joins(codec, sampling):
    alone = engine(codec, 1, sampling)
    alone.join(0)
    wanted = talk(alone, user_audio()[1:2])
    crowd = engine(codec, 3, sampling)
    crowd.join(0)
    talk(crowd, torch.randn(3, 5 * CLOCK.user_hop), end=5)
    crowd.join(2)
    audio = torch.randn(3, FRAMES * CLOCK.user_hop) * 0.1
    audio[2] = user_audio()[1]
    text, codes, sound = talk(crowd, audio)
    assert torch.equal(text[2:3], wanted[0])
    assert torch.equal(codes[2:3], wanted[1])
    assert (sound[2:3] - wanted[2]).abs().max() <= 1e-4


def test_reset_starts_again_and_leaves_the_others(codec):
    live, audio = engine(codec), user_audio()
    live.join(0)
    live.join(1)
    first = talk(live, audio)
    live.reset([0])
    again = talk(live, audio)
    assert torch.equal(again[0][0], first[0][0])
    other = engine(codec)
    other.join(0)
    other.join(1)
    talk(other, audio)
    assert torch.equal(talk(other, audio)[0][1], again[0][1])


def test_a_row_that_left_is_silent(codec):
    live = engine(codec)
    live.join(0)
    live.join(1)
    live.leave(0)
    text, codes, audio = talk(live, user_audio(), end=3)
    assert (text[0] == TEXT.pad).all() and (codes[0] == CODES.pad).all() and (audio[0] == 0).all()
    assert (codes[1] != CODES.pad).any()
    live.join(0)


def test_seeds(codec):
    def session(seed):
        live = engine(codec, 1, WARM)
        live.join(0, seed)
        return talk(live, user_audio(1))[1]

    assert torch.equal(session(1), session(1))
    assert not torch.equal(session(1), session(2))


def test_bad_input_names_the_row_and_loses_nothing(codec):
    live, audio = engine(codec), user_audio()
    live.join(0)
    live.join(1)
    bad = audio[:, : CLOCK.user_hop].clone()
    bad[1, 5] = float("nan")
    with pytest.raises(ValueError, match="row 1 has samples that are not finite"):
        live.step(bad)
    with pytest.raises(ValueError, match=r"expected float samples \[2, 1280\].*\[2, 1000\]"):
        live.step(audio[:, :1000])
    after = talk(live, audio)
    untouched = engine(codec)
    untouched.join(0)
    untouched.join(1)
    assert torch.equal(after[1], talk(untouched, audio)[1])


def test_refuses_rows_that_are_not_there_or_taken(codec):
    live = engine(codec)
    live.join(0)
    with pytest.raises(ValueError, match="row 0 is taken"):
        live.join(0)
    with pytest.raises(ValueError, match="rows 0 to 1"):
        live.join(2)
    with pytest.raises(ValueError, match="rows must be at least 1"):
        engine(codec, rows=0)


def test_state_bytes_counts_every_row(codec):
    one, four = engine(codec, 1).state_bytes, engine(codec, 4).state_bytes
    assert one > 10_000
    assert four == 4 * one
