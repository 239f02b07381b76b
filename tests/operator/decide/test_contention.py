"""An AcceleratorPool in time: reservations, weights and surge, with the budget kept at every event."""

from __future__ import annotations

import random as dice
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import PolicyMemory, PoolObservation, PoolShare
from adaptive_operator.reasons import Reason, ShareReason
from stand_ins.plant import DEMO_SETTINGS, Model, Plant, demo_spec, tier
from tests.operator.decide.test_properties import NOW, cost, models

ONE_TIER = [tier(1, card={"qualityPermille": 998, "capacityMilliRequestsPerSecond": 1000, "loadSeconds": 20})]


def plain(name: str, load: float, **accelerators: int) -> Model:
    """A model whose replicas cost one accelerator and carry 0.9 requests/s."""
    return Model(name, demo_spec(tiers=ONE_TIER, accelerators=accelerators), lambda now: load)


def pool_of(*found: Model, budget: int, shares: tuple[PoolShare, ...] = (), surge: int = 0) -> Plant:
    return Plant(list(found), budget=budget, pool="gpu", surge=surge, shares=shares)


def replicas(plant: Plant) -> list[int]:
    return [sum(model.mix().values()) for model in plant.models]


def test_models_that_want_everything_get_it_by_weight():
    plant = pool_of(plain("a", 50), plain("b", 50), budget=8, shares=(PoolShare("demo", "a", weight=3),))
    plant.run(300)
    assert replicas(plant) == [6, 2]


def test_a_model_that_grew_while_others_were_idle_gives_back_what_they_are_owed():
    a, b = plain("a", 50), plain("b", 0.1)
    plant = pool_of(a, b, budget=8)
    plant.run(300)
    assert replicas(plant) == [7, 1]
    b.load = lambda now: 50.0
    plant.run(300)
    assert replicas(plant) == [4, 4]
    shrunk = next(d for _, d in a.decisions if d.reason is Reason.BUDGET_SHARED and sum(d.replicas.values()) == 4)
    assert "others are owed their share of the pool" in shrunk.message


def test_a_reservation_is_lent_while_it_is_not_wanted_and_given_when_it_is():
    a, b = plain("a", 50), plain("b", 0.1)
    plant = pool_of(a, b, budget=8, shares=(PoolShare("demo", "b", reservation=6),))
    plant.run(300)
    assert replicas(plant) == [7, 1]
    b.load = lambda now: 50.0
    plant.run(300)
    assert replicas(plant) == [2, 6]


def test_models_of_a_namespace_share_its_weight():
    one, two, other = plain("a", 50), plain("b", 50), plain("c", 50)
    other.namespace = "other"
    plant = pool_of(one, two, other, budget=8, shares=(PoolShare("demo", ""),))
    plant.run(300)
    assert replicas(plant) == [2, 2, 4]


def test_the_decision_says_who_got_what_and_why():
    a, b, c = plain("a", 50), plain("b", 50), plain("c", 0.1)
    shares = (PoolShare("demo", "a", weight=3), PoolShare("demo", "b", reservation=2))
    plant = pool_of(a, b, c, budget=8, shares=shares)
    plant.run(300)
    last = [decision for decision in plant.step() if decision.part is not None]
    assert [(d.part.granted, d.part.reservation, d.part.weight, d.part.reason) for d in last if d.part] == [
        (5, 0, 3, ShareReason.WEIGHTED),
        (2, 2, 1, ShareReason.RESERVED),
        (1, 0, 1, ShareReason.SATISFIED),
    ]
    told = next(f.message for f in last[0].findings if f.reason is Reason.BUDGET_SHARED)
    assert "demo/a 5 (weight 3), demo/b 2 (reserved 2), demo/c 1 of 8 nvidia.com/gpu in pool gpu" in told


def test_a_model_that_uses_what_others_do_not_want_is_said_to_borrow_it():
    plant = pool_of(plain("a", 4.5), plain("b", 0.1), budget=8)
    plant.run(300)
    assert [d.part.reason for d in plant.step() if d.part] == [ShareReason.BORROWING, ShareReason.SATISFIED]


