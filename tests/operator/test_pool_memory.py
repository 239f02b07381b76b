"""Prices go from one plan into the next; a solver that fails is counted, replaced, and tried again later."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve
from adaptive_operator.observe.observation import Planning
from adaptive_operator.pool_memory import FAILURES, PoolMemory
from adaptive_operator.solving import SolverError
from tests.operator.decide.plant import DEMO_SETTINGS
from tests.operator.decide.test_by_plan import BUSY, CALM, GPU, pool

SCARCE = pool(5, busy=(BUSY, 2.5), calm=(CALM, 0.35))


def broken(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
    raise SolverError("the process ended")


def fail(memory: PoolMemory) -> None:
    with pytest.raises(SolverError):
        memory.decide_pool(memory.recall(SCARCE), DEMO_SETTINGS)


def test_the_next_plan_knows_the_last_ones_prices() -> None:
    memory = PoolMemory(solve)
    first = memory.recall(SCARCE)
    assert first.prices == {}
    decision = memory.decide_pool(first, DEMO_SETTINGS)
    assert memory.recall(SCARCE).prices == decision.prices
    assert decision.prices[GPU] > 0
    assert memory.recall(replace(SCARCE, name="other")).prices == {}


def test_pools_that_are_gone_are_forgotten() -> None:
    memory = PoolMemory(solve)
    memory.decide_pool(memory.recall(SCARCE), DEMO_SETTINGS)
    memory.expect({})
    assert memory.recall(SCARCE).prices == {}


def test_a_solver_prepares_for_the_largest_pool_that_is_seen() -> None:
    told: list[int] = []
    memory = PoolMemory(solve, prepare=told.append)
    memory.expect({"nvidia.com/gpu": 40, "npu": 3})
    memory.expect({})
    assert told == [40, 0]


def test_a_failure_is_counted_and_the_pool_is_shared_by_need_and_after_three_greedily() -> None:
    causes: list[str] = []
    memory = PoolMemory(broken, causes.append)
    for _ in range(FAILURES - 1):
        fail(memory)
        assert memory.without_solver(SCARCE).planning is Planning.BY_NEED
    fail(memory)
    assert memory.without_solver(SCARCE).planning is Planning.GREEDY
    assert causes == ["Failed"] * FAILURES
    assert memory.recall(SCARCE).planning is Planning.GREEDY


def test_whatever_a_solver_fails_with_is_no_models_defect() -> None:
    def defect(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        raise TypeError("no marginals")

    fail(PoolMemory(defect))


def test_a_solver_that_was_given_up_is_tried_again_and_trusted_when_it_answers() -> None:
    memory = PoolMemory(broken)
    for _ in range(FAILURES):
        fail(memory)
    plannings = [memory.recall(SCARCE).planning for _ in range(20)]
    assert plannings == [Planning.GREEDY] * 19 + [Planning.SOLVED]
    memory.solver = solve
    memory.decide_pool(replace(SCARCE, planning=Planning.SOLVED), DEMO_SETTINGS)
    assert memory.recall(SCARCE).planning is Planning.SOLVED
