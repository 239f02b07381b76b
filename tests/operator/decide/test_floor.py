"""The nearest floor that carries a load, against all plans of small spaces."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.floor import nearest_floor
from adaptive_operator.decide.spaces import PlanSpace, PlanTier


@given(st.floats(0.05, 4.0), st.integers(1, 6), st.lists(st.integers(100, 1000), min_size=3, max_size=3, unique=True))
def test_the_nearest_floor_carries_the_load_and_the_next_one_does_not(demand, limit, qualities):
    tiers = tuple(
        PlanTier(name, accelerators, 0.6, quality, 0, 99, 0)
        for name, accelerators, quality in zip("abc", (2, 1, 1), sorted(qualities, reverse=True), strict=True)
    )
    free = PlanSpace(tiers, 0.0, limit)
    nearest = nearest_floor(free, demand, 2000)

    def unserved(floor):
        space = PlanSpace(tiers, float(floor), limit)
        return min(
            space.fill(plan, demand).unserved
            for plan in itertools.product(range(limit + 1), repeat=3)
            if space.cost(plan) <= limit
        )

    if nearest is None:
        assert unserved(0) > 0.004 * demand
        return
    assert unserved(nearest) <= 0.006 * demand
    exact = nearest_floor_exactly(free, demand)
    assert nearest <= exact + 1  # plans are compared by tenths of a permille
    assert unserved(exact + 2) > 0


def nearest_floor_exactly(space, demand):
    """Without the steps that the demand is counted in."""
    best = best_plan(space, demand, 2000)
    return math.floor(space.fill(best, demand).quality_permille)
