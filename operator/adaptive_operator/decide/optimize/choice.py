"""One configuration for each model within the limits: a binary program, made small by what its relaxation knows.

Divisible choices take parts of no more models than there are limits; the others already have theirs. First the models
that are nearest to another choice choose again among a few. Where that stays too far from the bound, all do, among what
could still be part of a better plan: the bound less what a choice gives up has to pass what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_matrix

from adaptive_operator.decide.optimize.configurations import Configurations, Flags, top_rows
from adaptive_operator.decide.optimize.milp import relative_gap
from adaptive_operator.decide.optimize.tables import Floats, Ints

# Configurations that the whole program chooses from: the more models, the fewer of each are needed.
_KEPT: Final = 8000
_KEPT_PER_MODEL: Final = (8, 40)
# What the first search chooses from: so many models, so many configurations of each.
_FREE: Final = 50
_FREE_PER_MODEL: Final = 10
_SEARCHES: Final = 2  # at most, one after the other
_GAP_OF_PART: Final = 0.2  # of the gap: what the first search may leave of it


@dataclass(frozen=True, slots=True)
class Effort:
    """Where searches may end: `gap` in units of worth, nodes of each, and a guard in seconds for both of them."""

    gap: float
    nodes: int
    seconds: float


def choose(listed: Configurations, limits: Floats, prices: Floats, bound: float, effort: Effort) -> Ints | None:
    """Rows of the chosen configurations (M,); None: none found. `prices` of the limits (L,) prove the bound."""
    least, most = _KEPT_PER_MODEL
    per_model = min(most, max(least, _KEPT // len(listed.first)))
    rows = _with_nothing(listed, top_rows(listed, listed.worth - listed.use @ prices, per_model))
    kept, bound = _above_nothing(listed.picked(rows), bound)
    loss = _losses(kept, prices)
    wished = best_rows(kept, -loss)
    if bound - kept.worth[wished].sum() <= effort.gap and (kept.use[wished].sum(axis=0) <= limits).all():
        return rows[wished]
    first = _choose_near(kept, loss, limits, effort)
    missed = np.inf if first is None else bound - kept.worth[first].sum()
    if missed <= effort.gap:
        return None if first is None else rows[first]
    able = np.flatnonzero(loss <= missed)
    second = _search(kept.picked(able), limits, bound, effort)
    found = [choice for choice in (first, None if second is None else able[second]) if choice is not None]
    return rows[max(found, key=lambda choice: float(kept.worth[choice].sum()))] if found else None


def best_rows(listed: Configurations, values: Floats) -> Ints:
    """The first row of each model (M,) with its highest value (K,)."""
    best = np.maximum.reduceat(values, listed.first)
    winners = np.flatnonzero(values >= best[listed.owner])
    return winners[np.searchsorted(listed.owner[winners], np.arange(len(listed.first)))]


def _with_nothing(listed: Configurations, rows: Ints) -> Ints:
    """With each model's first row, which holds nothing: so there is always a choice within the limits."""
    return np.union1d(rows, listed.first)


def _above_nothing(kept: Configurations, bound: float) -> tuple[Configurations, float]:
    """Worth and bound above that of holding nothing: the solver's gap is relative, and all together may be worth 0."""
    nothing = kept.worth[kept.first]
    return replace(kept, worth=kept.worth - nothing[kept.owner]), bound - float(nothing.sum())


def _losses(kept: Configurations, prices: Floats) -> Floats:
    """(K,) What the bound loses when a model has this row in place of its best one at these prices."""
    reduced = kept.worth - kept.use @ prices
    losses: Floats = np.maximum.reduceat(reduced, kept.first)[kept.owner] - reduced
    return losses


def _choose_near(kept: Configurations, loss: Floats, limits: Floats, effort: Effort) -> Ints | None:
    """Rows (M,): the relaxation's, chosen again where they are parts or where another costs least; None: none found."""
    shares = _relaxed(kept, limits)
    if shares is None:
        return None
    chosen = best_rows(kept, shares)
    free = _nearest(kept, loss, chosen, shares)
    if not free.any():
        return chosen
    left = limits - kept.use[chosen[~free]].sum(axis=0)
    able = np.flatnonzero(free[kept.owner])
    part = _of_free(kept.picked(able), free)
    few = _with_nothing(part, top_rows(part, -loss[able], _FREE_PER_MODEL))
    few = np.union1d(few, np.searchsorted(able, chosen[free]))
    most = float((kept.worth * shares)[able].sum())
    again = _search(part.picked(few), left, most, replace(effort, gap=_GAP_OF_PART * effort.gap))
    if again is None:
        return None
    chosen[free] = able[few[again]]
    return chosen


def _nearest(kept: Configurations, loss: Floats, chosen: Ints, shares: Floats) -> Flags:
    """(M,) models of which the relaxation takes parts, and whose next row loses least; none where all are whole."""
    free = np.zeros(len(chosen), bool)
    parted = shares[chosen] < 1 - 1e-6
    if not parted.any():
        return free
    others = loss.copy()
    others[chosen] = np.inf
    order = np.lexsort((np.minimum.reduceat(others, kept.first), ~parted))
    free[order[: max(_FREE, int(parted.sum()))]] = True
    return free


def _of_free(part: Configurations, free: Flags) -> Configurations:
    """The rows of free models alone, with owners that are numbered anew."""
    owner = np.searchsorted(np.flatnonzero(free), part.owner)
    first = np.searchsorted(owner, np.arange(int(free.sum())))
    return Configurations(owner, first, part.counts, part.worth, part.use)


def _relaxed(kept: Configurations, limits: Floats) -> Floats | None:
    """(K,) the share of each row when choices are divisible; None: the solver has no answer."""
    result = linprog(
        -kept.worth,
        A_ub=csr_matrix(kept.use.T),
        b_ub=limits,
        A_eq=_one_each(kept),
        b_eq=np.ones(len(kept.first)),
        bounds=(0, 1),
        method="highs",
    )
    # Status 0: solved. A solution that fails scipy's own check comes with another one.
    return np.asarray(result.x) if result.status == 0 else None


def _search(kept: Configurations, limits: Floats, bound: float, effort: Effort) -> Ints | None:
    """Rows (M,) of the best choice; None: none within the limits was found. No choice is worth more than `bound`."""
    result = milp(
        -kept.worth,
        integrality=np.ones(len(kept.worth)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(_one_each(kept), 1, 1),
            LinearConstraint(csr_matrix(kept.use.T), -np.inf, limits),
        ],
        options={
            "mip_rel_gap": relative_gap(effort.gap, bound),
            "node_limit": effort.nodes,
            "time_limit": effort.seconds / _SEARCHES,
        },
    )
    return None if result.x is None else best_rows(kept, np.asarray(result.x))


def _one_each(kept: Configurations) -> csr_matrix:
    return csr_matrix((np.ones(len(kept.owner)), (kept.owner, np.arange(len(kept.owner)))))
