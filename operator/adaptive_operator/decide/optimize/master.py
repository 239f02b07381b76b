"""Choosing one configuration per model within the limits: prices first, then a small binary program.

The prices of the limits minimise the dual, sum_m max_k (worth - price·use) + price·limits, which bounds every choice
among the listed configurations. The best configurations of each model at these prices go to HiGHS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_matrix

from adaptive_operator.decide.optimize.configurations import Configurations, list_configurations, top_rows, widen
from adaptive_operator.decide.optimize.problem import Counts, Problem
from adaptive_operator.decide.optimize.tables import Floats, Ints, Tables, build_tables

_ROUNDS: Final = 60
_DUAL_TOLERANCE: Final = 2e-4  # of the weighted demand
# Prices that are further than this from those the list was made for (a share, and per accelerator) list it anew.
_PRICES_MOVED: Final = (0.5, 0.05)
# Configurations that the binary program chooses from: the more models, the fewer of each are needed.
_KEPT: Final = 8000
_KEPT_PER_MODEL: Final = (8, 40)


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
    rows = _choose(listed, tables, found, gap * scale, nodes, seconds)
    if rows is None:
        return Mastered(None, found.bound, found.prices)
    counts = {
        model.key: tuple(int(n) for n in listed.counts[row, : len(model.columns)])
        for model, row in zip(problem.models, rows, strict=True)
    }
    return Mastered(counts, found.bound, found.prices)


def find_prices(listed: Configurations, limits: Floats, start: Floats, scale: float, tolerance: float) -> Prices:
    """Minimise the dual by cutting planes; each next point lies between the best one and the planes' lowest.

    Deterministic. `scale` is the weighted demand, `tolerance` the accuracy of the bound as a share of it.
    """
    best, point, planes = Prices(start, np.inf), start, []
    ceiling = _ceiling(listed, len(limits))
    for _ in range(_ROUNDS):
        reduced = listed.worth - listed.use @ point
        rows = _best_rows(listed, reduced)
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


def _best_rows(listed: Configurations, reduced: Floats) -> Ints:
    """The first best row of each model (M,)."""
    best = np.maximum.reduceat(reduced, listed.first)
    winners = np.flatnonzero(reduced >= best[listed.owner])
    return winners[np.searchsorted(listed.owner[winners], np.arange(len(listed.first)))]


def _choose(
    listed: Configurations, tables: Tables, found: Prices, gap: float, nodes: int, seconds: float
) -> Ints | None:
    """Rows of the chosen configurations (M,): a binary program over the best ones of each model."""
    reduced = listed.worth - listed.use @ found.prices
    least, most = _KEPT_PER_MODEL
    rows = top_rows(listed, reduced, min(most, max(least, _KEPT // len(listed.first))))
    kept = listed.picked(rows)
    one = csr_matrix((np.ones(len(rows)), (kept.owner, np.arange(len(rows)))))
    result = milp(
        -kept.worth,
        integrality=np.ones(len(rows)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one, 1, 1),
            LinearConstraint(csr_matrix(kept.use.T), -np.inf, tables.limits),
        ],
        options={"mip_rel_gap": gap / max(abs(found.bound), 1e-9), "node_limit": nodes, "time_limit": seconds},
    )
    if result.x is None:
        return None
    return rows[_best_rows(kept, np.asarray(result.x))]
