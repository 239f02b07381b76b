"""What models that share accelerators may take from one another: a first replica, and nothing for a larger minimum."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.budget import Claim, shares
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.fairness import Party, Want, divide
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.observe.observation import ModelObservation, PoolObservation
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SETTINGS, Model, Plant, demo_spec, metrics, observe_one, tier

NOW = 10_000.0
SERVES = {"int8": 2, "int4": 1}


def asks(minimum: int, name: str, mix: dict[str, int], **changes) -> ModelObservation:
    """A model of one tier whose minimum was just edited, or that is new."""
    spec = demo_spec(tiers=[tier(2, replicas={"min": minimum})], accelerators={})
    return replace(observe_one(spec, mix, metrics(0.1), name=name, **changes), generation=2)


def serves(name: str, rate: float = 1.5) -> ModelObservation:
    return observe_one(demo_spec(accelerators={}), SERVES, metrics(rate), name=name)


def decided(budget: int, *models: ModelObservation, **changes) -> dict[str, Decision]:
    pool = replace(PoolObservation(NOW, "nvidia.com/gpu", budget, 1, 0.0, models), **changes)
    return {decision.key.removeprefix("demo/"): decision for decision in decide_pool(pool, DEMO_SETTINGS).decisions}


def some(decision: Decision) -> dict[str, int]:
    return {name: n for name, n in decision.replicas.items() if n}


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")], ids=["first by name", "last by name"])
def test_a_minimum_that_does_not_fit_takes_nothing_from_a_neighbour_that_serves(names):
    edited, neighbour = names
    found = decided(4, asks(9, edited, {"int4": 1}), serves(neighbour))
    assert (some(found[edited]), some(found[neighbour])) == ({"int4": 1}, SERVES)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")], ids=["first by name", "last by name"])
def test_a_new_models_minimum_takes_what_is_free_and_no_more(names):
    new, neighbour = names
    found = decided(5, asks(4, new, {}), serves(neighbour))
    assert (some(found[new]), some(found[neighbour])) == ({"int4": 2}, SERVES)


def test_a_new_model_is_given_its_first_replica_and_waits_for_the_rest_of_its_minimum():
    found = decided(3, asks(4, "new", {}), serves("old"))
    assert (some(found["new"]), sum(found["old"].replicas.values())) == ({"int4": 1}, 2)


def test_a_minimum_that_waits_gets_what_neighbours_give_back_before_anybody_grows():
    plain = demo_spec(tiers=[tier(1)], accelerators={})
    one = Model("one", demo_spec(tiers=[tier(1, replicas={"min": 3})], accelerators={}), lambda now: 0.1)
    two = Model("two", plain, lambda now: 1.5 if now < NOW + 100 else 0.3)
    plant = Plant([two], budget=4, now=NOW)
    plant.run(60)
    plant.models.append(one)
    plant.run(30)
    assert (one.mix(), two.mix()) == ({"int8": 1}, {"int8": 3})
    plant.run(300)
    assert (one.mix(), two.mix()) == ({"int8": 3}, {"int8": 1})


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")], ids=["first by name", "last by name"])
def test_in_an_acceleratorpool_a_minimum_cuts_borrowers_but_nobody_below_its_warm_replica(names):
    edited, neighbour = names
    found = decided(4, asks(9, edited, {"int4": 1}), serves(neighbour), name="gpu")
    assert (some(found[edited]), sum(found[neighbour].replicas.values())) == ({"int4": 3}, 1)


def test_minimums_of_a_pool_that_do_not_fit_are_served_in_rounds():
    parties = tuple(Party((key,)) for key in "abc")
    wants = {"a": Want(9, 9, first=1), "b": Want(9, 1, first=1), "c": Want(2, 2, holds=False, first=2)}
    assert divide(parties, wants, 4) == {"a": 1, "b": 1, "c": 2}
    assert divide(parties, wants, 6) == {"a": 3, "b": 1, "c": 2}


@st.composite
def claims(draw: st.DrawFn) -> list[Claim]:
    found = []
    for i in range(draw(st.integers(1, 5))):
        wanted, minimum = draw(st.integers(0, 9)), draw(st.integers(0, 9))
        held = wanted + draw(st.integers(0, 3))
        found.append(Claim(f"m{i}", held, wanted, minimum, 20, first=min(minimum, draw(st.integers(0, 2)))))
    return found


@settings(max_examples=300, deadline=None)
@given(claims(), st.integers(0, 40))
def test_what_is_owed_never_passes_the_budget(found, budget):
    own = shares(found, budget)
    taken = sum(max(own[claim.key].own, claim.held) for claim in found)
    assert taken <= max(budget, sum(claim.held for claim in found) + sum(claim.first for claim in found))
    assert all(0 <= share.own <= budget and share.own <= share.limit for share in own.values())


@settings(max_examples=300, deadline=None)
@given(claims(), st.integers(0, 40))
def test_nobody_is_cut_but_for_first_replicas_and_a_lowered_budget(found, budget):
    if sum(max(claim.wanted, claim.first) for claim in found) <= budget:
        own = shares(found, budget)
        assert all(own[claim.key].own >= max(claim.wanted, claim.first) for claim in found)


@settings(max_examples=300, deadline=None)
@given(claims(), st.integers(0, 40), st.integers(0, 4), st.integers(1, 9))
def test_nobodys_first_replica_depends_on_another_models_larger_minimum(found, budget, which, more):
    asking = found[which % len(found)]
    larger = [replace(claim, minimum=claim.minimum + more) if claim is asking else claim for claim in found]
    before, after = shares(found, budget), shares(larger, budget)
    for claim in found:
        if claim is not asking:
            assert after[claim.key].own >= min(before[claim.key].own, claim.first)
    assert after[asking.key].own >= before[asking.key].own


def told(decision: Decision, reason: Reason) -> str:
    return next(f.message for f in decision.findings if f.reason is reason)


def test_a_minimum_that_the_budget_does_not_hold_is_told_with_how_much_fits_and_the_remedy():
    decision = decided(4, asks(9, "a", {"int4": 4}))["a"]
    assert told(decision, Reason.CAPACITY_LIMITED) == (
        "replicas.min 9 of int4 is not kept: 4 fit in 4 accelerators; lower it or raise the budget of nvidia.com/gpu to"
        " 9"
    )


def test_a_minimum_that_others_hold_the_accelerators_of_is_told():
    decision = decided(4, asks(3, "a", {"int4": 1}), serves("b"))["a"]
    assert told(decision, Reason.BUDGET_SHARED).startswith(
        "replicas.min 3 of int4 is not kept: 1 fits with what other models have, and it takes no more than what is"
        " free; lower it or raise the budget of nvidia.com/gpu"
    )


def test_a_written_minimum_that_gives_way_to_the_warm_tiers_replica_is_told():
    """Two accelerators: the warm tier's replica comes first, and full, of two, has no room beside it."""
    spec = demo_spec(tiers=[tier(0, replicas={"min": 1}), tier(2)], accelerators={"budget": 2})
    decision = decided(8, observe_one(spec, {"int4": 1}, metrics(0.1), name="a"))["a"]
    assert told(decision, Reason.CAPACITY_LIMITED) == (
        "replicas.min 1 of full is not kept: 0 fit in 2 accelerators beside int4 1; lower it or raise"
        " accelerators.budget to 3"
    )


