"""Sessions streamed through a scripted engine, and their scores, come out as planned."""

from dataclasses import replace

import numpy as np
import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment
from streaming import scripted
from streaming.scripted import BARGED, CLOCK, MUTE, PLAIN, PLANS, Plan, cut_of, stream

from nemo_duplex.clock import FrameClock
from nemo_duplex.streaming.evaluation import held_out, read_held_out, score_session, spoken_pieces


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuts")
    return [cut_of(index, folder) for index in range(len(PLANS))]


@pytest.fixture(scope="module")
def sessions(cuts):
    return [held_out(cut, CLOCK) for cut in cuts]


def near(value, within=1e-9):
    return pytest.approx(value, abs=within)


def test_the_reference_tells_which_turns_expect_an_answer_and_which_answers_are_whole(sessions):
    plain, barged, mute = sessions
    assert plain.answers == ["It is Paris!", "Hello."]
    assert (plain.expected, plain.whole) == ([True, True], [True, True])
    assert (barged.expected, barged.whole) == ([True, True], [False, True])
    assert (mute.answers, mute.expected, mute.whole) == (["Hello.", None], [True, False], [True, True])


def test_without_an_agent_in_the_reference_every_turn_expects_an_answer(cuts):
    alone = held_out(MonoCut(**{**vars(cuts[0]), "supervisions": cuts[0].supervisions[:2]}), CLOCK)
    assert (alone.expected, alone.answers) == ([True, True], [None, None])


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
@pytest.mark.parametrize("frames_per_step", [1, 2])
def test_streamed_sessions_are_as_planned_for_any_number_of_rows(sessions, rows, frames_per_step):
    done = stream(sessions, rows, frames_per_step)
    for index, (streamed, plan) in enumerate(zip(done.sessions, PLANS, strict=True)):
        assert streamed.held_out is sessions[index]
        assert streamed.text.tolist() == [plan.text_at(frame) for frame in range(plan.frames)]
        assert streamed.codes[:, :2].tolist() == [[index + 1, frame] for frame in range(plan.frames)]
        assert len(streamed.audio) == (plan.frames + frames_per_step) * CLOCK.agent_hop
    assert done.sessions[0].agent_turns == [(near(26 * 0.08), near(46 * 0.08)), (near(80 * 0.08), None)]
    assert done.sessions[0].texts == ["it is paris", "it is rome"]
    assert done.rows == rows


def test_every_step_is_timed(sessions):
    """Longest first, two rows: 130 frames (with 100 beside them) and 61; in pairs of frames 65 and 31 steps."""
    assert len(stream(sessions, rows=2).step_s) == 130 + 61
    done = stream(sessions, rows=2, frames_per_step=2)
    assert len(done.step_s) == 65 + 31
    assert min(done.step_s) > 0


@pytest.mark.parametrize("frames_per_step", [1, 2])
def test_audio_is_placed_as_heard(sessions, frames_per_step):
    """BOS at frame 26: its sound comes one frame later (delay of the codes) and is heard when the step is over."""
    audio = stream(sessions, 1, frames_per_step).sessions[0].audio
    first = np.flatnonzero(np.abs(audio) > 0.1)[0] // CLOCK.agent_hop
    assert first == 26 + 1 + frames_per_step


def test_scores_are_as_planned(sessions):
    scores = [score_session(streamed, CLOCK, -40.0) for streamed in stream(sessions).sessions]
    plain, barged, mute = (score.turns for score in scores)
    assert plain.latencies == [near(0.48), near(0.8)]
    assert barged.latencies == [near(0.64)]
    assert barged.stop_latencies == [near(0.56)]
    assert (mute.expected, mute.user_turns, mute.agent_turns) == (1, 2, 0)
    assert scores[0].pairs == [("It is Paris!", "it is paris"), ("Hello.", "it is rome")]
    assert scores[1].pairs == scores[2].pairs == []


