"""The explanation names what binds and the best other mix; both are checked against plans that are enumerated here."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.explanation import Explanation, explain, recall_explanation
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.situation import Situation, as_plan, build_situation, plan_space
from adaptive_operator.decide.spaces import value
from adaptive_operator.decide.wording import mix_text
from adaptive_operator.observe.observation import ModelObservation, PoolObservation, PoolShare, Unknown
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SETTINGS, decide_one, demo_spec, metrics, observe_one, tier

NOW = 10_000.0
FULL, CHEAP = {"full": 1, "int4": 1}, {"int8": 3, "int4": 1}


def situation(mix, rate, **spec) -> Situation:
    model = observe_one(demo_spec(**spec), mix, metrics(rate))
    return build_situation(model, NOW, 0.0, 4, DEMO_SETTINGS)


BINDS = {
    "nothing at low load": ({}, FULL, 0.2, ()),
    "the budget": ({}, CHEAP, 1.8, ("the budget of 4 accelerators", "the warm tier's replica 1 of int4")),
    "a maximum": (
        {"tiers": [tier(0, replicas={"max": 1}), tier(2, replicas={"min": 0})]},
        {"full": 1, "int4": 1},
        0.9,
        ("replicas.max 1 of full",),
    ),
    "the floor": (
        {"quality": {"floorPermille": 990}, "routing": {"warmTier": "int4"}},
        {"full": 1, "int4": 1},
        1.6,
        ("the budget of 4 accelerators", "quality.floorPermille 990"),
    ),
}


@pytest.mark.parametrize("name", BINDS)
def test_it_names_the_constraints_that_bind(name):
    spec, mix, rate, expected = BINDS[name]
    found = explain(situation(mix, rate, **spec), mix, 4).binding
    assert set(expected) <= set(found)
    assert bool(found) is bool(expected)


@pytest.mark.parametrize("rate", [0.1, 0.6, 1.2, 1.8, 3.0])
@pytest.mark.parametrize("mix", [FULL, CHEAP, {"full": 2}])
def test_the_alternative_is_the_best_of_all_other_mixes(mix, rate):
    seen = situation(mix, rate, tiers=[tier(0), tier(1), tier(2)])
    space = plan_space(seen, 4)
    chosen, demand = as_plan(space, mix), rate * DEMO_SETTINGS.shrink_headroom
    plans = itertools.product(*(range(t.low, 5) for t in space.tiers))
    others = [p for p in plans if any(p) and p != chosen and space.cost(p) <= 4]
    best = min(others, key=lambda plan: value(space, plan, demand))
    told = explain(seen, mix, 4).alternative
    quality = space.fill(best, demand).quality_permille
    assert f"{quality:.0f}" in told.split(" permille")[0]
    assert f"{space.cost(best)} " in told.split("permille")[1]


def test_without_demand_or_cards_nothing_is_claimed():
    bare = observe_one(demo_spec(tiers=[tier(0, card=None)], quality={}), {"full": 1}, metrics(1.0))
    assert explain(build_situation(bare, NOW, 0.0, 4, DEMO_SETTINGS), {"full": 1}, 4) == Explanation()


def test_what_other_models_hold_is_said_as_such():
    assert "other models hold the rest of the budget" in explain(situation(FULL, 1.8), FULL, 3).binding


TOLD = {"binding": ["as written"], "alternative": "int4 4: as written", "demandMilli": 345, "limit": 4}


def written(
    reason: str, to: str, budget: int | None = 4, shares: str | None = None, **others: Any
) -> AdaptiveModelStatus:
    told = {**TOLD, "budget": budget, "shares": shares, **others}
    last = {"time": "2026-01-01T00:00:00Z", "reason": reason, "message": "", "from": "", "to": to, "inputs": "", **told}
    return AdaptiveModelStatus.model_validate({"conditions": [], "tiers": [], "history": [], "lastDecision": last})


def test_a_decision_that_the_status_tells_already_keeps_the_explanation_there():
    model = observe_one(demo_spec(), FULL, metrics(0.3))
    first = decide_one(model)
    again = decide_one(replace(model, status=written(first.reason.value, "full 1 · int4 1")))
    assert (again.reason, again.replicas) == (first.reason, first.replicas)
    assert (again.binding, again.alternative) == (("as written",), "int4 4: as written")


@pytest.mark.parametrize(
    ("reason", "to", "generation"),
    [("SwappedBack", "full 1 · int4 1", 1), ("Steady", "int8 3", 1), ("Steady", "full 1 · int4 1", 2)],
    ids=["another reason", "other replicas", "an earlier spec"],
)
def test_what_the_status_tells_of_another_decision_explains_nothing(reason: str, to: str, generation: int):
    model = observe_one(demo_spec(), FULL, metrics(0.3))
    model = replace(model, memory=replace(model.memory, generation=1))
    first = decide_one(model)
    assert first.reason.value == "Steady"
    assert first.alternative
    again = decide_one(replace(model, generation=generation, status=written(reason, to)))
    assert again.alternative
    assert "as written" not in (*again.binding, again.alternative)


@pytest.mark.parametrize("before", [2, 8, None], ids=["a smaller budget", "a larger budget", "nobody knows which"])
def test_what_the_status_tells_of_another_budget_explains_nothing(before: int | None):
    """A node came or went: mix and reason stay, but what binds, and what would be possible instead, is another."""
    model = observe_one(demo_spec(), FULL, metrics(0.3))
    first = decide_one(model)
    again = decide_one(replace(model, status=written(first.reason.value, "full 1 · int4 1", before)))
    assert (again.reason, again.replicas, again.budget) == (first.reason, first.replicas, 4)
    assert (again.binding, again.alternative) == (first.binding, first.alternative)


HEAVY, LIGHT = PoolShare("demo", "assistant", weight=3), PoolShare("demo", "assistant")
OTHERS = PoolShare("demo", "", reservation=1)
SHARES = {
    # shares of before, of now -> explained anew
    "another weight": ((LIGHT, OTHERS), (HEAVY, OTHERS), True),
    "another reservation of others": ((HEAVY, OTHERS), (HEAVY, replace(OTHERS, reservation=2)), True),
    "no share before": ((), (HEAVY,), True),
    "no share any more": ((HEAVY,), (), True),
    "the same ones in another order": ((HEAVY, OTHERS), (OTHERS, HEAVY), False),
    "none, before and now": ((), (), False),
}


@pytest.mark.parametrize("name", SHARES)
def test_what_the_status_tells_of_other_shares_of_the_pool_explains_nothing(name: str):
    """Mix and reason stay, but others may have what was free for this model, or this model what others had."""
    before, now, anew = SHARES[name]
    model = observe_one(demo_spec(), FULL, metrics(0.3), pool="gpu")

    def decide(shares: tuple[PoolShare, ...], status: AdaptiveModelStatus | None = None) -> Decision:
        seen = PoolObservation(NOW, "nvidia.com/gpu", 4, 1, 0.0, (replace(model, status=status),), "gpu", 0, shares)
        return decide_pool(seen, DEMO_SETTINGS).decisions[0]

    earlier, fresh = decide(before), decide(now)
    again = decide(now, written(earlier.reason.value, "full 1 · int4 1", shares=earlier.shares or None))
    assert (again.reason, again.replicas, again.shares) == (fresh.reason, fresh.replicas, fresh.shares)
    told = (fresh.binding, fresh.alternative) if anew else (("as written",), "int4 4: as written")
    assert (again.binding, again.alternative) == told


def explained(model: ModelObservation, mix: dict[str, int], limit: int, /, **told: Any) -> Explanation | None:
    """What is recalled of a model that may have `limit` of its 4 accelerators, if its status tells this."""
    status = written("Steady", "full 1 · int4 1", **told)
    seen = build_situation(replace(model, status=status), NOW, 0.0, 4, DEMO_SETTINGS)
    return recall_explanation(seen, Reason.STEADY, mix, limit)


OTHERS_HOLD, OWN = ["other models hold the rest of the budget"], ["the budget of 4 accelerators"]
PARTS: dict[str, tuple[float, dict[str, Any], int, bool]] = {
    # demand, what was told, what the model may have now -> told anew
    "others gave back what bound": (1.8, {"binding": OTHERS_HOLD, "limit": 3}, 4, True),
    "others took what bound": (1.8, {"binding": OWN}, 3, True),
    "others took what binds now": (1.8, {"binding": []}, 3, True),
    "others gave back, others still hold a part": (1.8, {"binding": OTHERS_HOLD, "limit": 3}, 2, False),
    "others gave back what was not wanted": (0.3, {"binding": [], "limit": 3}, 4, False),
    "others took what is not wanted": (0.3, {"binding": []}, 3, False),
}


@pytest.mark.parametrize("name", PARTS)
def test_what_others_hold_is_told_anew_where_it_binds_and_nowhere_else(name: str) -> None:
    rate, told, limit, anew = PARTS[name]
    model = observe_one(demo_spec(), FULL, metrics(rate))
    found = explained(model, FULL, limit, demandMilli=round(rate * 1150), **told)
    assert (found is None) is anew


@pytest.mark.parametrize(
    ("rate", "anew"),
    [(0.3, False), (0.285, False), (0.315, False), (0.4, True), (0.2, True), (1.8, True)],
    ids=["the same", "5 % less", "5 % more", "a third more", "a third less", "another hour"],
)
def test_the_load_of_another_hour_explains_nothing_but_a_steady_one_leaves_it_alone(rate: float, anew: bool) -> None:
    assert (explained(observe_one(demo_spec(), FULL, metrics(rate)), FULL, 4) is None) is anew


def test_a_load_that_is_unknown_now_changes_no_explanation_and_one_of_no_known_load_is_told_anew() -> None:
    unknown = metrics(Unknown("arrivals", "no samples yet"))
    assert explained(observe_one(demo_spec(), FULL, unknown), FULL, 4) is not None
    assert explained(observe_one(demo_spec(), FULL, metrics(0.3)), FULL, 4, demandMilli=None) is None


def test_a_trickle_is_no_other_load() -> None:
    """One request more or less in the window: far less than what runs could serve."""
    model = observe_one(demo_spec(), FULL, metrics(0.02))
    assert explained(model, FULL, 4, demandMilli=0) is not None


def test_what_is_told_anew_stays_for_the_passes_after_it() -> None:
    model = observe_one(demo_spec(), FULL, metrics(1.8))
    first = explain(situation(FULL, 1.8), FULL, 3)
    told = {"binding": list(first.binding), "alternative": first.alternative, "limit": first.limit}
    assert explained(model, FULL, 3, demandMilli=first.demand_milli, **told) == first


def test_a_calm_pool_tells_nothing_new_when_a_neighbour_gives_back_a_replica_and_loads_move_a_little() -> None:
    """All but one hold 3 of their own 4 accelerators and the pool is full; then one accelerator is free for each."""

    def decide(statuses: dict[str, AdaptiveModelStatus], last: dict[str, int], rate: float) -> dict[str, Decision]:
        models = [
            replace(observe_one(demo_spec(), mix, metrics(rate), name=name), status=statuses.get(name))
            for name, mix in [*((f"m{i}", FULL) for i in range(30)), ("z", last)]
        ]
        seen = PoolObservation(NOW, "nvidia.com/gpu", 93, 1, 0.0, tuple(models))
        return {d.key.removeprefix("demo/"): d for d in decide_pool(seen, DEMO_SETTINGS).decisions}

    first = decide({}, FULL, 0.3)
    statuses = {name: written_as(decision) for name, decision in first.items()}
    assert (first["m0"].limit, decide({}, {"full": 1}, 0.3)["m0"].limit) == (3, 4)
    for turn, rate in enumerate((0.3, 0.315, 0.285, 0.315)):
        again = decide(statuses, FULL if turn % 2 else {"full": 1}, rate)
        told = [(d.binding, d.alternative, d.demand_milli, d.limit) for name, d in again.items() if name != "z"]
        assert told == [(d.binding, d.alternative, d.demand_milli, d.limit) for n, d in first.items() if n != "z"]


def written_as(decision: Decision) -> AdaptiveModelStatus:
    told = {"binding": list(decision.binding), "alternative": decision.alternative}
    explained_for = {"demandMilli": decision.demand_milli, "limit": decision.limit}
    mix = mix_text(decision.replicas)
    return written(decision.reason.value, mix, decision.budget, decision.shares or None, **told, **explained_for)
