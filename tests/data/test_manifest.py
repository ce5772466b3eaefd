from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MultiCut, Recording

from nemo_duplex.data.dialogue import Dialogue, Turn
from nemo_duplex.data.files import write_wav
from nemo_duplex.data.manifest import Session, lay, utterance_cut, validate_cut, write_cuts, write_session
from nemo_duplex.data.timeline import BargeIn, PlacedTurn, Timeline

DIALOGUE = Dialogue("s1", tuple(Turn(role, text) for role, text in zip(("user", "agent") * 2, "qarb", strict=True)))
TIMELINE = Timeline(
    [
        PlacedTurn("user", 0.1, 0.5),
        PlacedTurn("agent", 1.2, 0.9, interrupted=True),
        PlacedTurn("user", 1.46, 0.5),
        PlacedTurn("agent", 2.64, 1.0),
    ],
    [BargeIn(1.46, 2.1)],
    50,
)


def test_clips_lie_at_their_places_and_a_cut_fades():
    turns = [PlacedTurn("agent", 0.2, 0.4, interrupted=True), PlacedTurn("agent", 0.8, 0.2)]
    stream = lay(turns, [np.ones(8), np.full(2, 0.5)], 12, 10, 0.3)
    assert stream.tolist() == [0, 0, 1, 1, 0.5, 0, 0, 0, 0.5, 0.5, 0, 0]


@pytest.fixture
def session_cut(tmp_path, clock):
    clips = []
    for index, seconds in enumerate((0.5, 3.0, 0.5, 1.0)):
        rate = (clock.user_sample_rate, clock.agent_sample_rate)[index % 2]
        clips.append(tmp_path / f"{index}.wav")
        write_wav(clips[-1], np.full(round(seconds * rate), 0.25, np.float32), rate)
    return write_session(Session(DIALOGUE, TIMELINE, clips, "kumo"), tmp_path / "sessions", clock, 0.005)


def test_the_cut_has_the_layout_that_nemo_reads(session_cut, tmp_path, clock):
    write_cuts([session_cut], tmp_path / "train.jsonl.gz")
    (cut,) = CutSet.from_file(tmp_path / "train.jsonl.gz")
    validate_cut(cut, clock)
    assert (cut.id, cut.duration, cut.sampling_rate, cut.num_samples) == ("s1", 4.0, 16000, 64000)
    assert (cut.target_audio.sampling_rate, cut.target_audio.num_samples) == (22050, 88200)
    assert [(turn.speaker, turn.text, turn.start, turn.duration) for turn in cut.supervisions] == [
        ("user", "q", 0.1, 0.5),
        ("agent", "a", 1.2, 0.9),
        ("user", "r", 1.46, 0.5),
        ("agent", "b", 2.64, 1.0),
    ]
    assert [turn.custom for turn in cut.supervisions] == [None, {"interrupted": True}, None, {"interrupted": False}]
    assert cut.user_voice == "kumo"
    assert cut.events == [{"kind": "barge_in", "user_onset": 1.46, "agent_stop": 2.1}]


def test_every_sample_is_where_the_timeline_says(session_cut):
    for speaker, samples, rate in (
        ("user", session_cut.load_audio()[0], 16000),
        ("agent", session_cut.load_target_audio()[0], 22050),
    ):
        expected = np.zeros(len(samples), np.float32)
        for turn in (turn for turn in TIMELINE.turns if turn.speaker == speaker):
            start, count = round(turn.start * rate), round(turn.duration * rate)
            expected[start : start + count] = 0.25
            if turn.interrupted:
                fade = round(0.005 * rate)
                assert np.all(np.diff(samples[start + count - fade : start + count]) < 0)
                expected[start + count - fade : start + count] = samples[start + count - fade : start + count]
        assert np.array_equal(samples, expected)


def test_an_utterance_is_a_cut_of_its_own(tmp_path, clock):
    write_wav(tmp_path / "hash.wav", np.zeros(clock.agent_hop * 10, np.float32), clock.agent_sample_rate)
    cut = utterance_cut(tmp_path / "hash.wav", "Snow is white.", clock)
    assert (cut.id, cut.duration, cut.sampling_rate) == ("hash", 0.8, clock.agent_sample_rate)
    assert cut.supervisions[0].text == "Snow is white." and cut.load_audio().shape == (1, clock.agent_hop * 10)


