"""Capacities measured on the simulated engine."""

from __future__ import annotations

import random

import pytest

from adaptive_operator.simulate.cards import MOST_PART, attained_rate, measure_cards
from adaptive_operator.simulate.curve import Lengths, saturation
from adaptive_operator.simulate.generators import LengthDistribution
from adaptive_operator.simulate.requests import TraceRow
from tests.operator.simulate.queues import make_curve
from tests.operator.simulate.scenes import make_scenario

RNG = random.Random(1)
LENGTHS = [LengthDistribution().draw(RNG) for _ in range(2000)]


def part_of_saturation(curve, **slo):
    scenario = make_scenario(slo={"ttftMilliseconds": 1000, "tpotMilliseconds": 35, "attainmentPercent": 99, **slo})
    return attained_rate(scenario, curve, LENGTHS, seed=1) / saturation(curve, Lengths.of(LENGTHS))


def test_one_replica_attains_99_per_cent_at_two_thirds_of_its_saturation():
    assert part_of_saturation(make_curve()) == pytest.approx(0.65, abs=0.08)


def test_a_lower_attainment_and_a_faster_tier_leave_less_unused():
    usual = part_of_saturation(make_curve())
    assert usual < part_of_saturation(make_curve(), attainmentPercent=95)
    assert usual < part_of_saturation(make_curve().scaled(2.2, 2.2))


def test_a_tier_that_is_never_late_is_held_below_its_saturation():
    assert part_of_saturation(make_curve().scaled(8, 8)) == pytest.approx(MOST_PART)


def test_an_objective_that_cannot_be_met_leaves_the_least_rate():
    assert part_of_saturation(make_curve(), tpotMilliseconds=1) == pytest.approx(0.05)


def test_measured_capacities_are_what_planner_and_router_work_with():
    trace = [TraceRow(float(i), *lengths) for i, lengths in enumerate(LENGTHS)]
    measured = measure_cards(make_scenario(), trace, seed=1)
    for tier, spec in zip(measured.tiers, measured.spec.tiers, strict=True):
        assert spec.card.capacity_milli_requests_per_second == round(1000 * tier.rate)
        assert spec.card.capacity_milli_requests_per_second != make_scenario().tier(tier.name).rate * 1000
