"""Nested tiers in decisions: one tier with replicas, whose lower levels are capacity that is there already."""

from __future__ import annotations

from typing import Any

import pytest

from adaptive_operator.decide.decision import Decision
from adaptive_operator.reasons import Reason
from stand_ins.plant import Model, Plant, decide_one, demo_spec, metrics, observe_one, tier

# At int8 0.6/s, at int4 0.9/s: with 0.9 of that planned, one replica carries 0.54/s to 0.81/s.
NESTED: dict[str, Any] = {
    "name": "nested",
    "recipe": {"nested": {"levels": ["int8", "int4"]}},
    "replica": {"accelerators": 1, "cpu": "250m", "memory": "1Gi"},
    "card": {
        "loadSeconds": 20,
        "levels": [
            {"name": "int8", "qualityPermille": 998, "capacityMilliRequestsPerSecond": 600},
            {"name": "int4", "qualityPermille": 780, "capacityMilliRequestsPerSecond": 900},
        ],
    },
}


def decide(rate: float, mix: dict[str, int] | None = None, budget: int = 1, **spec: Any) -> Decision:
    seen = observe_one(demo_spec(**{"tiers": [NESTED], **spec}), mix or {"nested": 1}, metrics(rate))
    return decide_one(seen, budget=budget)


SPLITS = {
    "what the top level carries stays there, but for the trace that keeps the lower one open": (0.5, 0, 0.99),
    "what it does not carry moves to the lower level of the same replica": (0.648, 0, 0.5),
    "all of it moves when the lower level alone carries it": (0.81, 0, 0.01),
    "the floor bounds the mean": (0.81, 889, 0.5),
    "a floor above the lower level leaves it closed": (0.5, 998, 1.0),
}


@pytest.mark.parametrize("name", SPLITS)
def test_a_share_is_divided_among_the_levels_so_that(name: str) -> None:
    rate, floor, top = SPLITS[name]
    decision = decide(rate, quality={"floorPermille": floor})
    assert decision.weights == {"nested": 1.0}
    assert decision.levels["nested"]["int8"] == pytest.approx(top, abs=0.01)
    assert sum(decision.levels["nested"].values()) == pytest.approx(1.0)


def test_load_that_the_lower_level_carries_changes_no_replica_and_the_message_names_the_levels() -> None:
    first = decide(0.3)
    seen = observe_one(demo_spec(tiers=[NESTED]), {"nested": 1}, metrics(0.75), memory=first.memory)
    decision = decide_one(seen, budget=1)
    assert dict(decision.replicas) == {"nested": 1}
    assert decision.reason is Reason.SHED_TO_CHEAPER_TIER
    assert "weights nested/int8 " in decision.message
    assert " · nested/int4 " in decision.message


def test_load_beyond_the_fastest_level_is_beyond_capacity() -> None:
    assert decide(0.8).findings == ()
    decision = decide(1.5)
    assert decision.reason is Reason.CAPACITY_LIMITED
    assert "nested 1 carry 0.81/s" in decision.message


def test_a_floor_that_keeps_the_lower_level_closed_is_what_limits() -> None:
    assert decide(1.2, quality={"floorPermille": 998}).reason is Reason.QUALITY_FLOOR_INFEASIBLE


def test_a_better_tier_is_not_given_up_for_a_cheaper_one_while_its_lower_level_carries_the_load() -> None:
    tiers = [NESTED, tier(2)]
    decision = decide(0.75, tiers=tiers, mix={"nested": 1, "int4": 0})
    assert dict(decision.replicas) == {"nested": 1, "int4": 0}
    with_top_only = {**NESTED, "card": {**NESTED["card"], "levels": NESTED["card"]["levels"][:1]}}
    assert decide(0.75, tiers=[with_top_only, tier(2)], budget=2).replicas != {"nested": 1, "int4": 0}


def test_quality_comes_back_with_another_replica_when_the_budget_allows() -> None:
    levels = [
        {**level, "capacityMilliRequestsPerSecond": 10 * level["capacityMilliRequestsPerSecond"]}
        for level in NESTED["card"]["levels"]
    ]
    fast = {**NESTED, "card": {"loadSeconds": 20, "levels": levels}}
    model = Model("assistant", demo_spec(tiers=[fast]), lambda now: 7.5)
    plant = Plant([model], budget=2)
    plant.run(300)
    assert model.mix() == {"nested": 2}
    assert model.decisions[-1][1].levels["nested"]["int8"] == pytest.approx(0.99)


def test_without_a_card_of_the_lower_level_it_serves_only_who_asks_for_it() -> None:
    own = {"qualityPermille": 998, "capacityMilliRequestsPerSecond": 600}
    decision = decide(1.2, tiers=[{**NESTED, "card": own}])
    assert decision.levels == {"nested": {"int8": 1.0}}
    assert decision.reason is Reason.CAPACITY_LIMITED