def test_a_minimum_that_is_kept_and_one_of_a_model_that_has_nothing_at_all_are_not_told():
    assert decided(4, asks(3, "a", {"int4": 3}))["a"].findings == ()
    nothing = decided(0, asks(3, "a", {}))["a"]
    assert "replicas.min" not in " ".join(f.message for f in nothing.findings)


def test_growth_for_a_minimum_is_not_told_as_the_warm_tiers_replica():
    model = replace(asks(4, "a", {"int4": 1}), generation=1)  # the edit was seen, and had no room then
    decision = decided(4, model)["a"]
    assert (decision.reason, decision.message) == (
        Reason.ADDED_REPLICA,
        "int4 has 1 of its replicas.min 4: go to int4 4",
    )


def test_what_keeps_a_minimum_and_what_the_load_passes_are_told_together():
    spec = demo_spec(tiers=[tier(2, replicas={"min": 9})], accelerators={})
    decision = decided(2, observe_one(spec, {"int4": 2}, metrics(9.0), name="a"))["a"]
    words = told(decision, Reason.CAPACITY_LIMITED)
    assert words.startswith("demand passes capacity")
    assert "replicas.min 9 of int4 is not kept" in words


def test_a_minimum_that_waits_does_not_keep_others_from_giving_to_one_another():
    """Told of all of it, the plan would give that model everything, and then be worth nothing to the others."""
    quality = {"accelerators": {}, "quality": {"floorPermille": 900}, "routing": {"warmTier": "int4"}}
    calm = observe_one(demo_spec(**quality), {"full": 1, "int4": 1}, metrics(0.35), name="calm")
    busy = observe_one(demo_spec(**quality), {"int8": 1, "int4": 1}, metrics(1.6), name="busy")
    waits = replace(asks(9, "waits", {"int4": 1}), generation=1)
    found = decided(6, busy, calm, waits)
    assert found["calm"].message.startswith("others refuse requests for want of what int8 1 · int4 1 would leave them")
