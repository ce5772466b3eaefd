"""How fast the model runs: percentiles of the time of a frame, frames that came late, and the real-time factor.

    real-time factor = processing time / audio time; below 1 the model keeps up on average
    late             = share of frames that took longer than a frame lasts; a live session needs the tail in time too

Boundary: numbers in, numbers out; who holds the stopwatch is streaming/evaluation.py.
"""

from collections.abc import Sequence

import numpy as np

PERCENTILES = (50, 95, 99)


def frame_times(times_ms: Sequence[float], frame_ms: float) -> dict[str, float | None]:
    """p50, p95 and p99 of the times of frames (linear interpolation), and `late`: the share of them over `frame_ms`."""
    if not len(times_ms):
        return {f"p{q}": None for q in PERCENTILES} | {"late": None}
    values = np.percentile(np.asarray(times_ms, dtype=np.float64), PERCENTILES)
    late = sum(time > frame_ms for time in times_ms) / len(times_ms)
    return {f"p{q}": float(value) for q, value in zip(PERCENTILES, values, strict=True)} | {"late": late}


def real_time_factor(processing_s: float, audio_s: float) -> float | None:
    """Seconds of processing for each second of audio; None for no audio."""
    return processing_s / audio_s if audio_s else None
