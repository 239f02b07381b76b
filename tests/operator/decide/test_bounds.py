"""Bounds of the spec hold whatever the load is: what goes for them, what is added beside them, and what is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.decision import Decision
from adaptive_operator.observe.observation import ModelMetrics, PolicyMemory, SwapRecord
from adaptive_operator.reasons import Reason
from stand_ins.plant import Model, Plant, decide_one, demo_spec, metrics, observe_one, tier
from tests.operator.decide.test_neighbours import some
from tests.operator.decide.test_unknown_demand import UNKNOWN

NOW = 10_000.0
BOTH = {"full": 1, "int4": 1}


def bounded(most: int = 9, **int4: int) -> AdaptiveModelSpec:
    """Full, of two accelerators, and int4 with these bounds."""
    return demo_spec(tiers=[tier(0), tier(2, replicas={"max": most, **int4})], accelerators={})


def decided(
    seen: ModelMetrics,
    budget: int,
    present: Mapping[str, int] = BOTH,
    spec: AdaptiveModelSpec | None = None,
    planned: float = 3.0,
    **changes: Any,
) -> Decision:
    """For a model that has `present`, of which the weights stand on `planned` requests/s; int4 has a minimum of 3."""
    memory = PolicyMemory(wanted=present, generation=1, planned_demand_milli=round(planned * 1000))
    model = observe_one(spec or bounded(min=3), present, seen, NOW, **({"memory": memory} | changes))
    return decide_one(model, NOW, budget)


@pytest.mark.parametrize("how", UNKNOWN)
@pytest.mark.parametrize(("budget", "int4"), [(4, 2), (5, 3), (6, 3), (7, 3)])
def test_while_demand_is_unknown_a_minimum_takes_what_is_free_and_nothing_goes_for_it(how, budget, int4):
    decision = decided(UNKNOWN[how], budget)
    assert (decision.reason, some(decision)) == (Reason.ADDED_REPLICA, {"full": 1, "int4": int4})
    assert decision.message == f"int4 has 1 of its replicas.min 3: go to full 1 · int4 {int4}"


@pytest.mark.parametrize("how", UNKNOWN)
def test_while_demand_is_unknown_a_minimum_waits_where_nothing_is_free(how):
    decision = decided(UNKNOWN[how], 3)
    assert some(decision) == BOTH
    assert decision.reason in (Reason.HELD_FOR_MISSING_METRICS, Reason.HELD_FOR_STALE_METRICS)
    assert any("replicas.min 3 of int4 is not kept" in finding.message for finding in decision.findings)


@pytest.mark.parametrize("budget", [5, 6, 7])
def test_replicas_for_a_minimum_and_for_the_load_beside_it_are_additions_and_all_of_them_are_said(budget):
    decision = decided(metrics(3.0), budget)
    mix = {"full": 1, "int4": budget - 2}
    assert (decision.reason, some(decision)) == (Reason.ADDED_REPLICA, mix)
    assert decision.message == f"int4 has 1 of its replicas.min 3: go to full 1 · int4 {budget - 2}"


def test_what_goes_for_a_minimum_is_said_as_an_exchange():
    decision = decided(metrics(3.0), 4)
    assert (decision.reason, some(decision)) == (Reason.SWAPPED_TO_CHEAPER_TIER, {"int4": 4})
    assert decision.message == "int4 has 1 of its replicas.min 3: go to int4 4"


def test_an_edit_for_which_replicas_have_to_go_chooses_what_carries_the_load_at_once():
    """Another floor has another warm tier, of which no replica fits beside what runs."""
    spec = demo_spec(quality={"floorPermille": 900}, accelerators={})
    decision = decided(metrics(1.9), 4, {"int4": 4}, spec, generation=2)
    assert (decision.reason, some(decision)) == (Reason.SPEC_CHANGED, {"int8": 4})


def test_a_minimum_of_a_better_tier_is_not_said_to_lead_to_a_cheaper_one():
    spec = demo_spec(tiers=[tier(0, replicas={"min": 1}), tier(2)], accelerators={})
    decision = decided(metrics(1.8), 4, {"int4": 4}, spec)
    assert (decision.reason, some(decision)) == (Reason.SPEC_CHANGED, {"full": 1, "int4": 2})


def test_while_demand_is_unknown_a_minimum_waits_for_the_end_of_a_swap_that_waits_for_readings():
    """Its drains would go on, as those for a minimum rest on no reading."""
    present = {"full": 1, "int4": 2}
    swap = SwapRecord("id", "RemovedReplica", present, BOTH, "Starting", NOW, NOW + 900, 1)
    decision = decided(UNKNOWN["missing"], 6, present, swap=swap)
    assert (decision.reason, some(decision)) == (Reason.REMOVED_REPLICA, BOTH)


@pytest.mark.parametrize("how", UNKNOWN)
@pytest.mark.parametrize("budget", [5, 9])
def test_an_edited_minimum_is_followed_while_demand_is_unknown_and_no_further(how, budget):
    decision = decided(UNKNOWN[how], budget, planned=9.0, generation=2)
    assert (decision.reason, some(decision)) == (Reason.SPEC_CHANGED, {"full": 1, "int4": 3})


@pytest.mark.parametrize("how", UNKNOWN)
def test_only_as_much_goes_for_an_edited_minimum_as_it_needs_while_demand_is_unknown(how):
    decision = decided(UNKNOWN[how], 6, {"full": 2, "int4": 1}, planned=0.1, generation=2)
    assert (decision.reason, some(decision)) == (Reason.SPEC_CHANGED, {"full": 1, "int4": 3})


@pytest.mark.parametrize("how", UNKNOWN)
def test_what_a_lowered_maximum_takes_is_replaced_while_demand_is_unknown_and_nothing_that_runs_goes(how):
    """Of the 9/s that the weights stood on, which would ask for nine full, 2.48/s were carried."""
    decision = decided(UNKNOWN[how], 20, {"full": 1, "int4": 3}, bounded(1, min=1), planned=9.0, generation=2)
    assert (decision.reason, some(decision)) == (Reason.SPEC_CHANGED, {"full": 4, "int4": 1})


@pytest.mark.parametrize("minimum", [3, 4])
def test_a_node_that_comes_back_while_demand_is_unknown_brings_back_the_minimum_only(minimum):
    model = Model("a", bounded(20, min=minimum), lambda now: 2.6)
    plant = Plant([model], budget=6)
    plant.run(300)
    model.metrics = lambda now: UNKNOWN["missing"]
    plant.budget = 2
    model.pods = [pod for pod in model.pods if pod.tier == "int4"][:2]  # the others were on the node
    plant.run(200)
    assert model.mix() == {"int4": 2}
    plant.budget = 6
    plant.run(200)
    assert model.mix() == {"int4": minimum}
