"""What policies are judged on, what they are tuned on, and how a parameter is chosen."""

from __future__ import annotations

import math

import pytest

from adaptive_operator.simulate.comparison import (
    Comparison,
    ModelLoad,
    chosen_from,
    compare,
    count_runs,
    describe_held_out,
    hold_out,
    mean_rate,
    tune,
)
from adaptive_operator.simulate.generators import generate, parse_generator, steady
from adaptive_operator.simulate.policies.registry import GRIDS
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import RunSettings
from adaptive_operator.simulate.scaling import rotate_trace, scale_trace
from adaptive_operator.simulate.scenario import ScenarioError
from adaptive_operator.simulate.tuning_notes import HeldOut
from tests.operator.simulate.scenes import TIERS, make_scenario

TRACE = tuple(TraceRow(float(t), t + 1, 10) for t in range(91))


def test_the_first_third_of_a_trace_is_held_out_and_never_judged_on():
    judged, held_out = hold_out(TRACE)
    assert [row.prompt_tokens for row in held_out] == list(range(1, 31))
    assert [row.prompt_tokens for row in judged] == list(range(31, 92))
    assert judged[0].arrival == held_out[0].arrival == 0.0


def test_a_trace_that_cannot_be_cut_is_both():
    assert hold_out(TRACE[:1]) == (TRACE[:1], TRACE[:1])
    assert hold_out(()) == ((), ())


def test_tuning_meets_other_requests_of_another_seed():
    comparison = Comparison((ModelLoad(make_scenario(), *hold_out(TRACE)),), 3.0, 1, RunSettings())
    ((judged,), (tuned,)) = comparison.parts(), comparison.tuning_parts()
    assert not {r.prompt_tokens for r in judged.trace} & {r.prompt_tokens for r in tuned.trace}


def test_a_quieter_part_is_tuned_on_at_the_rate_that_is_judged():
    quiet_then_busy = (
        *(TraceRow(3.0 * t, 1, 1) for t in range(101)),
        *(TraceRow(300.0 + t, 2, 1) for t in range(1, 601)),
    )
    comparison = Comparison((ModelLoad(make_scenario(), *hold_out(quiet_then_busy)),), 4.0, 1, RunSettings())
    ((judged,), (tuned,)) = comparison.parts(), comparison.tuning_parts()
    assert mean_rate(judged.trace) == pytest.approx(4.0, rel=0.05)
    assert mean_rate(tuned.trace) == pytest.approx(4.0, rel=0.05)
    assert {row.prompt_tokens for row in tuned.trace} == {1}


def test_at_scale_one_every_seed_differs_only_when_no_copy_stays_as_it_is():
    plain = [scale_trace(TRACE, 1.0, seed) for seed in (1, 2)]
    assert plain == [TRACE, TRACE]
    one, other = (scale_trace(TRACE, 1.0, seed, resample=True) for seed in (1, 2))
    assert one != other
    assert len(one) == len(other) == len(TRACE)
    assert len(scale_trace(TRACE, 2.0, 1, resample=True)) == 2 * len(TRACE)


def test_a_rotated_trace_has_the_same_requests_from_another_time_on():
    rotated = rotate_trace(TRACE, 1 / 3)
    assert [row.prompt_tokens for row in rotated] == [*range(31, 92), *range(1, 31)]
    assert [row.arrival for row in rotated[-2:]] == [88.0, 89.0]
    assert sorted(rotated, key=lambda row: row.arrival) == list(rotated)
    assert rotate_trace(TRACE, 0.0) == TRACE


def test_models_of_a_pool_meet_a_generator_in_antiphase():
    text = "square:low=1,high=9,half-period=300,seconds=600"
    first, second = (parse_generator(text, 1, phase) for phase in (0.0, 0.5))
    early = [sum(row.arrival < 300 for row in rows) / len(rows) for rows in (first, second)]
    assert early[0] < 0.2
    assert early[1] > 0.8


def test_of_equal_parameters_the_smallest_is_chosen():
    assert chosen_from("hpa", {0.3: 0.9, 0.2: 0.9, 0.5: 0.8}) == "hpa:0.2"
    assert chosen_from("proteus", {1.05: 0.1, 2.0: 0.3}) == "proteus:2"
    assert chosen_from("full", {}) == "full"


def test_runs_are_counted_with_those_that_tune():
    assert count_runs(["full", "hpa", "hpa:0.5"], seeds=2) == len(GRIDS["hpa"]) + 3 * 2


def test_a_parameter_without_a_score_is_not_chosen():
    assert chosen_from("hpa", {0.2: math.nan, 0.3: 0.1, 0.5: 0.4}) == "hpa:0.5"


def test_a_held_out_load_knows_the_longest_start_and_whether_it_is_judged_on():
    scenario = make_scenario()  # loads of 20 s after 5 s of scheduling
    loads = (hold_out(TRACE), (TRACE, TRACE))
    cut, whole = (Comparison((ModelLoad(scenario, *rows),), 1.0, 1, RunSettings()) for rows in loads)
    assert describe_held_out(cut) == HeldOut(29.0, 25.0)
    assert describe_held_out(whole) == HeldOut(90.0, 25.0, is_judged=True)


@pytest.mark.parametrize("name", ["cost-first:0.8", "infaas:0.8"])
def test_a_floor_that_no_tier_reaches_is_refused_by_policies_that_keep_it(name):
    trace = generate(steady(1.0), 30.0, seed=1)
    part = ModelLoad(make_scenario(tiers=TIERS[1:], quality={"floorPermille": 999}), trace, trace)
    with pytest.raises(ScenarioError, match=r"no tier reaches the floor of 0\.999; lower the floor"):
        compare(Comparison((part,), 1.0, 1, RunSettings()), [name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cost-first", "infaas"])
def test_every_parameter_of_the_grid_is_tried_and_the_best_one_runs(name):
    trace = generate(steady(6.0), 90.0, seed=1)
    comparison = Comparison((ModelLoad(make_scenario(), trace, trace),), 1.0, 1, RunSettings())
    grid = tune(comparison, name, lambda label: lambda part: None)
    assert tuple(grid) == GRIDS[name]
    (judged,) = compare(comparison, [name])
    assert judged.name == chosen_from(name, grid)
    assert judged.grid == grid
