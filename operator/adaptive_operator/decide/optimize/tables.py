"""The program in padded arrays, and the worth of many plans at once.

Axes: models (M), columns of a model (J), tiers (T), classes (C), steps of the fill (S), limits (L), plans of all
models (K), those of one model after those of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_operator.decide.frontier import LevelPoint, frontier
from adaptive_operator.decide.optimize.problem import UNSERVED, PlannedModel, Problem, RequestClass

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FULL = 1e-12


@dataclass(frozen=True, slots=True)
class Tables:
    """A problem's numbers. Padding has rate 0, use 0 and no steps."""

    rate: Floats  # (M, J) reference requests/s of a replica
    shape: Ints  # (M, J) number of the shape
    tier: Ints  # (M, J) number of the tier in its model
    of_tier: Floats  # (M, J, T) 1 where a column is of a tier
    present: Ints  # (M, J)
    columns: Ints  # (M,) how many columns each model has
    start_cost: Floats  # (M, J)
    running_cost: Floats  # (M, J)
    held_use: Floats  # (M, J, L)
    start_use: Floats  # (M, J, L)
    limits: Floats  # (L,)
    low: Ints  # (M, T)
    high: Ints  # (M, T)
    accelerators: Ints  # (M, J) of one replica
    most_accelerators: Ints  # (M,)
    missing_cost: float
    weight: Floats  # (M,)
    floor: Floats  # (M,)
    demand: Floats  # (M, C)
    step_tier: Ints  # (M, C, S)
    step_rate: Floats  # (M, C, S) requests/s per unit of the tier's rate
    step_quality: Floats  # (M, C, S)
    step_opens: NDArray[np.bool_]  # (M, C, S) first step of its tier: what it does not use is left to other classes
    fastest: Floats  # (M, T) requests/s per unit of the tier's rate at its fastest level


_UNBOUNDED = np.int64(1) << 40
_Step = tuple[int, float, float, bool]


def build_tables(problem: Problem) -> Tables:
    """Arrays of a problem. Cascades are left out: they are routed when the replicas are known."""
    models, limits = problem.models, problem.limits
    shapes = {shape: i for i, shape in enumerate(sorted({c.shape for m in models for c in m.columns}))}
    wide = max((len(m.columns) for m in models), default=0)
    tiers = max((len(m.tiers) for m in models), default=0)
    classes = max((len(m.classes) for m in models), default=0)
    steps = [[_steps(model, item) for item in model.classes] for model in models]
    deep = max((len(of_class) for of_model in steps for of_class in of_model), default=0)
    size = len(models)
    tables = Tables(
        rate=np.zeros((size, wide)),
        shape=np.zeros((size, wide), np.int64),
        tier=np.zeros((size, wide), np.int64),
        of_tier=np.zeros((size, wide, tiers)),
        present=np.zeros((size, wide), np.int64),
        columns=np.array([len(m.columns) for m in models], np.int64),
        start_cost=np.zeros((size, wide)),
        running_cost=np.zeros((size, wide)),
        held_use=np.zeros((size, wide, len(limits))),
        start_use=np.zeros((size, wide, len(limits))),
        limits=np.array([limit.accelerators for limit in limits], float),
        low=np.zeros((size, tiers), np.int64),
        high=np.full((size, tiers), _UNBOUNDED),
        accelerators=np.zeros((size, wide), np.int64),
        most_accelerators=np.array([_or_unbounded(m.most_accelerators) for m in models], np.int64),
        missing_cost=problem.missing_cost(),
        weight=np.array([m.weight for m in models], float),
        floor=np.array([m.floor for m in models], float),
        demand=np.zeros((size, classes)),
        step_tier=np.zeros((size, classes, deep), np.int64),
        step_rate=np.zeros((size, classes, deep)),
        step_quality=np.zeros((size, classes, deep)),
        step_opens=np.zeros((size, classes, deep), bool),
        fastest=np.ones((size, tiers)),
    )
    for m, model in enumerate(models):
        _fill_columns(tables, m, model, problem, shapes)
        _fill_classes(tables, m, model, steps[m])
    return tables


def _fill_columns(tables: Tables, m: int, model: PlannedModel, problem: Problem, shapes: dict[str, int]) -> None:
    numbers = {tier.name: i for i, tier in enumerate(model.tiers)}
    for i, tier in enumerate(model.tiers):
        tables.low[m, i] = tier.low
        tables.high[m, i] = _or_unbounded(tier.high)
    for j, column in enumerate(model.columns):
        tables.rate[m, j] = column.rate
        tables.shape[m, j] = shapes[column.shape]
        tables.tier[m, j] = numbers[column.tier]
        tables.of_tier[m, j, numbers[column.tier]] = 1.0
        tables.present[m, j] = column.present
        tables.accelerators[m, j] = column.accelerators
        tables.start_cost[m, j] = problem.start_cost(column)
        tables.running_cost[m, j] = problem.running_cost(column)
        for i, limit in enumerate(problem.limits):
            use = tables.start_use if limit.starts else tables.held_use
            use[m, j, i] = limit.use_of(column)