def without_agent(cut):
    del cut.target_audio


def missing_file(cut):
    Path(cut.target_audio.sources[0].source).unlink()


def unreadable_file(cut):
    Path(cut.recording.sources[0].source).write_bytes(b"no audio at all")


def half_a_file(cut):
    path = cut.recording.sources[0].source
    soundfile.write(path, np.zeros(cut.recording.num_samples // 2), cut.recording.sampling_rate)


def stereo(cut):
    path = cut.target_audio.sources[0].source
    soundfile.write(path, np.zeros((cut.target_audio.num_samples, 2)), cut.target_audio.sampling_rate)
    cut.target_audio = Recording.from_file(path)


def stereo_behind_the_manifest(cut):
    path = cut.target_audio.sources[0].source
    soundfile.write(path, np.zeros((cut.target_audio.num_samples, 2)), cut.target_audio.sampling_rate)


def wrong_rate(cut):
    path = cut.recording.sources[0].source
    soundfile.write(path, np.zeros(32000), 8000)
    cut.recording = Recording.from_file(path)


def resampled(cut):
    wrong_rate(cut)
    cut.recording = cut.recording.resample(16000)


def nan(cut):
    path = cut.recording.sources[0].source
    samples, rate = soundfile.read(path)
    samples[12345] = np.nan
    soundfile.write(path, samples, rate, subtype="FLOAT")


def no_text(cut):
    cut.supervisions[1].text = " "


def unknown_speaker(cut):
    cut.supervisions[0].speaker = "Assistant"


def late_turn(cut):
    cut.supervisions[1].duration = 9.0


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (without_agent, "has no target_audio: add the agent's stream"),
        (missing_file, "target_audio: the file .*one.agent.wav is missing: restore"),
        (unreadable_file, "recording: the file .*one.user.wav is not readable audio.*restore"),
        (half_a_file, "recording: the file .* has 32000 samples of 1 channels at 16000 Hz, its manifest says 64000"),
        (stereo, "target_audio has 2 channels; expected mono: store each party"),
        (
            stereo_behind_the_manifest,
            "has 88200 samples of 2 channels at 22050 Hz, its manifest says 88200 of 1 at 22050 Hz",
        ),
        (wrong_rate, "recording is at 8000 Hz; expected 16000 Hz: convert"),
        (resampled, "recording is stored at 8000 Hz and resampled while loading; expected 16000 Hz"),
        (nan, "recording holds NaN or infinity, first at sample 12345"),
        (no_text, "turn 'one-1' of the agent has no text.*write"),
        (unknown_speaker, "unknown speaker 'Assistant'; expected one of user, agent"),
        (late_turn, "lies at 1.6 to 10.6 s, the session is 4 s long"),
    ],
)
def test_a_bad_cut_is_named_with_its_remedy(make_cut, clock, spoil, match):
    cut = make_cut()
    validate_cut(cut, clock)
    spoil(cut)
    with pytest.raises(ValueError, match=f"cut 'one'.*{match}"):
        validate_cut(cut, clock)


def test_a_cut_with_two_microphones_is_named(make_cut, clock, tmp_path):
    soundfile.write(tmp_path / "two.wav", np.zeros((64000, 2)), 16000)
    cut = Recording.from_file(tmp_path / "two.wav").to_cut()
    assert isinstance(cut, MultiCut)
    cut.id, cut.target_audio = "one", make_cut().target_audio
    with pytest.raises(ValueError, match="cut 'one': recording has 2 channels"):
        validate_cut(cut, clock)


@pytest.mark.parametrize(("seconds", "fits"), [(4.08, True), (3.92, True), (4.09, False), (3.9, False)])
def test_streams_may_differ_by_one_frame(make_cut, clock, seconds, fits):
    cut = make_cut(agent_seconds=seconds)
    if fits:
        validate_cut(cut, clock)
    else:
        with pytest.raises(ValueError, match=f"lasts 4.000 s and the agent's {seconds:.3f} s.*at most one frame"):
            validate_cut(cut, clock)
