"""What the planner remembers of a pool between two passes: its last plan, the prices, and solvers that failed.

Kept in this process only. A new one begins without prices, so that exchanges cost nothing in its first plan, which is
one of all models, and with hope: all of it is in the observation that a decision is made from, and so in the decision
log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from adaptive_operator.decide.by_plan import Solver
from adaptive_operator.decide.decision import PoolDecision
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import LastPlan, Planning, PoolObservation
from adaptive_operator.solving import SolverError, SolverTimeoutError

_LOG = logging.getLogger(__name__)
FAILURES: Final = 3  # in a row, before the greedy choice stands in
_PASSES_WITHOUT: Final = 20  # of the greedy choice, before the solver is tried again


@dataclass(slots=True)
class PoolMemory:
    """`recall` completes an observation, `decide_pool` decides on it and remembers."""

    solver: Solver
    count_failure: Callable[[str], None] = lambda cause: None
    prepare: Callable[[int], None] = lambda models: None  # what a solver needs time for, before its first program
    note_solved: Callable[[str, float], None] = lambda method, seconds: None  # how, and how long it took
    _prices: dict[str, Mapping[str, float]] = field(default_factory=dict)  # by pool
    _plans: dict[str, LastPlan] = field(default_factory=dict)  # by pool, of large ones
    _failures: dict[str, int] = field(default_factory=dict)  # in a row, passes without the solver included

    def recall(self, observation: PoolObservation) -> PoolObservation:
        """The observation with the last plan and its prices, and how its program is to be answered."""
        key = _key(observation)
        failures = self._failures.get(key, 0)
        planning = Planning.SOLVED
        if failures >= FAILURES and (failures - FAILURES) % _PASSES_WITHOUT < _PASSES_WITHOUT - 1:
            planning, self._failures[key] = Planning.GREEDY, failures + 1
        prices, last = self._prices.get(key, {}), self._plans.get(key)
        return replace(observation, prices=prices, planning=planning, last_plan=last)

    def without_solver(self, observation: PoolObservation) -> PoolObservation:
        """The same observation after the solver failed on it."""
        greedy = self._failures.get(_key(observation), 0) >= FAILURES
        return replace(observation, planning=Planning.GREEDY if greedy else Planning.BY_NEED)

    def decide_pool(self, observation: PoolObservation, settings: DecideSettings) -> PoolDecision:
        """The decision. Raises SolverError, which counts."""
        key, solver = _key(observation), _TimedSolver(self.solver)
        try:
            decision = decide_pool(observation, settings, solver)
        except SolverError as error:
            self._failures[key] = self._failures.get(key, 0) + 1
            self.count_failure("TimedOut" if isinstance(error, SolverTimeoutError) else "Failed")
            _LOG.warning("pool %s: the planner's program was not solved: %s", key, error)
            raise
        if decision.unsolved:
            self.count_failure("Unsolved")
        if observation.planning is Planning.SOLVED and decision.planned:
            self._failures.pop(key, None)
        if decision.plan is None:
            return decision
        self._prices[key] = decision.prices
        self._keep(key, decision.last_plan)
        if solver.seconds is not None:
            self.note_solved(decision.plan.method, solver.seconds)
        return replace(decision, plan=replace(decision.plan, seconds=solver.seconds))

    def _keep(self, key: str, last: LastPlan | None) -> None:
        if last is not None:
            self._plans[key] = last
        else:
            self._plans.pop(key, None)

    def expect(self, pools: Mapping[str, int]) -> None:
        """These are the pools with a plan now, with so many models: forget the others, prepare for the largest."""
        self.prepare(max(pools.values(), default=0))
        for remembered in (self._prices, self._plans, self._failures):
            for key in set(remembered) - set(pools):
                del remembered[key]


@dataclass(slots=True)
class _TimedSolver:
    """The solver, and how long its answer took."""

    solver: Solver
    seconds: float | None = None

    def __call__(self, problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        """The plan. Raises SolverError whatever the solver fails with: it is no model's defect."""
        start = time.monotonic()
        try:
            return self.solver(problem, changed)
        except SolverError:
            raise
        except Exception as error:
            raise SolverError(f"{type(error).__name__}: {error}") from error
        finally:
            self.seconds = time.monotonic() - start


def _key(observation: PoolObservation) -> str:
    return observation.name or observation.resource
