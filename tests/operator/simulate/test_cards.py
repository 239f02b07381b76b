"""Capacities measured on the simulated engine."""

from __future__ import annotations

import functools
import random

import pytest

from adaptive_operator.simulate.cards import MOST_PART, attained_rate, measure_cards
from adaptive_operator.simulate.curve import Lengths, saturation
from adaptive_operator.simulate.generators import LengthDistribution
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.scenario import ScenarioError, build_scenario
from tests.operator.simulate.queues import make_curve
from tests.operator.simulate.scenes import make_scenario, make_spec

pytestmark = pytest.mark.slow

RNG = random.Random(1)
LENGTHS = [LengthDistribution().draw(RNG) for _ in range(2000)]


def part_of_saturation(curve, **slo):
    scenario = make_scenario(slo={"ttftMilliseconds": 1000, "tpotMilliseconds": 35, "attainmentPercent": 99, **slo})
    return attained_rate(scenario, curve, LENGTHS, seed=1) / saturation(curve, Lengths.of(LENGTHS))


@functools.cache
def usual_part():
    return part_of_saturation(make_curve())


def test_one_replica_attains_99_per_cent_at_two_thirds_of_its_saturation():
    assert usual_part() == pytest.approx(0.65, abs=0.08)


def test_a_lower_attainment_and_a_faster_tier_leave_less_unused():
    usual = usual_part()
    assert usual < part_of_saturation(make_curve(), attainmentPercent=95)
    assert usual < part_of_saturation(make_curve().scaled(2.2, 2.2))


def test_a_tier_that_is_never_late_is_held_below_its_saturation():
    assert part_of_saturation(make_curve().scaled(8, 8)) == pytest.approx(MOST_PART)


def test_a_tier_that_never_attains_the_objective_has_no_rate():
    assert part_of_saturation(make_curve(), tpotMilliseconds=1) == 0.0


def test_a_tier_that_never_attains_the_objective_is_left_out_and_named():
    trace = [TraceRow(float(i), *lengths) for i, lengths in enumerate(LENGTHS[:300])]
    slow = make_curve().scaled(0.1, 0.1)  # 70 ms a step, the objective is 35
    spec = make_spec(routing={"warmTier": "full"})
    scenario = build_scenario("assistant", spec, 4, {"full": slow, "int8": make_curve(), "int4": make_curve()})
    measured = measure_cards(scenario, trace, seed=1)
    assert measured.left_out == ("full",)
    assert [tier.name for tier in measured.scenario.tiers] == ["int8", "int4"]
    assert [tier.name for tier in measured.scenario.spec.tiers] == ["int8", "int4"]
    assert measured.scenario.spec.routing.warm_tier is None  # it named the one that is gone


def test_a_model_of_which_no_tier_attains_the_objective_is_refused():
    trace = [TraceRow(float(i), *lengths) for i, lengths in enumerate(LENGTHS[:300])]
    scenario = make_scenario(slo={"ttftMilliseconds": 1000, "tpotMilliseconds": 1, "attainmentPercent": 99})
    with pytest.raises(ScenarioError, match="no tier keeps"):
        measure_cards(scenario, trace, seed=1)


def test_measured_capacities_are_what_planner_and_router_work_with():
    trace = [TraceRow(float(i), *lengths) for i, lengths in enumerate(LENGTHS)]
    measured = measure_cards(make_scenario(), trace, seed=1).scenario
    for tier, spec in zip(measured.tiers, measured.spec.tiers, strict=True):
        assert spec.card.capacity_milli_requests_per_second == round(1000 * tier.rate)
        assert spec.card.capacity_milli_requests_per_second != make_scenario().tier(tier.name).rate * 1000
