"""A model whose decision fails does not take its pool down with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from adaptive_operator.decide.decision import Decision, PoolDecision
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.cluster import Snapshot
from adaptive_operator.observe.observation import PolicyMemory, PoolObservation
from adaptive_operator.observe.pools import build_pools
from adaptive_operator.plan.plan import Plan
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.policy import Policy
from adaptive_operator.reasons import Reason
from adaptive_operator.solving import SolverError
from stand_ins.raw_objects import build_model, build_pod, build_stateful_set


def build_pool(*names: str) -> PoolObservation:
    models = [build_model(name) for name in names]
    sets = [build_stateful_set(name, replicas=1, accelerators=2) for name in names]
    pods = [build_pod(f"{name}-full-aaaaaaaa-0", name) for name in names]
    pool = build_pools(Snapshot(models, pods, sets), {"nvidia.com/gpu": 8}, 0.0).pools[0]
    return PoolObservation(0.0, pool.resource, pool.budget, 1, 0.0, tuple(m.observation for m in pool.models))


def build_policy(fails: Callable[[PoolObservation], bool], budgets: list[int]) -> Policy:
    def decide(pool: PoolObservation, _settings: DecideSettings) -> PoolDecision:
        if fails(pool):
            raise ZeroDivisionError("defect")
        budgets.append(pool.budget)
        memory = PolicyMemory()
        decisions = (Decision(m.key, Reason.STEADY, "", "", {}, {}, memory, None, 0) for m in pool.models)
        return PoolDecision(pool.resource, tuple(decisions))

    return Policy(decide, lambda model, *_: Plan(model.key, ()), DecideSettings(), PlanSettings("e", "r"))


def test_all_is_well() -> None:
    pool = build_pool("a", "b")
    outcome = build_policy(lambda _pool: False, []).decide(pool)
    assert (list(outcome.decisions), outcome.failed) == (["demo/a", "demo/b"], {})
    assert outcome.observation == pool


def test_the_failing_model_is_set_aside_and_what_it_holds_leaves_the_budget() -> None:
    budgets: list[int] = []
    policy = build_policy(lambda pool: any(m.name == "b" for m in pool.models), budgets)
    outcome = policy.decide(build_pool("a", "b", "c"))
    assert list(outcome.decisions) == ["demo/a", "demo/c"]
    assert list(outcome.failed) == ["demo/b"]
    assert budgets[-1] == 6


def test_what_was_decided_on_is_told_without_the_failing_model_and_what_it_holds() -> None:
    pool = build_pool("a", "b", "c")
    policy = build_policy(lambda pool: any(m.name == "b" for m in pool.models), [])
    healthy = tuple(m for m in pool.models if m.name != "b")
    assert policy.decide(pool).observation == replace(pool, models=healthy, budget=6)


def test_models_that_fail_together_only_are_all_left_as_they_are() -> None:
    outcome = build_policy(lambda pool: len(pool.models) > 1, []).decide(build_pool("a", "b"))
    assert outcome.decisions == {}
    assert set(outcome.failed) == {"demo/a", "demo/b"}
    assert outcome.observation.models == ()


def test_healthy_models_that_fail_together_only_are_left_as_they_are_too() -> None:
    outcome = build_policy(lambda pool: len(pool.models) > 1 or pool.models[0].name == "b", []).decide(
        build_pool("a", "b", "c")
    )
    assert outcome.decisions == {}
    assert set(outcome.failed) == {"demo/a", "demo/b", "demo/c"}
    assert outcome.observation.models == ()


def test_a_solver_that_fails_on_the_healthy_rest_is_no_models_defect() -> None:
    def decide(pool: PoolObservation, _settings: DecideSettings) -> PoolDecision:
        names = {m.name for m in pool.models}
        if "b" in names:
            raise ZeroDivisionError("defect")
        if len(names) > 1:
            raise SolverError("the process ended")
        return PoolDecision(pool.resource, ())

    policy = replace(build_policy(lambda _pool: False, []), decide_pool=decide)
    with pytest.raises(SolverError):
        policy.decide(build_pool("a", "b", "c"))
