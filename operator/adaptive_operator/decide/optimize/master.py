"""Choosing one configuration per model within the limits: prices first, then a small binary program.

The prices of the limits minimise the dual, sum_m max_k (worth - price·use) + price·limits, which bounds every choice
among the listed configurations. `choice.py` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import linprog

from adaptive_operator.decide.optimize.choice import Effort, best_rows, choose
from adaptive_operator.decide.optimize.configurations import Configurations, list_configurations, widen
from adaptive_operator.decide.optimize.problem import Counts, Problem
from adaptive_operator.decide.optimize.tables import Floats, Ints, build_tables

_ROUNDS: Final = 60
_DUAL_TOLERANCE: Final = 2e-4  # of the weighted demand
# Prices that are further than this from those the list was made for (a share, and per accelerator) list it anew.
_PRICES_MOVED: Final = (0.5, 0.05)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices per unit of each limit (L,), and the bound that they prove for the listed configurations."""

    prices: Floats
    bound: float


@dataclass(frozen=True, slots=True)
class Mastered:
    """Replicas that the master chose (None: nothing found), its bound and the price of each limit (L,)."""

    counts: Counts | None
    bound: float
    prices: Floats


@dataclass(frozen=True, slots=True)
class Listed:
    """Replicas chosen among listed configurations, and what they are worth at least (see `worth_of`)."""

    counts: Counts
    worth: float


def solve_master(problem: Problem, gap: float = 1e-3, nodes: int = 500, seconds: float = 5.0) -> Mastered:
    """A plan for many models, and the bound within its configurations. `gap`: share of the weighted demand."""
    tables = build_tables(problem)
    scale = max(problem.weighted_demand, 1e-9)
    start = np.array([0.0 if limit.starts else problem.prices.get(limit.shape, 0.0) for limit in problem.limits])
    if not start.any():  # nothing is known of the prices: columns alone give a first idea
        alone = list_configurations(tables, start, pairs=False)
        start = find_prices(alone, tables.limits, start, scale, 20 * _DUAL_TOLERANCE).prices
    listed = list_configurations(tables, start)
    found = find_prices(listed, tables.limits, start, scale, _DUAL_TOLERANCE)
    share, least = _PRICES_MOVED
    if not np.allclose(found.prices, start, rtol=share, atol=least):
        # Prices choose what is paired, so what was listed for others may lack what these want.
        listed = list_configurations(tables, found.prices)
        found = find_prices(listed, tables.limits, found.prices, scale, _DUAL_TOLERANCE)
    listed = widen(tables, listed, listed.worth - listed.use @ found.prices)
    found = find_prices(listed, tables.limits, found.prices, scale, _DUAL_TOLERANCE)
    rows = choose(listed, tables.limits, found.prices, found.bound, Effort(gap * scale, nodes, seconds))
    if rows is None:
        return Mastered(None, found.bound, found.prices)
    return Mastered(_counts_of(problem, listed, rows), found.bound, found.prices)


def choose_listed(
    problem: Problem, prices: Floats, bound: float, gap: float = 1e-3, nodes: int = 500, seconds: float = 5.0
) -> Listed | None:
    """The choice among what is listed at prices of the limits (L,) that prove a bound of plans; None: none found."""
    if not problem.models:
        return None
    tables = build_tables(problem)
    listed = list_configurations(tables, prices)
    effort = Effort(gap * max(problem.weighted_demand, 1e-9), nodes, seconds)
    rows = choose(listed, tables.limits, prices, bound, effort)
    return None if rows is None else Listed(_counts_of(problem, listed, rows), float(listed.worth[rows].sum()))


def _counts_of(problem: Problem, listed: Configurations, rows: Ints) -> dict[str, tuple[int, ...]]:
    return {
        model.key: tuple(int(n) for n in listed.counts[row, : len(model.columns)])
        for model, row in zip(problem.models, rows, strict=True)
    }


def find_prices(listed: Configurations, limits: Floats, start: Floats, scale: float, tolerance: float) -> Prices:
    """Minimise the dual by cutting planes; each next point lies between the best one and the planes' lowest.

    Deterministic. `scale` is the weighted demand, `tolerance` the accuracy of the bound as a share of it.
    """
    best, point, planes = Prices(start, np.inf), start, []
    ceiling = _ceiling(listed, len(limits))
    for _ in range(_ROUNDS):
        reduced = listed.worth - listed.use @ point
        rows = best_rows(listed, reduced)
        height = float(reduced[rows].sum() + point @ limits)
        slope = limits - listed.use[rows].sum(axis=0)
        planes.append((slope, height - slope @ point))
        if height < best.bound:
            best = Prices(point, height)
        lowest, value = _lowest(planes, ceiling)
        if best.bound - value <= tolerance * scale:
            break
        point = 0.5 * (best.prices + lowest)
    return best


def _ceiling(listed: Configurations, limits: int) -> Floats:
    """No price is higher than the most that one unit could earn."""
    spread = float(listed.worth.max(initial=0.0) - listed.worth.min(initial=0.0))
    return np.full(limits, max(spread, 1.0))


def _lowest(planes: list[tuple[Floats, float]], ceiling: Floats) -> tuple[Floats, float]:
    slopes = np.array([slope for slope, _ in planes])
    matrix = np.column_stack([slopes, -np.ones(len(planes))])
    cost = np.zeros(len(ceiling) + 1)
    cost[-1] = 1.0
    bounds = [*((0.0, top) for top in ceiling), (None, None)]
    result = linprog(cost, A_ub=matrix, b_ub=[-offset for _, offset in planes], bounds=bounds, method="highs")
    return result.x[:-1], float(result.fun)
