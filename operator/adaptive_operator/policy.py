"""The pure policy behind one door, so that a model whose decision fails cannot take its pool down with it.

Knows `decide/` and `plan/` and no client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from adaptive_operator.decide.adopted import AdoptedPlan
from adaptive_operator.decide.decision import Decision, PoolDecision
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import ModelObservation, Planning, PoolObservation
from adaptive_operator.plan.plan import Plan
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.solving import SolverError

Decide = Callable[[PoolObservation, DecideSettings], PoolDecision]
PlanModel = Callable[[ModelObservation, Decision, PlanSettings, float, int], Plan]


@dataclass(frozen=True, slots=True)
class PoolOutcome:
    """What was decided for a pool, upon what, and for whom nothing could be."""

    observation: PoolObservation  # decided on: without the models that failed, and without what they hold
    decisions: Mapping[str, Decision]  # by model key
    failed: Mapping[str, Exception]  # by model key
    plan: AdoptedPlan | None = None  # the pool's
    defect: Exception | None = None  # what planning the pool failed with, where it was shared by need instead


@dataclass(frozen=True, slots=True)
class Policy:
    """Decide for a pool, plan for a model."""

    decide_pool: Decide
    plan_model: PlanModel
    decide_settings: DecideSettings
    plan_settings: PlanSettings

    def decide(self, pool: PoolObservation) -> PoolOutcome:
        """Decisions by model key, the errors of models for which none could be made, and what was decided on.

        When the pool as a whole fails, the models that fail alone are set aside; what they hold leaves the budget.
        Where the rest fails, too, planning them together does: they are shared by need.
        Raises SolverError when the pool's program has no answer: that is no model's fault.
        """
        try:
            return self._decide(pool, {})
        except SolverError:
            raise
        except Exception as error:  # noqa: BLE001 a defect in one model's decision must not stop the others
            defect = error
        failed = self._find_failing(pool)
        held = sum(held_accelerators(m) for m in pool.models if m.key in failed)
        healthy = tuple(m for m in pool.models if m.key not in failed)
        rest = replace(pool, models=healthy, budget=max(0, pool.budget - held))
        if failed:
            try:
                return self._decide(rest, failed)
            except SolverError:
                raise
            except Exception as error:  # noqa: BLE001 they fail together only
                defect = error
        return self._decide_by_need(rest, failed, defect)

    def plan(
        self, model: ModelObservation, decision: Decision, budgets: Mapping[str, int], now: float, epoch: int
    ) -> Plan:
        """Steps for one model. `budgets`, by resource, are for its status to tell."""
        return self.plan_model(model, decision, replace(self.plan_settings, accelerator_budgets=budgets), now, epoch)

    def _decide(self, pool: PoolObservation, failed: Mapping[str, Exception]) -> PoolOutcome:
        if not pool.models:
            return PoolOutcome(pool, {}, failed)
        decided = self.decide_pool(pool, self.decide_settings)
        return PoolOutcome(pool, {decision.key: decision for decision in decided.decisions}, failed, decided.plan)

    def _decide_by_need(self, pool: PoolObservation, failed: Mapping[str, Exception], defect: Exception) -> PoolOutcome:
        by_need = replace(pool, planning=Planning.BY_NEED, solver_was_late=False)
        try:
            return replace(self._decide(by_need, failed), defect=defect)
        except Exception as error:  # noqa: BLE001 nothing is left to try: nobody moves
            together = {model.key: error for model in pool.models}
            return PoolOutcome(replace(pool, models=()), {}, {**failed, **together})

    def _find_failing(self, pool: PoolObservation) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        for model in pool.models:
            try:
                self._decide(replace(pool, models=(model,)), {})
            except Exception as error:  # noqa: BLE001 this is the one that is looked for
                failed[model.key] = error
        return failed
