"""Beside neighbours that want more, a model of unknown demand stays as it is, and the rest is planned."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.fairness import Party, Want, divide
from adaptive_operator.observe.observation import ModelMetrics, ModelObservation, PolicyMemory, PoolShare, Unknown
from adaptive_operator.reasons import Reason
from stand_ins.plant import decide_one, demo_spec, metrics, observe_one, tier
from tests.operator.decide.test_contention import plain, pool_of, replicas
from tests.operator.decide.test_fairness import divisions
from tests.operator.decide.test_neighbours import SERVES, decided, some

UNKNOWN: dict[str, ModelMetrics] = {
    "missing": replace(metrics(5.0), arrivals=Unknown("adaptive_router_arrivals_total", "no samples yet")),
    "older than 120 s": metrics(5.0, age=121.0),
    "not a number": replace(metrics(5.0), arrivals=Unknown("adaptive_router_arrivals_total", "NaN was rejected")),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", UNKNOWN)
@pytest.mark.parametrize("shares", [(), (PoolShare("demo", "b", reservation=6),)], ids=["weights", "reservation"])
def test_a_model_that_borrowed_keeps_it_while_its_demand_is_unknown_and_gives_it_back_when_it_is_known(how, shares):
    a, b = plain("a", 50), plain("b", 0.1)
    plant = pool_of(a, b, budget=8, shares=shares)
    plant.run(300)
    assert replicas(plant) == [7, 1]
    a.metrics, b.load = (lambda now: UNKNOWN[how]), (lambda now: 50.0)
    for _ in range(60):
        first, second = plant.step()
        plant.now += plant.period
        assert sum(first.replicas.values()) == 7
        assert first.reason in (Reason.HELD_FOR_MISSING_METRICS, Reason.HELD_FOR_STALE_METRICS)
    assert any(f.reason is Reason.BUDGET_SHARED for f in second.findings)
    a.metrics = lambda now: None
    plant.run(300)
    assert replicas(plant) == ([2, 6] if shares else [4, 4])


def test_the_others_share_what_a_model_of_unknown_demand_leaves():
    a, b, c = plain("a", 50), plain("b", 0.1), plain("c", 0.1)
    plant = pool_of(a, b, c, budget=9)
    plant.run(300)
    a.metrics = lambda now: UNKNOWN["missing"]
    c.load = lambda now: 50.0
    plant.run(100)
    assert replicas(plant) == [7, 1, 1]
    plant.budget = 12
    plant.run(100)
    assert replicas(plant) == [7, 1, 4]


def frozen(mix: dict[str, int], **changes) -> ModelObservation:
    return observe_one(demo_spec(accelerators={}), mix, UNKNOWN["missing"], name="frozen", **changes)


@pytest.mark.parametrize("pool", ["", "gpu"], ids=["no AcceleratorPool", "an AcceleratorPool"])
def test_a_new_model_takes_nothing_from_one_of_unknown_demand(pool):
    new = observe_one(demo_spec(accelerators={}), {}, metrics(1.0), name="new")
    found = decided(3, frozen(SERVES), new, name=pool)
    assert (some(found["frozen"]), some(found["new"])) == (SERVES, {})


@pytest.mark.parametrize("pool", ["", "gpu"], ids=["no AcceleratorPool", "an AcceleratorPool"])
def test_a_budget_that_no_longer_holds_it_ends_what_a_model_of_unknown_demand_keeps(pool):
    other = observe_one(demo_spec(tiers=[tier(2)], accelerators={}), {"int4": 1}, metrics(0.1), name="other")
    kept = decided(4, frozen({"int8": 2, "int4": 1}), other, name=pool)
    shrunk = decided(3, frozen({"int8": 2, "int4": 1}), other, name=pool)
    assert some(kept["frozen"]) == SERVES
    assert sum(shrunk["frozen"].replicas.values()) == 2
    assert some(kept["other"]) == some(shrunk["other"]) == {"int4": 1}


def test_a_lowered_budget_is_not_answered_with_a_demand_of_zero():
    """As much as fits is kept: by a demand of zero, one replica would do."""
    decision = decide_one(frozen({"int8": 3, "int4": 1}), budget=3)
    assert (decision.reason, some(decision)) == (Reason.BUDGET_EXCEEDED, {"int8": 2, "int4": 1})


@pytest.mark.parametrize("how", UNKNOWN)
def test_a_lowered_budget_is_not_answered_with_a_demand_of_long_ago(how):
    """As much as fits is kept: by the little that was asked for last, full 1 · int4 1 would do."""
    memory = PolicyMemory(wanted={"full": 1, "int4": 4}, generation=1, planned_demand_milli=100)
    model = observe_one(demo_spec(accelerators={}), {"full": 1, "int4": 4}, UNKNOWN[how], memory=memory)
    decision = decide_one(model, budget=5)
    assert (decision.reason, some(decision)) == (Reason.BUDGET_EXCEEDED, {"full": 1, "int4": 3})


def test_a_paused_model_has_what_it_holds_and_others_are_planned_with_the_rest():
    paused = replace(frozen(SERVES), spec=demo_spec(accelerators={}, mode="Paused"))
    new = observe_one(demo_spec(accelerators={}), {}, metrics(1.0), name="new")
    assert some(decided(3, paused, new)["new"]) == {}
    assert some(decided(4, paused, new)["new"]) == {"int4": 1}


def test_what_is_kept_comes_before_reservations():
    parties = (Party(("a",)), Party(("b",), reservation=6))
    wants = {"a": Want(8, 1, first=1, kept=5), "b": Want(8, 1, first=1)}
    assert divide(parties, wants, 8) == {"a": 5, "b": 3}


@settings(max_examples=200, deadline=None)
@given(divisions(), st.data())
def test_a_division_keeps_what_is_kept_within_the_budget_and_leaves_nothing_that_is_wanted(division, data):
    parties, wants, budget = division
    left = budget
    for key, want in wants.items():
        kept = data.draw(st.integers(0, min(left, want.demand)))
        wants[key] = replace(want, kept=kept, first=data.draw(st.integers(0, want.minimum)))
        left -= kept
    parts = divide(parties, wants, budget)
    assert all(want.kept <= parts[key] <= want.demand for key, want in wants.items())
    assert sum(parts.values()) == min(budget, sum(want.demand for want in wants.values()))