def test_a_paused_model_keeps_what_it_has_and_the_others_share_the_rest():
    a, b = plain("a", 50), plain("b", 0.1)
    plant = pool_of(a, b, budget=8)
    plant.run(300)
    a.spec = a.spec.model_copy(update={"mode": "Paused"})
    b.load = lambda now: 50.0
    plant.run(100)
    assert replicas(plant) == [7, 1]
    decisions = plant.step()
    assert [d.part.reason for d in decisions if d.part] == [ShareReason.UNMANAGED, ShareReason.MINIMUM]


def test_models_that_improve_at_the_same_time_do_not_make_each_other_wait_for_ever():
    """Both may use the one idle accelerator, only one can: the other's agreement must not begin anew each time."""
    spec = demo_spec(tiers=[tier(0), tier(1, replicas={"min": 0})], accelerators={})
    plant = pool_of(*(Model(name, spec, lambda now: 0.2) for name in "ab"), budget=3)
    plant.run(600)
    assert sorted(sum(t.replica.accelerators * m.mix().get(t.name, 0) for t in spec.tiers) for m in plant.models) in (
        [1, 2],
        [1, 1],
    )
    before = [model.mix() for model in plant.models]
    plant.run(300)
    assert [model.mix() for model in plant.models] == before


@pytest.mark.parametrize(("surge", "mix"), [(0, {"int8": 2}), (2, {"full": 1})], ids=["without", "with"])
def test_surge_lets_a_full_pool_swap_without_a_dip(surge, mix):
    """Two int8 use budget 2 up, and full needs both: without surge nothing would serve while it loads, so they stay."""
    spec = demo_spec(tiers=[tier(0), tier(1, replicas={"min": 0})], accelerators={}, routing={"warmTier": "int8"})
    model = Model("a", spec, lambda now: 1.0 if now < 10_100 else 0.1)
    plant = pool_of(model, budget=2, surge=surge)
    plant.terminate_seconds = 12.0
    plant.run(100)
    assert model.mix() == {"int8": 2}
    for _ in range(60):
        plant.run(plant.period)
        assert any(plant._phase(pod) == "Ready" for pod in model.pods)
    assert model.mix() == mix
    assert plant.held() == 2
    assert ("HeldBySurvivorCheck" in model.reasons()) is (surge == 0)
    findings = {finding.reason for _, decision in model.decisions for finding in decision.findings}
    assert Reason.BUDGET_EXCEEDED not in findings, "a surge in use is no budget exceeded"


def test_surge_is_for_swaps_and_never_for_growth():
    plant = pool_of(plain("a", 50), plain("b", 50), budget=4, surge=3)
    for _ in range(60):
        plant.run(plant.period)
        assert plant.held() <= 4


def test_a_models_own_budget_has_no_surge():
    spec = demo_spec(tiers=[tier(0), tier(1)], accelerators={"budget": 2})
    model = Model("a", spec, lambda now: 1.0 if now < 10_100 else 0.1)
    plant = pool_of(model, budget=4, surge=2)
    for _ in range(80):
        plant.run(plant.period)
        assert plant.held() <= 2


EITHER = st.sampled_from(PoolDivision)


@st.composite
def shared_pools(draw: st.DrawFn, divisions: st.SearchStrategy[PoolDivision] = EITHER) -> PoolObservation:
    """One to four models in any state, with any shares."""
    found = [draw(models(f"m{i}")) for i in range(draw(st.integers(1, 4)))]
    for model in found:
        model.namespace = draw(st.sampled_from(["n0", "n1"]))
        if draw(st.integers(0, 5)) == 0:
            model.spec = model.spec.model_copy(update={"mode": draw(st.sampled_from(["Paused", "DryRun"]))})
    names = st.sampled_from(["", "m0", "m1", "m2"])
    keys = draw(st.lists(st.tuples(st.sampled_from(["n0", "n1"]), names), unique=True, max_size=4))
    shares = tuple(PoolShare(*key, draw(st.integers(0, 6)), draw(st.integers(1, 9))) for key in keys)
    surge = draw(st.integers(0, 4))
    plant = Plant(found, budget=draw(st.integers(0, 24)), now=NOW, pool="gpu", surge=surge, shares=shares)
    plant.division = draw(divisions)
    return plant.observe()


