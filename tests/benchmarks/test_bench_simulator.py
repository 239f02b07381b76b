from __future__ import annotations

import pytest

from adaptive_operator.simulate.curve import StepCurve
from adaptive_operator.simulate.requests import TraceRow
from benchmarks.bench_simulator import (
    MIX,
    Answer,
    Comparison,
    Measurement,
    Objective,
    Stretch,
    Times,
    compare,
    draw_rows,
    render,
    simulate,
    write_scenario,
)
from benchmarks.step_profile import StepProfile

CURVE = StepCurve(0.01, 0.001, ((1, 0.02),), 4096, 8, step_tokens=64)


def times(ttft: float, tpot: float) -> Times:
    return Times(ttft, 2 * ttft, tpot, 2 * tpot)


def test_arrivals_have_the_rate_the_mix_and_an_order():
    rows = draw_rows(4.0, 500.0, seed=1)
    assert len(rows) == pytest.approx(2000, rel=0.1)
    assert [row.arrival for row in rows] == sorted(row.arrival for row in rows)
    assert {(row.prompt_tokens, row.output_tokens) for row in rows} == set(MIX)
    assert draw_rows(4.0, 500.0, seed=2) != rows


def test_a_time_too_short_for_the_rate_still_has_a_request():
    assert len(draw_rows(0.001, 1.0, seed=1)) == 1


def test_the_simulated_replica_serves_every_row():
    found = simulate(CURVE, [TraceRow(0.5, 54, 11), TraceRow(9.0, 54, 11)])
    assert found == [Answer(pytest.approx(0.064), pytest.approx(0.02))] * 2


def test_the_engine_is_simulated_with_the_objective_that_it_is_started_with(tmp_path):
    profile = StepProfile(4.0, 1.0, ((1, 9.5), (8, 18.5)))
    curve = write_scenario(profile, tmp_path / "profile.yaml", Objective(1000, 60)).tiers[0].curve
    assert curve.planned_seconds == pytest.approx(0.054)
    assert curve.step_tokens == 64


def test_the_requests_of_all_rounds_are_compared_together():
    alone = TraceRow(0.5, 54, 11)  # predicted: 0.064 s, then 0.02 s a token
    quick = Stretch([alone], [Answer(0.05, 0.01)])
    slow = Stretch([alone, TraceRow(9.0, 54, 11)], [Answer(0.08, 0.02), Answer(0.4, 0.04)])
    (found,) = compare(Measurement(5.0, [], {0.3: [quick, slow]}, []), CURVE)
    assert (found.rate, found.requests) == (1.5, 3)
    assert found.pair("ttft") == (pytest.approx(0.064), 0.08)
    assert found.pair("tpot") == (pytest.approx(0.02), 0.02)
    assert found.error("ttft") == pytest.approx(-0.2)
    assert not found.is_met


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
