"""Pools of random models for the planner's benchmark: six tiers, four accelerator types, heavy-tailed demand.

The same seed gives the same pool. Stress is what all models would need on their full tiers over what there is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from adaptive_operator.decide.optimize.problem import (
    Column,
    Counts,
    Limit,
    PlannedModel,
    PlannedTier,
    Problem,
    RequestClass,
    Route,
)

FLOOR = 0.9
PARETO_SHAPE = 1.2
GIB_PER_BILLION = 2.0  # 16-bit weights


@dataclass(frozen=True, slots=True)
class TierKind:
    """Quality, speed and memory relative to the full tier."""

    name: str
    quality: float
    speed: float
    memory: float


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Speed relative to the fastest type, memory in GiB."""

    name: str
    speed: float
    memory: float


TIERS = (
    TierKind("full", 1.0, 1.0, 1.0),
    TierKind("int8", 0.99, 1.6, 0.53),
    TierKind("nested", 0.975, 1.9, 0.53),
    TierKind("int4", 0.965, 2.2, 0.30),
    TierKind("pruned", 0.93, 1.35, 0.77),
    TierKind("distilled", 0.85, 4.0, 0.30),
)
ACCELERATORS = (
    Accelerator("h100", 1.0, 80),
    Accelerator("a100", 0.6, 80),
    Accelerator("l40s", 0.33, 48),
    Accelerator("l4", 0.11, 24),
)


def build_pool(seed: int, models: int, stress: float) -> Problem:
    """A pool that runs nothing yet. Every model keeps one int4 replica warm and has a mean quality floor."""
    dice = random.Random(seed)
    planned = tuple(_model(dice, f"demo/m{index:04d}") for index in range(models))
    needs = dict.fromkeys((kind.name for kind in ACCELERATORS), 0.0)
    for model in planned:
        full = [column for column in model.columns if column.tier == "full"]
        for column in full:
            needs[column.shape] += model.demand / len(full) * column.accelerators / column.rate
    limits = tuple(Limit(shape, max(8, round(need / stress))) for shape, need in needs.items())
    return Problem(planned, limits)


def move_on(problem: Problem, counts: Counts, prices: Mapping[str, float], seed: int, share: float = 1.0) -> Problem:
    """The pool one period later: `counts` run, and that share of the models has 15 % more or less to do."""
    dice = random.Random(seed)
    models = []
    for model in problem.models:
        factor = dice.uniform(0.85, 1.15) if dice.random() < share else 1.0
        columns = tuple(replace(c, present=n) for c, n in zip(model.columns, counts[model.key], strict=True))
        classes = tuple(replace(item, demand=item.demand * factor) for item in model.classes)
        models.append(replace(model, columns=columns, classes=classes))
    return replace(problem, models=tuple(models), prices=prices)


def changed_keys(before: Problem, after: Problem) -> frozenset[str]:
    """Models whose demand moved."""
    return frozenset(new.key for old, new in zip(before.models, after.models, strict=True) if old.demand != new.demand)


def _model(dice: random.Random, key: str) -> PlannedModel:
    billions, demand = dice.choice((3, 7, 8, 13, 32, 70)), 1.5 * min(dice.paretovariate(PARETO_SHAPE), 60.0)
    columns = [
        Column(
            tier=tier.name,
            shape=kind.name,
            accelerators=count,
            rate=8 * (8 / billions) ** 0.8 * tier.speed * kind.speed * count**0.85 * dice.uniform(0.85, 1.15),
            load_seconds=dice.choice((20.0, 60.0, 155.0)),
        )
        for tier in TIERS
        for kind in ACCELERATORS
        if (count := _accelerators(billions * GIB_PER_BILLION * tier.memory, kind)) is not None
    ]
    return PlannedModel(
        key=key,
        tiers=tuple(PlannedTier(tier.name, low=int(tier.name == "int4")) for tier in TIERS),
        columns=tuple(columns),
        routes=tuple(Route(tier.name, ((tier.name, 1.0),)) for tier in TIERS),
        classes=(RequestClass("all", demand, tuple(tier.quality for tier in TIERS)),),
        weight=float(dice.choice((1, 2, 4))),
        floor=FLOOR,
    )


def _accelerators(weights_gib: float, kind: Accelerator) -> int | None:
    """The smallest power of two that holds the weights and some keys and values; None beyond 8."""
    counts = (1, 2, 4, 8)
    return next((count for count in counts if 1.25 * weights_gib + 4 <= 0.9 * count * kind.memory), None)