@settings(max_examples=80, deadline=None)
@given(shared_pools())
def test_grants_never_pass_budget_and_surge_and_targets_never_pass_the_budget(pool):
    decisions = decide_pool(pool, DEMO_SETTINGS).decisions
    assert sum(d.accelerators_granted for d in decisions) <= pool.budget + pool.surge
    acting = [(m, d) for m, d in zip(pool.models, decisions, strict=True) if m.spec.mode == "Active"]
    kept = sum(held_accelerators(m) for m in pool.models if m.spec.mode != "Active")
    assert sum(cost(m, dict(d.replicas)) for m, d in acting) <= max(0, pool.budget - kept)


@settings(max_examples=80, deadline=None)
@given(shared_pools())
def test_what_is_granted_beyond_the_budget_is_held_already_or_for_a_swap(pool):
    decisions = decide_pool(pool, DEMO_SETTINGS).decisions
    held = sum(held_accelerators(model) for model in pool.models)
    new = sum(
        max(0, d.accelerators_granted - held_accelerators(m)) for m, d in zip(pool.models, decisions, strict=True)
    )
    if not any(d.swap is not None for d in decisions):
        assert held + new <= max(pool.budget, held)


@settings(max_examples=30, deadline=None)
@given(shared_pools(st.just(PoolDivision.WEIGHTED)), st.integers(0, 10_000))
def test_the_order_of_the_models_changes_no_decision(pool, seed):
    shuffled = list(pool.models)
    dice.Random(seed).shuffle(shuffled)
    again = {d.key: d for d in decide_pool(replace(pool, models=tuple(shuffled)), DEMO_SETTINGS).decisions}
    assert {d.key: d for d in decide_pool(pool, DEMO_SETTINGS).decisions} == again


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=2, max_size=4),
    st.integers(0, 12),
)
def test_in_time_reservations_are_kept_and_the_rest_is_by_weight_within_one_replica(rows, more):
    """All want more than there is; reservations and the warm tier's minimum come off first."""
    budget = sum(max(1, reservation) for reservation, _ in rows) + more
    shares = tuple(PoolShare("demo", f"m{i}", *row) for i, row in enumerate(rows))
    plant = pool_of(*(plain(f"m{i}", 50) for i in range(len(rows))), budget=budget, shares=shares)
    plant.run(400)
    got = replicas(plant)
    assert sum(got) == budget
    for i, (reservation, weight) in enumerate(rows):
        assert got[i] >= max(1, reservation)
        for j, (other, heavier) in enumerate(rows):
            if got[j] > max(1, other):
                assert (got[i] + 1) / weight > (got[j] - 1) / heavier, (got, rows, i, j)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.lists(models(), min_size=1, max_size=3), st.integers(2, 12), st.integers(0, 3), EITHER)
def test_a_plant_that_follows_the_grants_never_passes_the_budget_and_comes_to_rest(found, budget, surge, division):
    for i, model in enumerate(found):
        model.name, model.pods, model.memory = f"m{i}", [], PolicyMemory()
    shares = (PoolShare("demo", "m0", 1, 3), PoolShare("demo", "", 0, 2))
    plant = Plant(found, budget=budget, now=NOW, pool="gpu", surge=surge, shares=shares, division=division)
    plant.run(400)
    before = [d.replicas for d in plant.step()]
    plant.run(200)
    assert [d.replicas for d in plant.step()] == before
    assert all(model.swap is None for model in found)


def test_without_a_pool_there_is_no_part():
    plant = Plant([plain("a", 1.0)], budget=4)
    assert [d.part for d in plant.step()] == [None]


@pytest.mark.timeout(60)
def test_a_pool_of_hundreds_of_models_is_divided_in_bounded_time():
    found = [plain(f"m{i}", 50) for i in range(300)]
    shares = tuple(PoolShare("demo", f"m{i}", i % 3, 1 + i % 7) for i in range(100))
    plant = pool_of(*found, budget=1000, shares=shares)
    assert len(plant.step()) == 300
