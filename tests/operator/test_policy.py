"""A model whose decision fails does not take its pool down with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from adaptive_operator.decide import by_plan
from adaptive_operator.decide.decision import Decision, PoolDecision
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.cluster import Snapshot
from adaptive_operator.observe.observation import Planning, PolicyMemory, PoolObservation
from adaptive_operator.observe.pools import build_pools
from adaptive_operator.plan.model import plan_model
from adaptive_operator.plan.plan import Plan
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.policy import Policy
from adaptive_operator.reasons import Reason
from adaptive_operator.solving import SolverError
from stand_ins.plant import DEMO_SETTINGS
from stand_ins.raw_objects import build_model, build_pod, build_stateful_set
from tests.operator.test_pool_memory import SCARCE


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


def test_models_that_fail_together_by_need_too_are_all_left_as_they_are() -> None:
    outcome = build_policy(lambda pool: len(pool.models) > 1, []).decide(build_pool("a", "b"))
    assert outcome.decisions == {}
    assert set(outcome.failed) == {"demo/a", "demo/b"}
    assert outcome.observation.models == ()
    assert outcome.defect is None, "nothing stands in"


def test_healthy_models_that_fail_together_by_need_too_are_left_as_they_are() -> None:
    outcome = build_policy(lambda pool: len(pool.models) > 1 or pool.models[0].name == "b", []).decide(
        build_pool("a", "b", "c")
    )
    assert outcome.decisions == {}
    assert set(outcome.failed) == {"demo/a", "demo/b", "demo/c"}
    assert outcome.observation.models == ()


def plans_badly(pool: PoolObservation) -> bool:
    return len(pool.models) > 1 and pool.planning is not Planning.BY_NEED


@pytest.mark.parametrize("planning", [Planning.SOLVED, Planning.GREEDY])
def test_a_pool_that_cannot_be_planned_is_shared_by_need(planning: Planning) -> None:
    pool = replace(build_pool("a", "b"), planning=planning, solver_was_late=True)
    outcome = build_policy(plans_badly, []).decide(pool)
    assert (list(outcome.decisions), outcome.failed) == (["demo/a", "demo/b"], {})
    assert outcome.observation == replace(pool, planning=Planning.BY_NEED, solver_was_late=False)
    assert isinstance(outcome.defect, ZeroDivisionError)


def test_the_rest_of_a_pool_that_cannot_be_planned_either_is_shared_by_need() -> None:
    budgets: list[int] = []
    policy = build_policy(lambda pool: plans_badly(pool) or any(m.name == "b" for m in pool.models), budgets)
    outcome = policy.decide(build_pool("a", "b", "c"))
    assert list(outcome.decisions) == ["demo/a", "demo/c"]
    assert list(outcome.failed) == ["demo/b"]
    assert outcome.observation.planning is Planning.BY_NEED
    assert isinstance(outcome.defect, ZeroDivisionError)
    assert budgets[-1] == 6


def test_a_greedy_choice_that_fails_leaves_the_pool_shared_by_need(monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(_problem: Problem) -> PoolPlan:
        raise ZeroDivisionError("defect")

    monkeypatch.setattr(by_plan, "solve_greedily", defect)
    policy = Policy(decide_pool, plan_model, DEMO_SETTINGS, PlanSettings("e", "r"))
    outcome = policy.decide(replace(SCARCE, planning=Planning.GREEDY))
    assert set(outcome.decisions) == {"demo/busy", "demo/calm"}
    for decision in outcome.decisions.values():
        assert Reason.POOL_NOT_SOLVED in {finding.reason for finding in decision.findings}


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
