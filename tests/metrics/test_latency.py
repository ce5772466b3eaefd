"""Percentiles, late frames and the real-time factor."""

import pytest

from nemo_duplex.metrics.latency import frame_times, real_time_factor


def test_percentiles_and_late_frames():
    """0 .. 100 ms: percentiles are the values themselves; 20 of 101 are over 80 ms."""
    times = frame_times(list(range(101)), frame_ms=80)
    assert times == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "late": pytest.approx(20 / 101)}


def test_order_does_not_matter_and_one_value_is_all_percentiles():
    assert frame_times([3.0, 1.0, 2.0], 80)["p50"] == 2.0
    assert frame_times([7.0], 80) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "late": 0.0}


def test_nothing_measured_is_none():
    assert frame_times([], 80) == {"p50": None, "p95": None, "p99": None, "late": None}
    assert real_time_factor(1.0, 0.0) is None


def test_real_time_factor_is_processing_over_audio():
    assert real_time_factor(5.0, 20.0) == 0.25
