"""What the planner remembers of a pool between two passes: its last plan, the prices, solvers that failed, and what
plans have only begun to agree on.

Kept in this process only. A new one begins without prices, so that exchanges cost nothing in its first plan, which is
one of all models, and with hope, and agreement begins anew: all of it is in the observation that a decision is made
from, and so in the decision log. After an hour without a plan it is the same: what an accelerator was worth then is no
measure of what it is worth.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from adaptive_operator.decide.by_plan import Solver
from adaptive_operator.decide.damping import only_begins
from adaptive_operator.decide.decision import PoolDecision
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.price_life import are_prices_told
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import LastPlan, ModelObservation, Planning, PolicyMemory, PoolObservation
from adaptive_operator.solving import SolverError, SolverTimeoutError

_LOG = logging.getLogger(__name__)
FAILURES: Final = 3  # in a row, before the greedy choice stands in
_PASSES_WITHOUT: Final = 20  # of the greedy choice, before the solver is tried again


@dataclass(frozen=True, slots=True)
class _Remembered:
    """Of a pool's last plan: when it was made (Unix seconds), its prices, and what tells changes of a large pool."""

    planned_at: float
    prices: Mapping[str, float]
    plan: LastPlan | None


@dataclass(slots=True)
class PoolMemory:
    """`recall` completes an observation, `decide_pool` decides on it and remembers."""

    solver: Solver
    count_failure: Callable[[str], None] = lambda cause: None
    prepare: Callable[[int], None] = lambda models: None  # what a solver needs time for, before its first program
    note_solved: Callable[[str, float], None] = lambda method, seconds: None  # how, and how long it took
    _plans: dict[str, _Remembered] = field(default_factory=dict)  # the last one, by pool
    _left_free: set[str] = field(default_factory=set)  # pools of which the last plan left free what is free
    _failures: dict[str, int] = field(default_factory=dict)  # in a row, passes without the solver included
    _passes: dict[str, float] = field(default_factory=dict)  # when the last one of a pool saw it (Unix seconds)
    _begun: dict[str, Mapping[str, PolicyMemory]] = field(default_factory=dict)  # by pool, then by the model's uid
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of the five above: decisions have threads

    def recall(self, observation: PoolObservation) -> PoolObservation:
        """The observation with the last plan and its prices, and how its program is to be answered."""
        with self._lock:
            return self._recall(_key(observation), observation)

    def _recall(self, key: str, observation: PoolObservation) -> PoolObservation:
        self._passes[key] = observation.now
        begun = self._begun.get(key, {})
        observation = replace(observation, models=tuple(_with_begun(m, begun.get(m.uid)) for m in observation.models))
        failures = self._failures.get(key, 0)
        planning = Planning.SOLVED
        if failures >= FAILURES and (failures - FAILURES) % _PASSES_WITHOUT < _PASSES_WITHOUT - 1:
            planning, self._failures[key] = Planning.GREEDY, failures + 1
        left_free, last = key in self._left_free, self._plans.get(key)
        if last is None or not are_prices_told(last.planned_at, observation.now):
            return replace(observation, prices={}, planning=planning, last_plan=None, left_free=left_free)
        return replace(observation, prices=last.prices, planning=planning, last_plan=last.plan, left_free=left_free)

    def without_solver(self, observation: PoolObservation, error: SolverError) -> PoolObservation:
        """The same observation after the solver failed on it, with this error."""
        greedy, late = self._failures.get(_key(observation), 0) >= FAILURES, isinstance(error, SolverTimeoutError)
        return replace(observation, planning=Planning.GREEDY if greedy else Planning.BY_NEED, solver_was_late=late)

    def decide_pool(self, observation: PoolObservation, settings: DecideSettings) -> PoolDecision:
        """The decision. Raises SolverError, which counts.

        A pass that was given up leaves its thread behind: what that finds after the next pass has begun is not kept.
        """
        key, solver = _key(observation), _TimedSolver(self.solver)
        try:
            decision = decide_pool(observation, settings, solver)
        except SolverError as error:
            self._note_failed(observation)
            self.count_failure("TimedOut" if isinstance(error, SolverTimeoutError) else "Failed")
            _LOG.warning("pool %s: the planner's program was not solved: %s", key, error)
            raise
        if decision.unsolved and observation.planning is Planning.SOLVED:  # else nobody asked the solver
            self.count_failure("Unsolved")
        self._note_decided(observation, decision)
        if decision.plan is None:
            return decision
        if solver.seconds is not None:
            self.note_solved(decision.plan.method, solver.seconds)
        return replace(decision, plan=replace(decision.plan, seconds=solver.seconds))

    def _note_failed(self, observation: PoolObservation) -> None:
        key = _key(observation)
        with self._lock:
            if self._passes.get(key) == observation.now:
                self._failures[key] = self._failures.get(key, 0) + 1

    def _note_decided(self, observation: PoolObservation, decision: PoolDecision) -> None:
        key = _key(observation)
        with self._lock:
            if self._passes.get(key) != observation.now:
                return
            self._begun[key] = _begun(observation, decision)
            if observation.planning is Planning.SOLVED and decision.planned:
                self._failures.pop(key, None)
            if decision.planned:
                self._left_free = self._left_free | {key} if decision.left_free else self._left_free - {key}
            if decision.plan is not None:
                self._plans[key] = _Remembered(observation.now, decision.prices, decision.last_plan)

    def expect(self, pools: Mapping[str, int], without_plan: Collection[str] = ()) -> None:
        """These are the pools with a plan now, with so many models: forget the others, prepare for the largest.

        In those `without_plan` models agree on plans of their own.
        """
        self.prepare(max(pools.values(), default=0))
        with self._lock:
            self._left_free &= set(pools)
            for remembered in (self._plans, self._failures):
                for key in set(remembered) - set(pools):
                    del remembered[key]
            for seen in (self._passes, self._begun):
                for key in set(seen) - set(pools) - set(without_plan):
                    del seen[key]


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


def _begun(observation: PoolObservation, decision: PoolDecision) -> dict[str, PolicyMemory]:
    """Of the models of which plans only began to agree on something: no status has it."""
    return {
        model.uid: decided.memory
        for model, decided in zip(observation.models, decision.decisions, strict=True)
        if only_begins(decided.memory, model.spec.scaling.plans_in_agreement)
    }


def _with_begun(model: ModelObservation, begun: PolicyMemory | None) -> ModelObservation:
    """The model with what plans began to agree on, unless its status was written with another agreement since."""
    if begun is None or model.memory.agreed_plan is not None:
        return model
    plan, count, at = begun.agreed_plan, begun.agreed_count, begun.agreed_at
    return replace(model, memory=replace(model.memory, agreed_plan=plan, agreed_count=count, agreed_at=at))


def _key(observation: PoolObservation) -> str:
    return observation.name or observation.resource
