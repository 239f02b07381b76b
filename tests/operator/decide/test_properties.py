"""What holds for every observation: budget, weights, floor, determinism, and that unknown never moves a replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.levels import levels_of
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import ModelObservation, PolicyMemory, PoolObservation, Unknown
from stand_ins.plant import DEMO_SCALING, DEMO_SETTINGS, Model, Plant, Pod, metrics

NOW = 10_000.0
RATES = st.one_of(st.just(0.0), st.floats(0.01, 20.0))
MISSING = Unknown("adaptive_router_arrivals_total", "no samples yet")


@st.composite
def tiers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """One to four tiers, with or without card and bounds."""
    found = []
    for i in range(draw(st.integers(1, 4))):
        tier: dict[str, Any] = {
            "name": f"t{i}",
            "recipe": {"precision": "fp32"},
            "replica": {"accelerators": draw(st.integers(1, 4)), "cpu": "1", "memory": "1Gi"},
        }
        if draw(st.integers(0, 4)) > 0:
            tier["card"] = {
                "qualityPermille": draw(st.integers(0, 1000)),
                "capacityMilliRequestsPerSecond": draw(st.integers(50, 5000)),
            }
        if draw(st.booleans()):
            tier["recipe"] = {"nested": {"levels": ["int8", "int4"]}}
            if "card" in tier and draw(st.booleans()):
                tier["card"]["levels"] = [
                    {
                        "name": "int4",
                        "qualityPermille": draw(st.integers(0, 1000)),
                        "capacityMilliRequestsPerSecond": draw(st.integers(50, 5000)),
                    }
                ]
        if draw(st.booleans()):
            low = draw(st.integers(0, 2))
            tier["replicas"] = {"min": low, "max": draw(st.integers(low, 5))}
        found.append(tier)
    return found


@st.composite
def models(draw: st.DrawFn, name: str = "m0") -> Model:
    """A model with any replicas running, in any phase the plant knows."""
    spec: dict[str, Any] = {
        "model": {"source": "file:///model"},
        "quality": {"floorPermille": draw(st.integers(0, 1000))},
        "tiers": draw(tiers()),
        "scaling": DEMO_SCALING,
    }
    if draw(st.booleans()):
        spec["accelerators"] = {"budget": draw(st.integers(4, 10))}
    model = Model(name, AdaptiveModelSpec.model_validate(spec), lambda now: 0.0)
    for tier in spec["tiers"]:
        for ordinal in range(draw(st.integers(0, 3))):
            gone = draw(st.sampled_from([None, None, None, NOW + 5]))
            model.pods.append(Pod(tier["name"], ordinal, NOW - draw(st.sampled_from([5.0, 500.0])), gone))
    seen = metrics(draw(RATES), peak=draw(RATES), queue=draw(st.floats(0, 50)), recent=draw(RATES))
    if draw(st.integers(0, 5)) == 0:
        seen = replace(seen, arrivals=MISSING)
    model.metrics = lambda now: seen
    if draw(st.booleans()):
        model.memory = PolicyMemory(
            wanted={name: n for name, n in model.mix().items() if n},
            generation=draw(st.sampled_from([1, 0])),
            planned_demand_milli=draw(st.one_of(st.none(), st.integers(0, 20_000))),
            last_change_at=draw(st.one_of(st.none(), st.just(NOW - 500))),
        )
    return model


@st.composite
def pools(draw: st.DrawFn) -> PoolObservation:
    found = [draw(models(f"m{i}")) for i in range(draw(st.integers(1, 4)))]
    return Plant(found, budget=draw(st.integers(1, 24)), now=NOW).observe()


def cost(model: ModelObservation, replicas: dict[str, int]) -> int:
    return sum(t.replica.accelerators * replicas.get(t.name, 0) for t in model.spec.tiers)


@settings(max_examples=60, deadline=None)
@given(pools())
def test_grants_never_sum_to_more_than_the_budget(pool):
    decisions = decide_pool(pool, DEMO_SETTINGS).decisions
    assert sum(d.accelerators_granted for d in decisions) <= pool.budget
    assert all(d.accelerators_granted >= 0 for d in decisions)


@settings(max_examples=60, deadline=None)
@given(pools())
def test_wanted_replicas_never_cost_more_than_the_budget(pool):
    decisions = decide_pool(pool, DEMO_SETTINGS).decisions
    for model, decision in zip(pool.models, decisions, strict=True):
        own = model.spec.accelerators.budget or pool.budget
        assert cost(model, dict(decision.replicas)) <= min(own, pool.budget)
    costs = [(d.reason.value, cost(m, dict(d.replicas))) for m, d in zip(pool.models, decisions, strict=True)]
    assert sum(count for _, count in costs) <= pool.budget, costs


@settings(max_examples=150, deadline=None)
@given(pools())
def test_what_is_held_and_newly_wanted_fits_unless_more_is_held_already(pool):
    """Growth of one model never counts on accelerators that another one still holds; only minimums are owed."""
    decisions = decide_pool(pool, DEMO_SETTINGS).decisions
    pairs = list(zip(pool.models, decisions, strict=True))
    held = sum(held_accelerators(model) for model, _ in pairs)
    reachable = sum(max(held_accelerators(m), cost(m, dict(d.replicas))) for m, d in pairs)
    owed = {"StartingUp", "BudgetShared", "BudgetExceeded", "SpecChanged"}
    detail = [(d.reason.value, held_accelerators(m), cost(m, dict(d.replicas)), d.message) for m, d in pairs]
    assert reachable <= max(pool.budget, held) or any(d.reason in owed for _, d in pairs), (pool.budget, detail)


@settings(max_examples=60, deadline=None)
@given(pools())
def test_weights_sum_to_one_or_are_all_zero_and_keep_the_floor(pool):
    for model, decision in zip(pool.models, decide_pool(pool, DEMO_SETTINGS).decisions, strict=True):
        total = sum(decision.weights.values())
        assert total == pytest.approx(1.0) or total == 0
        assert all(0 <= weight <= 1 for weight in decision.weights.values())
        assert set(decision.weights) == {t.name for t in model.spec.tiers} == set(decision.replicas)
        used = [t for t in model.spec.tiers if decision.weights[t.name] > 0]
        for parts in decision.levels.values():
            assert sum(parts.values()) == pytest.approx(1.0)
            assert min(parts.values()) >= 0
        routes = len(used) + sum(sum(p > 0 for p in parts.values()) - 1 for parts in decision.levels.values())
        if routes > 1 and all(t.card for t in model.spec.tiers):
            mean = sum(decision.weights[t.name] * mean_quality(t, decision.levels.get(t.name)) for t in used)
            may_run = [t for t in model.spec.tiers if not (t.replicas and t.replicas.max == 0)]
            best = max((level.quality_permille or 0 for t in may_run for level in levels_of(t)), default=0)
            assert mean >= min(model.spec.quality.floor_permille, best) - 1e-6, (decision.weights, decision.replicas)


def mean_quality(tier: Tier, parts: Mapping[str, float] | None) -> float:
    """Of what a tier serves when its share is divided like this."""
    qualities = {level.name: level.quality_permille or 0 for level in levels_of(tier)}
    return sum(qualities[name] * part for name, part in (parts or {"": 1.0}).items())


@settings(max_examples=100, deadline=None)
@given(pools())
def test_the_same_observation_gives_the_same_decision(pool):
    assert decide_pool(pool, DEMO_SETTINGS) == decide_pool(pool, DEMO_SETTINGS)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(models(), st.booleans())
def test_unknown_or_too_old_demand_changes_no_replica(model, too_old):
    plant = Plant([model], budget=100, now=NOW)
    seen = metrics(5.0, age=500.0) if too_old else replace(metrics(5.0), arrivals=MISSING)
    model.metrics = lambda now: seen
    plant.run(60)  # let bounds and start-up have their way first
    before = plant.step()[0].replicas
    plant.period = 15.0
    plant.run(900)
    assert plant.step()[0].replicas == before


@st.composite
def blind(draw: st.DrawFn) -> PoolObservation:
    """A model of unknown demand beside others, with anything wanted that the budget holds, and no edit since."""
    model, others = draw(models()), [draw(models(f"m{i}")) for i in range(1, draw(st.integers(1, 3)))]
    age = draw(st.sampled_from([None, 121.0, 5000.0]))
    seen = replace(metrics(5.0), arrivals=MISSING) if age is None else metrics(draw(RATES), age=age)
    model.metrics = lambda now: seen
    model.memory = PolicyMemory(
        wanted={t.name: draw(st.integers(0, 4)) for t in model.spec.tiers},
        generation=1,
        planned_demand_milli=draw(st.one_of(st.none(), st.integers(0, 20_000))),
        last_change_at=draw(st.one_of(st.none(), st.just(NOW - 500))),
    )
    pool = Plant([model, *others], budget=1, now=NOW).observe()
    accelerators = {"budget": None}
    spec = model.spec.model_copy(update={"accelerators": model.spec.accelerators.model_copy(update=accelerators)})
    first = replace(pool.models[0], spec=spec)
    needed = cost(first, dict(model.memory.wanted)) + sum(held_accelerators(m) for m in pool.models)
    name = draw(st.sampled_from(["", "gpu"]))
    return replace(pool, models=(first, *pool.models[1:]), budget=needed + draw(st.integers(0, 12)), name=name)


@settings(max_examples=300, deadline=None)
@given(blind())
def test_while_demand_is_unknown_no_replica_is_taken_and_none_added_beyond_a_minimum(pool):
    model = pool.models[0]
    wanted = model.memory.wanted
    assume(any(wanted.values()) and any(t.card for t in model.spec.tiers))
    decision = decide_pool(pool, DEMO_SETTINGS).decisions[0]
    for t in model.spec.tiers:
        least = 1 if t.replicas is None or t.replicas.min is None else t.replicas.min  # at most, as the warm tier
        assert wanted[t.name] <= decision.replicas[t.name] <= max(wanted[t.name], least), decision.message


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.lists(models(), min_size=1, max_size=3), st.integers(2, 12))
def test_a_plant_that_follows_the_grants_never_passes_the_budget_and_comes_to_rest(found, budget):
    for i, model in enumerate(found):
        model.name, model.pods, model.memory = f"m{i}", [], PolicyMemory()
    plant = Plant(found, budget=budget, now=NOW)
    plant.run(400)
    before = [d.replicas for d in plant.step()]
    plant.period = 15.0
    plant.run(200)
    assert [d.replicas for d in plant.step()] == before
    assert all(model.swap is None for model in found)
    assert [model.mix() for model in found] == [{t: n for t, n in r.items() if n} for r in before]
