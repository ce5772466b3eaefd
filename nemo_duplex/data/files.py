"""Files that are whole or absent: every write goes to a hidden name beside the target and is renamed when complete.

    with atomic("a.wav") as part:  ->  .partial-<random>-a.wav  --(the block ends well)-->  a.wav
                                                                --(error or kill)-------->  a.wav as it was before

Boundary: paths and samples; knows nothing of sessions or voices.
"""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

PARTIAL = ".partial-"


@contextmanager
def atomic(path):
    """Gives a hidden path of the same ending to write to; renames it to `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
    part = folder / path.name
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        folder.rmdir()


def write_wav(path, samples: np.ndarray, rate: int) -> None:
    """Writes mono float samples in [-1, 1] as 16-bit PCM, whole or not at all."""
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: the samples to write hold NaN or infinity; expected finite numbers in [-1, 1]")
    with atomic(path) as part:
        soundfile.write(part, samples, rate, subtype="PCM_16")


def read_wav(path, rate: int) -> np.ndarray:
    """Mono float32 samples of a file at the rate it must have.

    Raises:
        ValueError: when the file is missing, unreadable, not mono or at another rate, naming it.
    """
    try:
        samples, got = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: cannot be read as audio ({error}); restore the file or make it again") from error
    if samples.shape[1] != 1 or got != rate:
        raise ValueError(
            f"{path}: expected 1 channel at {rate} Hz, got {samples.shape[1]} at {got} Hz: "
            "convert the file and try again"
        )
    return samples[:, 0]