def _or_unbounded(most: int | None) -> int:
    return int(_UNBOUNDED) if most is None else most


def _fill_classes(tables: Tables, m: int, model: PlannedModel, steps: list[list[_Step]]) -> None:
    # The dearest promise first: what it leaves is the others'.
    order = sorted(range(len(steps)), key=lambda c: (-model.classes[c].floor, c))
    for row, c in enumerate(order):
        tables.demand[m, row] = model.classes[c].demand
        for s, (tier, rate, quality, opens) in enumerate(steps[c]):
            tables.step_tier[m, row, s] = tier
            tables.step_rate[m, row, s] = rate
            tables.step_quality[m, row, s] = quality
            tables.step_opens[m, row, s] = opens
            tables.fastest[m, tier] = max(
                tables.fastest[m, tier], sum(r for t, r, _, _ in steps[c][: s + 1] if t == tier)
            )


def _steps(model: PlannedModel, item: RequestClass) -> list[_Step]:
    """(tier, requests/s per unit of rate, quality, does it open the tier?), best quality first (see `frontier.py`)."""
    steps: list[_Step] = []
    for number, tier in enumerate(model.tiers):
        points = [
            LevelPoint(route.name, quality, 1 / route.loads[0][1])
            for route, quality in zip(model.routes, item.qualities, strict=True)
            if len(route.loads) == 1 and route.loads[0][0] == tier.name and quality >= item.floor
        ]
        steps += [
            (number, step.rate, step.quality_permille, i == 0)
            for i, step in enumerate(frontier(points))
            if step.quality_permille > -UNSERVED
        ]
    return sorted(steps, key=lambda step: (-step[2], step[0]))


def worth_of(tables: Tables, plans: Sequence[Ints]) -> Floats:
    """Objective of each plan (K,), given the replicas by column (k, J) of the plans of each model (M of them).

    Exact for one class without cascades; else a plan's worth is at least this, because the classes are served in turn.
    """
    if not plans:
        return np.zeros(0)
    owner = np.repeat(np.arange(len(plans)), [len(counts) for counts in plans])
    capacity = np.vstack([counts @ (tables.rate[m][:, None] * tables.of_tier[m]) for m, counts in enumerate(plans)])
    costs = np.concatenate([_replica_costs(tables, m, counts) for m, counts in enumerate(plans)])
    worth: Floats = _served_worth(tables, owner, capacity) - costs
    return worth


def use_of(tables: Tables, plans: Sequence[Ints]) -> Floats:
    """What each plan takes of each limit (K, L)."""
    uses = [
        counts @ tables.held_use[m] + np.maximum(0, counts - tables.present[m]) @ tables.start_use[m]
        for m, counts in enumerate(plans)
    ]
    return np.vstack(uses) if uses else np.zeros((0, len(tables.limits)))


def tier_totals(tables: Tables, m: int, counts: Ints) -> Floats:
    """Replicas by tier (k, T), over all shapes, of plans of one model (k, J)."""
    return np.asarray(counts @ tables.of_tier[m])


def _replica_costs(tables: Tables, m: int, counts: Ints) -> Floats:
    starts = np.maximum(0, counts - tables.present[m])
    missing = np.maximum(0, tables.low[m] - tier_totals(tables, m, counts)).sum(axis=1)
    costs: Floats = counts @ tables.running_cost[m] + starts @ tables.start_cost[m] + tables.missing_cost * missing
    return costs


def _served_worth(tables: Tables, owner: Ints, capacity: Floats) -> Floats:
    """Weighted quality of what is served less Π x what is not; consumes `capacity` (K, T)."""
    lines, worth, slack = np.arange(len(owner)), np.zeros(len(owner)), np.zeros(len(owner))
    floor = tables.floor[owner]
    for c in range(tables.demand.shape[1]):
        left, idle = tables.demand[owner, c].copy(), capacity.copy()
        for s in range(tables.step_rate.shape[2]):
            tier, rate = tables.step_tier[owner, c, s], tables.step_rate[owner, c, s]
            quality = tables.step_quality[owner, c, s]
            share = np.minimum(left, capacity[lines, tier] * rate)
            below = floor - quality
            allowed = np.maximum(0.0, slack) / np.maximum(below, _FULL)
            share = np.where(below > _FULL, np.minimum(share, allowed), share)
            slack -= below * share
            left -= share
            worth += quality * share
            used = np.where(tables.step_opens[owner, c, s], share / np.maximum(rate, _FULL), 0.0)
            idle[lines, tier] -= used
        capacity = np.maximum(0.0, idle)
        worth -= UNSERVED * left
    return worth * tables.weight[owner]
