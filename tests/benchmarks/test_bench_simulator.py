from __future__ import annotations

import argparse
from itertools import pairwise

import pytest

from adaptive_operator.simulate.curve import StepCurve
from adaptive_operator.simulate.requests import TraceRow
from benchmarks import bench_simulator
from benchmarks.bench_simulator import (
    MIX,
    Measurement,
    Objective,
    Stretch,
    compare,
    describe_profile,
    draw_rows,
    kept_rate,
    measure,
    simulate,
    write_scenario,
)
from benchmarks.http_load import OURS, Endpoint
from benchmarks.idle import IdleCheck
from benchmarks.predicted_times import Answer
from benchmarks.step_profile import Pace, ProfileRepeat, StepProfile, build_profile

CURVE = StepCurve(0.01, 0.001, ((1, 0.02),), 4096, 8, step_tokens=64)
SLOW = ProfileRepeat({16: 0.04, 64: 0.14, 128: 0.28, 192: 0.42}, {1: 0.02, 2: 0.024, 4: 0.028, 8: 0.04})
REPEAT = ProfileRepeat({16: 0.02, 64: 0.07, 128: 0.14, 192: 0.21}, {1: 0.01, 2: 0.012, 4: 0.014, 8: 0.02})


def test_arrivals_have_the_rate_the_mix_and_an_order():
    rows = draw_rows(4.0, 500.0, seed=1)
    assert len(rows) == pytest.approx(2000, rel=0.1)
    assert [row.arrival for row in rows] == sorted(row.arrival for row in rows)
    assert {(row.prompt_tokens, row.output_tokens) for row in rows} == set(MIX)
    assert draw_rows(4.0, 500.0, seed=2) != rows


def test_a_time_too_short_for_the_rate_still_has_a_request():
    assert len(draw_rows(0.001, 1.0, seed=1)) == 1


def test_the_simulated_replica_serves_every_row():
    found = simulate(CURVE, [TraceRow(0.5, 54, 11), TraceRow(9.0, 54, 11)], [Pace(1.0, 1.0)], seed=1)
    assert found == [Answer(pytest.approx(0.064), pytest.approx(0.02))] * 2


def test_requests_are_simulated_at_the_paces_that_are_drawn_again_and_again():
    rows = [TraceRow(float(second), 54, 2) for second in range(1, 61)]
    slow, quick = simulate(CURVE, rows[:1], [Pace(0.5, 0.25)], 1), simulate(CURVE, rows[:1], [Pace(2.0, 4.0)], 1)
    assert slow == [Answer(pytest.approx(0.128), pytest.approx(0.08))]
    assert quick == [Answer(pytest.approx(0.032), pytest.approx(0.005))]
    drawn = [round(one.ttft, 3) for one in simulate(CURVE, rows, [Pace(0.5, 0.25), Pace(2.0, 4.0)], seed=1)]
    assert set(drawn) == {0.128, 0.032}
    changes = sum(now != then for now, then in pairwise(drawn))
    assert 3 <= changes <= 15  # of the 15 paces that 60 s have
    assert drawn == [round(one.ttft, 3) for one in simulate(CURVE, rows, [Pace(0.5, 0.25), Pace(2.0, 4.0)], seed=1)]


def test_the_engine_is_simulated_with_the_objective_that_it_is_started_with(tmp_path):
    profile = StepProfile(4.0, 1.0, ((1, 9.5), (8, 18.5)))
    curve = write_scenario(profile, tmp_path / "profile.yaml", Objective(1000, 60)).tiers[0].curve
    assert curve.planned_seconds == pytest.approx(0.054)
    assert curve.step_tokens == 64


def test_the_requests_of_all_rounds_are_compared_together():
    alone = TraceRow(0.5, 54, 11)  # predicted: 0.064 s, then 0.02 s a token
    quick = Stretch([alone], [Answer(0.05, 0.01)])
    slow = Stretch([alone, TraceRow(9.0, 54, 11)], [Answer(0.08, 0.02), Answer(0.4, 0.04)])
    (found,) = compare(Measurement(5.0, [REPEAT], {0.3: [quick, slow]}, []), CURVE, kept=6.0)
    assert (found.rate, found.part, found.requests) == (1.5, 0.25, 3)
    assert found.pair("ttft") == (pytest.approx(0.064), 0.08)
    assert found.pair("tpot") == (pytest.approx(0.02), 0.02)
    assert found.error("ttft") == pytest.approx(-0.2)
    assert not found.is_met


def test_the_profile_is_told_with_how_far_its_repeats_are_apart():
    firsts, steps = {16: 0.02, 64: 0.1, 128: 0.2, 192: 0.3}, {1: 0.01, 2: 0.012, 4: 0.014, 8: 0.02}
    slow = ProfileRepeat(
        {size: 2 * one for size, one in firsts.items()}, {size: 2 * one for size, one in steps.items()}
    )
    repeats = [ProfileRepeat(firsts, steps), slow]
    told = describe_profile(build_profile(repeats, 64), repeats)
    assert (
        "steps of 1: 15.0, 2: 18.0, 4: 21.0, 8: 30.0 ms; 2 repeats, p10 to p90: 192 tokens alone 300.0 to 600.0 ms"
        in told
    )
    assert told.endswith("a step of 1 10.0 to 20.0 ms")


def test_the_rates_are_parts_of_what_the_first_repeats_keep_and_a_repeat_comes_before_each_stretch(
    monkeypatch, tmp_path
):
    order: list[str] = []

    async def measure_repeat(*_args, **_kwargs):
        order.append("repeat")
        return SLOW if "arrivals" in order or len(order) > 20 else REPEAT

    async def replay(_endpoint, rows, _seed):
        order.append("arrivals")
        return [Answer(0.1, 0.01) for _ in rows]

    monkeypatch.setattr(bench_simulator, "measure_repeat", measure_repeat)
    monkeypatch.setattr(bench_simulator, "replay", replay)
    monkeypatch.setattr(bench_simulator, "wait_until_idle", lambda _seconds: IdleCheck(1.0, True))
    options = argparse.Namespace(rounds=2, parts=[0.3, 0.6, 0.85], seconds=10.0, gate_seconds=0.0)
    path, objective = tmp_path / "profile.yaml", Objective(1000, 60)
    found = measure(Endpoint("", OURS, {}), path, objective, options)
    assert order == ["repeat"] * 20 + ["repeat", "arrivals"] * 6
    assert len(found.gates) == 26
    assert found.kept == pytest.approx(kept_rate(write_scenario(build_profile([REPEAT], 64), path, objective)))
    assert found.repeats == [SLOW] * 6  # and not the first ones, of another time
    assert [len(one) for one in found.stretches.values()] == [2, 2, 2]
    rates = [one.rate / found.kept for one in compare(found, CURVE, kept=1.0)]
    assert rates == [pytest.approx(part) for part in (0.3, 0.6, 0.85)]
