"""The steps follow from the capacities, and the third one needs a swap or the demo says that none can."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from e2e.demo.load_plan import RHO, TierCapacity, most_capacity, plan_load
from e2e.demo.settings import DemoError

DURATIONS = (30, 40, 90, 80)


def tiers(full: float, int8: float, int4: float) -> list[TierCapacity]:
    return [TierCapacity("full", 2, full), TierCapacity("int8", 1, int8), TierCapacity("int4", 1, int4)]


def test_the_issues_estimate_gives_steps_on_both_sides_of_the_thresholds() -> None:
    plan = plan_load(tiers(0.8, 0.65, 0.65), "int4", 4, DURATIONS)
    base, shed, swap, fall = (step.rate_per_second for step in plan.steps)
    assert (base, shed, fall) == pytest.approx((0.4, 1.2, 0.4))
    assert plan.grown_carries == pytest.approx(RHO * 2.1)
    assert plan.swapped_carries == pytest.approx(RHO * 2.6)
    assert plan.grown_carries < swap < plan.swapped_carries
    assert [step.duration_seconds for step in plan.steps] == list(DURATIONS)


@given(st.floats(0.2, 3), st.floats(0.2, 3), st.floats(0.2, 3))
def test_every_plan_sheds_in_step_two_and_needs_a_swap_in_step_three(full: float, int8: float, int4: float) -> None:
    try:
        plan = plan_load(tiers(full, int8, int4), "int4", 4, DURATIONS)
    except DemoError:
        assume(False)
    base, shed, swap, _ = (step.rate_per_second for step in plan.steps)
    assert base < RHO * full
    assert shed < RHO * (full + int4)
    with_full = [full + int4 + extra for extra in (0, int8, int4)]
    without = [int4 + sum(pick) for pick in itertools.product((0, int8, int4), repeat=3)]
    assert max(with_full) * RHO - 0.001 < swap < max(without) * RHO + 0.001


def test_capacities_that_leave_no_such_load_are_refused_with_their_numbers() -> None:
    with pytest.raises(DemoError, match=r"no load needs a swap.*full 2\.00/s on 2"):
        plan_load(tiers(2.0, 0.9, 0.9), "int4", 4, DURATIONS)


def test_the_most_that_a_budget_carries_keeps_the_warm_tier() -> None:
    full, int8, int4 = tiers(0.8, 0.65, 0.5)
    assert most_capacity([int8, int4], int4, 4) == pytest.approx(0.5 + 3 * 0.65)
    assert most_capacity([full], int4, 4) == pytest.approx(0.5 + 0.8)
    assert most_capacity([int8], int4, 1) == pytest.approx(0.5)


def test_the_explanation_names_the_thresholds() -> None:
    text = "\n".join(plan_load(tiers(0.8, 0.65, 0.65), "int4", 4, DURATIONS).explain("full"))
    assert "1.89" in text
    assert "2.34" in text