def test_only_whole_answers_are_compared(sessions):
    """Without the barge-in's late stop the agent's answer is whole, but the reference's is not; and the other way round."""
    _, barged, _ = stream(sessions).sessions
    early = replace(barged, agent_turns=[(2.24, 3.9), barged.agent_turns[1]])
    assert score_session(early, CLOCK, -40.0).pairs == []
    known = replace(barged, held_out=replace(barged.held_out, whole=[True, True]))
    assert score_session(known, CLOCK, -40.0).pairs == []
    both = replace(early, held_out=known.held_out)
    assert score_session(both, CLOCK, -40.0).pairs == [("It is Rome.", "it is rome")]


def test_barge_in_by_ear_is_later_than_by_text(sessions):
    """The sound of frame 56, the last before EOS, is heard until 57 + 2 frames: 0.72 s after the onset at frame 50."""
    heard = score_session(stream(sessions).sessions[1], CLOCK, -40.0).audible
    assert heard.stop_latencies == [near(0.72, within=0.021)]
    assert heard.latencies == [near(0.64 + 0.16, within=0.021)]


def test_an_agent_that_restarts_without_an_eos_has_not_stopped(sessions, monkeypatch):
    restarting = Plan(130, BARGED.user, [], [(28, None, [3]), (55, 120, [4])])
    monkeypatch.setattr(scripted, "PLANS", [PLAIN, restarting, MUTE])
    streamed = stream(sessions).sessions[1]
    assert streamed.agent_turns == [(near(28 * 0.08), near(55 * 0.08)), (near(55 * 0.08), near(120 * 0.08))]
    assert [item.success for item in score_session(streamed, CLOCK, -40.0).barge_ins] == [False]


def test_pieces_to_listen_to_are_whole_turns_where_they_are_heard(sessions):
    done = stream(sessions)
    ((text, audio),) = spoken_pieces(done.sessions[0], CLOCK, lag_frames=2)
    assert text == "it is paris"
    assert len(audio) == 20 * CLOCK.agent_hop
    assert np.abs(audio[: CLOCK.agent_hop]).max() > 0.1 and np.abs(audio[-CLOCK.agent_hop :]).max() > 0.1
    assert [text for text, _ in spoken_pieces(done.sessions[1], CLOCK, lag_frames=2)] == ["it is paris"]


def test_reads_manifests_and_shar(cuts, tmp_path):
    CutSet.from_cuts(cuts).to_file(tmp_path / "held_out.jsonl.gz")
    (tmp_path / "shar").mkdir()
    CutSet.from_cuts(cuts).to_shar(tmp_path / "shar", fields={"recording": "wav"})
    for path in (tmp_path / "held_out.jsonl.gz", tmp_path / "shar"):
        found = read_held_out(str(path), CLOCK, count=2)
        assert [session.id for session in found] == ["session-0", "session-1"]
        assert found[1].user_turns == [(near(0.4), near(1.6)), (near(4.0), near(5.2))]
        assert found[1].user_audio.shape == (130 * CLOCK.user_hop - 5,)
    with pytest.raises(ValueError, match="no such file; expected a Shar"):
        read_held_out(str(tmp_path / "absent"), CLOCK, count=2)
    with pytest.raises(ValueError, match=r"no sessions to evaluate on \(sessions=0\)"):
        read_held_out(str(tmp_path / "shar"), CLOCK, count=0)


def test_cuts_that_do_not_fit_are_named(cuts):
    with pytest.raises(ValueError, match="'session-0': recording is at 16000 Hz; expected 8000 Hz"):
        held_out(cuts[0], FrameClock(user_sample_rate=8000))
    stranger = SupervisionSegment("x", "x", 0.0, 1.0, text="hm", speaker="Assistant")
    with pytest.raises(ValueError, match="cut 'session-0': unknown speaker 'Assistant'; expected user or agent"):
        held_out(MonoCut(**{**vars(cuts[0]), "supervisions": [stranger]}), CLOCK)
