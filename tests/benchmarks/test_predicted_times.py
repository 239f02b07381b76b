from __future__ import annotations

from benchmarks.predicted_times import Comparison, Times, render


def times(ttft: float, tpot: float) -> Times:
    return Times(ttft, 2 * ttft, tpot, 2 * tpot)


def test_a_row_is_met_when_both_medians_are_near():
    near = Comparison(0.3, 1.5, 40, times(0.11, 0.011), times(0.1, 0.01))
    far = Comparison(0.85, 4.25, 110, times(0.1, 0.01), times(0.2, 0.01))
    met, missed = render([near, far]).splitlines()[2:]
    assert met.startswith("| 1.50/s (0.30) | 40 | 110.0 / 100.0 (+10%) | 220.0 / 200.0 (+10%) | 11.0 / 10.0 (+10%) |")
    assert met.endswith("| met |")
    assert missed.startswith(
        "| 4.25/s (0.85) | 110 | 100.0 / 200.0 (-50%) | 200.0 / 400.0 (-50%) | 10.0 / 10.0 (+0%) |"
    )
    assert missed.endswith("| **missed** |")
