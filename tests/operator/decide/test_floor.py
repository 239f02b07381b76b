"""The nearest floor that carries a load: against all plans of small spaces, and as a user would follow what is told."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.floor import nearest_floor
from adaptive_operator.decide.spaces import PlanSpace, PlanTier
from adaptive_operator.reasons import Reason
from stand_ins.plant import Model, Plant, decide_one, demo_spec, metrics, observe_one, tier


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


def tiers_of(*tiers: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Of (accelerators, permille, milli requests/s) each."""
    return [
        tier(
            0,
            name=f"t{index}",
            replica={"accelerators": accelerators, "cpu": "1", "memory": "1Gi"},
            card={"qualityPermille": quality, "capacityMilliRequestsPerSecond": rate, "loadSeconds": 20},
        )
        for index, (accelerators, quality, rate) in enumerate(tiers)
    ]


def settle(tiers: list[dict[str, Any]], floor: int, load: float, budget: int, **routing: str) -> Decision:
    """What is decided of a new model a quarter of an hour later."""
    spec = demo_spec(tiers=tiers, quality={"floorPermille": floor}, accelerators={"budget": budget}, routing=routing)
    model = Model("assistant", spec, lambda now: load)
    Plant([model], budget=budget).run(900)
    return model.decisions[-1][1]


UNIFORM = tiers_of((1, 1000, 7244), (1, 990, 14238), (1, 965, 20031))
SLOW_WARM = tiers_of((2, 1000, 558), (1, 963, 1362), (1, 889, 1725))


@pytest.mark.parametrize(
    ("tiers", "floor", "load", "budget", "mix", "nearest"),
    [
        pytest.param(UNIFORM, 995, 45.0, 4, {"t0": 3, "t1": 1, "t2": 0}, 990, id="none that runs is below it"),
        pytest.param(None, 999, 2.0, 4, {"full": 2, "int8": 0, "int4": 0}, 998, id="only the best tier reaches it"),
        pytest.param(SLOW_WARM, 990, 4.2, 3, {"t0": 1, "t1": 1, "t2": 0}, 910, id="another tier would be warm below"),
    ],
)
def test_a_floor_that_the_load_passes_is_told_with_one_that_carries_it(tiers, floor, load, budget, mix, nearest):
    tiers = tiers or list(demo_spec().model_dump(by_alias=True, exclude_none=True)["tiers"])
    decision = settle(tiers, floor, load, budget)
    assert (decision.reason, dict(decision.replicas)) == (Reason.QUALITY_FLOOR_INFEASIBLE, mix)
    [told] = [finding.message for finding in decision.findings]
    assert re.search(r"; lower quality.floorPermille to (\d+),", told)[1] == str(nearest)
    assert settle(tiers, nearest, load, budget).findings == ()


def test_a_floor_is_not_the_limit_where_another_mix_would_carry_the_load_within_it():
    spec = demo_spec(mode="Paused", quality={"floorPermille": 900})
    decision = decide_one(observe_one(spec, {"int8": 1, "int4": 2}, metrics(1.9)))
    [told] = [finding for finding in decision.findings if finding.reason is not Reason.PAUSED]
    assert told.reason is Reason.CAPACITY_LIMITED
    assert re.search(r"int8 1 · int4 2 carry 1\.\d\d/s within quality.floorPermille; spec.mode is Paused", told.message)


WARM_BINDS = tiers_of((2, 1000, 747), (2, 931, 1140), (1, 917, 2151))


def test_where_the_warm_tiers_replica_is_in_the_way_that_is_told_and_what_helps():
    decision = settle(WARM_BINDS, 923, 7.67, 6)
    assert decision.reason is Reason.CAPACITY_LIMITED
    assert "beside the warm tier's replica, of t1; name another tier as routing.warmTier, set" in decision.message
    assert settle(WARM_BINDS, 923, 7.67, 6, warmTier="t2").findings == ()
    without = [WARM_BINDS[0], {**WARM_BINDS[1], "replicas": {"min": 0}}, WARM_BINDS[2]]
    assert settle(without, 923, 7.67, 6).findings == ()
