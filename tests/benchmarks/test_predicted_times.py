from __future__ import annotations

import pytest

from benchmarks.predicted_times import Answer, Comparison, Times, render


def times(ttft: float, tpot: float) -> Times:
    return Times(1.5 * ttft, ttft, 2 * ttft, 1.5 * tpot, tpot, 2 * tpot)


def test_a_row_is_met_when_both_medians_are_near():
    near = Comparison(0.3, 1.5, 40, times(0.11, 0.011), times(0.1, 0.01))
    far = Comparison(0.85, 4.25, 110, times(0.1, 0.01), times(0.2, 0.01))
    met, missed = render([near, far]).splitlines()[2:]
    assert met.startswith("| 1.50/s (0.30) | 40 | 165.0 / 150.0 (+10%) | 110.0 / 100.0 (+10%) | 220.0 / 200.0 (+10%) |")
    assert "| 16.5 / 15.0 (+10%) | 11.0 / 10.0 (+10%) | 22.0 / 20.0 (+10%) |" in met
    assert met.endswith("| met |")
    assert missed.startswith(
        "| 4.25/s (0.85) | 110 | 150.0 / 300.0 (-50%) | 100.0 / 200.0 (-50%) | 200.0 / 400.0 (-50%) |"
    )
    assert missed.endswith("| **missed** |")


def test_times_are_told_by_mean_median_and_p95():
    found = Times.of([Answer(0.1 * n, 0.01 * n) for n in (1, 2, 9)])
    assert (found.ttft_mean, found.ttft) == (pytest.approx(0.4), 0.2)
    assert (found.tpot_mean, found.tpot) == (pytest.approx(0.04), 0.02)
    assert (found.ttft_p95, found.tpot_p95) == (pytest.approx(0.9), pytest.approx(0.09))
