"""Plans without a solver: what runs, cut to the limits, and a greedy choice among the listed configurations.

Every solved plan is measured against them; they stand in when the solver fails or stops too far from its bound.
"""

from __future__ import annotations

import heapq

import numpy as np

from adaptive_operator.decide.optimize.configurations import Configurations, list_configurations
from adaptive_operator.decide.optimize.problem import Counts, Limit, PlannedModel, Problem, exceeded
from adaptive_operator.decide.optimize.tables import Floats, Ints, Tables, build_tables, worth_of

_NOTHING = 1e-9


def keep(problem: Problem) -> Counts:
    """What runs or loads; where it breaks a limit or a maximum, replicas of the least worth are given up.

    Starts nothing, so that it is always there to fall back on.
    """
    if not exceeded(problem, problem.present):
        return problem.present
    counts = {key: list(present) for key, present in problem.present.items()}
    tables = build_tables(problem)
    for m, model in enumerate(problem.models):
        _cut_to_own(tables, m, model, counts[model.key])
    for i, limit in enumerate(problem.limits):
        if not limit.starts:
            _cut_to_limit(problem, tables, limit, i, counts)
    return {key: tuple(of_model) for key, of_model in counts.items()}


def greedy(problem: Problem) -> Counts:
    """From nothing on, always the exchange of a model's configuration that gains most for its part of the limits."""
    tables = build_tables(problem)
    start = np.array([0.0 if limit.starts else problem.prices.get(limit.shape, 0.0) for limit in problem.limits])
    listed = list_configurations(tables, start)
    rows = _climb(listed, tables.limits)
    return {
        model.key: tuple(int(n) for n in listed.counts[row, : len(model.columns)])
        for model, row in zip(problem.models, rows, strict=True)
    }


def _climb(listed: Configurations, limits: Floats) -> list[int]:
    """The row of each model. Every model starts with its first one, which holds nothing."""
    ends = np.append(listed.first[1:], len(listed.owner))
    rows = [int(row) for row in listed.first]
    left = limits - listed.use[rows].sum(axis=0) if rows else limits
    queue: list[tuple[float, int, int]] = []

    def offer(m: int) -> None:
        span = slice(int(listed.first[m]), int(ends[m]))
        gain = listed.worth[span] - listed.worth[rows[m]]
        more = listed.use[span] - listed.use[rows[m]]
        part = (np.maximum(0.0, more) / np.maximum(limits, 1.0)).sum(axis=1) + _NOTHING
        ratio = np.where((gain > _NOTHING) & (more <= left).all(axis=1), gain / part, 0.0)
        best = int(ratio.argmax())
        if ratio[best] > 0:
            heapq.heappush(queue, (-float(ratio[best]), m, span.start + best))

    for m in range(len(rows)):
        offer(m)
    while queue:
        _, m, row = heapq.heappop(queue)
        more = listed.use[row] - listed.use[rows[m]]
        if (more <= left).all():
            left = left - more
            rows[m] = row
        offer(m)
    return rows


def _cut_to_own(tables: Tables, m: int, model: PlannedModel, counts: list[int]) -> None:
    """Keep a model within its tiers' maxima and its own budget; the slowest replicas per accelerator go first."""

    def drop(columns: list[int]) -> None:
        counts[min(columns, key=lambda j: (tables.rate[m, j] / model.columns[j].accelerators, j))] -= 1

    for tier in model.tiers:
        of_tier = [j for j, column in enumerate(model.columns) if column.tier == tier.name]
        while tier.high is not None and sum(counts[j] for j in of_tier) > tier.high:
            drop([j for j in of_tier if counts[j] > 0])
    while model.most_accelerators is not None and model.held(counts) > model.most_accelerators:
        drop([j for j, n in enumerate(counts) if n > 0])


def _cut_to_limit(problem: Problem, tables: Tables, limit: Limit, i: int, counts: dict[str, list[int]]) -> None:
    """Give up one replica after the other, the least loss per accelerator first, until the limit holds."""
    models = problem.models
    losses = [_cheapest_cut(tables, m, i, counts[model.key]) for m, model in enumerate(models)]
    used = sum(
        limit.use_of(column) * n for model in models for column, n in zip(model.columns, counts[model.key], strict=True)
    )
    while used > limit.accelerators:
        m = min(range(len(models)), key=lambda m: (losses[m][0], m))
        loss, j = losses[m]
        if loss == np.inf:
            return
        counts[models[m].key][j] -= 1
        used -= limit.use_of(models[m].columns[j])
        losses[m] = _cheapest_cut(tables, m, i, counts[models[m].key])


def _cheapest_cut(tables: Tables, m: int, i: int, counts: list[int]) -> tuple[float, int]:
    """(worth lost per accelerator, column) of the replica of a model that is missed least."""
    now = np.zeros(tables.rate.shape[1], np.int64)
    now[: len(counts)] = counts
    able = np.flatnonzero((now > 0) & (tables.held_use[m, :, i] > 0))
    if len(able) == 0:
        return np.inf, 0
    less = np.repeat(now[None, :], len(able) + 1, axis=0)
    less[np.arange(len(able)), able] -= 1
    worth = _worth_of_one(tables, m, less)
    loss = (worth[-1] - worth[:-1]) / tables.held_use[m, able, i]
    best = int(loss.argmin())
    return float(loss[best]), int(able[best])


def _worth_of_one(tables: Tables, m: int, counts: Ints) -> Floats:
    none = np.zeros((0, counts.shape[1]), np.int64)
    return worth_of(tables, [none] * m + [counts])
