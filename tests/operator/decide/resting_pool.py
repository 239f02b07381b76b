"""A pool whose statuses are written as the operator writes them, under loads that move by a few per cent."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

from adaptive_operator.api.pool import AcceleratorPoolStatus, PoolDivision
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.decide.by_plan import Solver
from adaptive_operator.decide.decision import Decision, PoolDecision
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import ModelMetrics, ModelObservation, PoolObservation, Series
from adaptive_operator.observe.queries import HISTORY_BINS
from adaptive_operator.observe.remembered import recall_memory
from adaptive_operator.plan import plan_model
from adaptive_operator.plan.plan import WriteStatus
from adaptive_operator.plan.pool_status import Member, PoolFacts, build_pool_status, dump_pool_status, is_told_already
from adaptive_operator.plan.status import dump_status
from adaptive_operator.pool_memory import PoolMemory
from stand_ins import plant as plants
from stand_ins.plant import Model, Plant, demo_spec, metrics
from stand_ins.solver import solve_once
from tests.operator.plan.situations import SETTINGS

PERIOD = 30.0
HOLD_SECONDS = 120
SCALING = {
    "plannerPeriodSeconds": PERIOD,
    "holdSeconds": HOLD_SECONDS,
    "dwellSeconds": HOLD_SECONDS,
    "plansInAgreement": 2,
}


@dataclass
class RestingPool(Plant):
    """Models of one AcceleratorPool, decided with what the operator remembers and what the statuses say."""

    written: dict[str, AdaptiveModelStatus] = field(default_factory=dict)  # by name
    pool_written: AcceleratorPoolStatus | None = None
    writes: Counter[str] = field(default_factory=Counter)  # fields of statuses that another write changed
    moved: int = 0  # decisions that changed replicas
    planner: PoolMemory = field(default_factory=lambda: PoolMemory(solve_once))
    _seen: PoolObservation | None = None

    def step(self) -> list[Decision]:
        before = {model.name: model.memory.wanted for model in self.models}
        with mock.patch.object(plants, "decide_pool", self._decide):
            decisions = super().step()
        assert self._seen is not None
        for model, seen, decision in zip(self.models, self._seen.models, decisions, strict=True):
            self._write(model, seen, decision)
            self.moved += before[model.name] != model.memory.wanted
        self._write_pool(self._seen, decisions)
        return decisions

    def _decide(self, observation: PoolObservation, settings: DecideSettings, _solver: Solver) -> PoolDecision:
        self._seen = self.planner.recall(observation)
        return self.planner.decide_pool(self._seen, settings)

    def _observed(self, model: Model) -> ModelObservation:
        seen = super()._observed(model)
        return replace(seen, status=self.written.get(model.name), routers_ready=1)

    def _write(self, model: Model, seen: ModelObservation, decision: Decision) -> None:
        told = tell(seen, decision, self.now)
        if told is not None:
            self._note(f"{model.name} ", seen.status and dump_status(seen.status), dump_status(told))
            self.written[model.name] = told
        model.memory = recall_memory(self.written[model.name])

    def _write_pool(self, seen: PoolObservation, decisions: Sequence[Decision]) -> None:
        held = {model.key: held_accelerators(model) for model in seen.models}
        members = [
            Member(model.namespace, model.name, held[model.key], decision.part)
            for model, decision in zip(seen.models, decisions, strict=True)
        ]
        facts = PoolFacts(
            generation=1,
            resource=seen.resource,
            budget=seen.budget,
            surge=seen.surge,
            held=sum(held.values()),
            shares=seen.shares,
            price_milli=None,
            members=members,
            now=self.now,
            written=self.pool_written,
        )
        status = build_pool_status(facts)
        if seen.name and not is_told_already(status, self.pool_written):
            self._note("pool ", self.pool_written and dump_pool_status(self.pool_written), dump_pool_status(status))
            self.pool_written = AcceleratorPoolStatus.model_validate(dump_pool_status(status))

    def _note(self, path: str, before: Any, now: Any) -> None:
        """Count the fields that differ, by where they are."""
        if isinstance(before, dict) and isinstance(now, dict):
            for key in before.keys() | now.keys():
                self._note(f"{path}.{key}", before.get(key), now.get(key))
        elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            for index, (old, new) in enumerate(zip(before, now, strict=True)):
                self._note(f"{path}[{index}]", old, new)
        elif before != now:
            self.writes[f"{path}: {before} -> {now}"] += 1


def tell(model: ModelObservation, decision: Decision, now: float) -> AdaptiveModelStatus | None:
    """The status that is written for a decision; None where it stands there already."""
    steps = plan_model(model, decision, SETTINGS, now, 1).steps
    return next(
        (AdaptiveModelStatus.model_validate(s.status["status"]) for s in steps if isinstance(s, WriteStatus)), None
    )


def with_history(model: Model) -> Callable[[float], ModelMetrics]:
    """Readings of a model with its arrivals in bins, as the operator would have them."""

    def read(now: float) -> ModelMetrics:
        rates = [rate for at, rate in model.arrivals]
        bins = [None] * max(0, HISTORY_BINS - len(rates)) + rates[-HISTORY_BINS:]
        hold = max(model.spec.scaling.hold_seconds, model.memory.hold_seconds or 0)
        peak = max((rate for at, rate in model.arrivals if at > now - hold), default=0.0)
        return replace(metrics(rates[-1] if rates else 0.0, peak=peak), history=Series(tuple(bins), PERIOD, now))

    return read


def build_pool(
    loads: Sequence[float],
    noise: float,
    per_model: float,
    floor: int = 900,
    division: PoolDivision | None = PoolDivision.PLANNED,
) -> RestingPool:
    """Models with the demo's tiers and loads (requests/s) within +-`noise` of their mean; accelerators per model.

    `division`: of their AcceleratorPool; None: they name none.
    """
    spec = demo_spec(accelerators={}, quality={"floorPermille": floor}, routing={"warmTier": "int4"}, scaling=SCALING)

    def build(index: int, mean: float) -> Model:
        dice = random.Random(index)
        model = Model(f"m{index:03d}", spec, lambda _: mean * dice.uniform(1 - noise, 1 + noise))
        model.metrics = with_history(model)
        return model

    return RestingPool(
        [build(index, mean) for index, mean in enumerate(loads)],
        budget=int(per_model * len(loads)),
        load_seconds=20.0,
        period=PERIOD,
        now=1_800_000_000.0,
        settings=DecideSettings(),
        pool="" if division is None else "gpu",
        division=division or PoolDivision.WEIGHTED,
    )
