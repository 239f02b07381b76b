"""Which replicas are worth looking at for each model: some hundred configurations instead of all combinations.

One request class is served best by one tier, or by two around the demand and the floor; the rest is whole numbers and
what already runs. So: nothing, what runs and its neighbours, each column alone, pairs, and the neighbours of the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from adaptive_operator.decide.optimize.tables import Floats, Ints, Tables, tier_totals, use_of, worth_of

Flags = NDArray[np.bool_]

_GRID: Final = 16  # counts of the first column of a pair
_SMALL: Final = 6  # up to this many of each of a pair: all combinations
_ALONE: Final = 24  # counts of a column alone
_SHAPES_PER_TIER: Final = 2
_WIDENED: Final = 4  # plans of each model whose neighbours are looked at
_MIX: Final = np.random.default_rng(20260101).integers(1, 1 << 40, 1024)  # fixed: equal rows have equal sums


@dataclass(frozen=True, slots=True)
class Configurations:
    """Plans of single models, those of a model in a row. `first[m]` is the row where model m begins."""

    owner: Ints  # (K,)
    first: Ints  # (M,)
    counts: Ints  # (K, J)
    worth: Floats  # (K,)
    use: Floats  # (K, L)

    def picked(self, rows: Ints) -> Configurations:
        """Some of them; every model keeps at least one if `rows` (ascending) has one of each."""
        owner = self.owner[rows]
        first = np.searchsorted(owner, np.arange(len(self.first)))
        return Configurations(owner, first, self.counts[rows], self.worth[rows], self.use[rows])


def list_configurations(tables: Tables, prices: Floats, pairs: bool = True) -> Configurations:
    """Configurations of all models, for prices per unit of each limit (L,). Without `pairs` each column is alone.

    Prices choose which shapes of a tier are paired; every column is listed alone and around what runs.
    """
    alive = undominated(tables)
    parts = [_of_model(tables, m, prices, alive[m], pairs) for m in range(len(tables.columns))]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    counts = np.concatenate(parts) if parts else np.zeros((0, 0), np.int64)
    first = np.searchsorted(owner, np.arange(len(parts)))
    return Configurations(owner, first, counts, worth_of(tables, parts), use_of(tables, parts))


def widen(tables: Tables, listed: Configurations, reduced: Floats) -> Configurations:
    """The list with the neighbours of each model's best plans by `reduced` worth: one replica more, less or exchanged.

    Finds what pairs miss: a third column, where a shape runs out or the floor leaves room for one replica more.
    """
    alive = undominated(tables)
    best = listed.picked(top_rows(listed, reduced, _WIDENED))
    ends = np.append(best.first[1:], len(best.owner))
    parts = [
        _allowed(tables, m, _neighbours(best.counts[best.first[m] : ends[m]], np.flatnonzero(alive[m])))
        for m in range(len(tables.columns))
    ]
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    fresh = ~np.isin(_names(owner, np.vstack(parts)), _names(listed.owner, listed.counts))
    more = [
        part[of_part]
        for part, of_part in zip(parts, np.split(fresh, np.cumsum([len(p) for p in parts])[:-1]), strict=True)
    ]
    owner = np.concatenate([listed.owner, owner[fresh]])
    order = np.argsort(owner, kind="stable")
    return Configurations(
        owner[order],
        np.searchsorted(owner[order], np.arange(len(parts))),
        np.vstack([listed.counts, *more])[order],
        np.concatenate([listed.worth, worth_of(tables, more)])[order],
        np.vstack([listed.use, use_of(tables, more)])[order],
    )


def top_rows(listed: Configurations, reduced: Floats, most: int) -> Ints:
    """The best rows of each model, ascending."""
    order = np.lexsort((-reduced, listed.owner))
    rank = np.arange(len(order)) - listed.first[listed.owner[order]]
    return np.sort(order[rank < most])


def undominated(tables: Tables) -> Flags:
    """(M, J): columns that could be in a best plan. Exact, never drops one that runs.

    Left out: another tier on the same shape is no worse, no slower, no larger and no dearer to start (ties: the first).
    Only where every class sees the same order, and no bound of either tier is in the way.
    """
    quality = _plain_quality(tables)
    free = (tables.low == 0) & (tables.high >= 1 << 30)
    usable = np.take_along_axis(free, tables.tier, axis=1) & ~np.isnan(quality)
    place = np.arange(tables.rate.shape[1])
    exists = place[None, :] < tables.columns[:, None]
    size = tables.accelerators
    alive = exists & (tables.rate > 0)
    for j in range(tables.rate.shape[1]):
        same = exists & usable & (tables.shape == tables.shape[:, [j]]) & (place[None, :] != j)
        better = (quality >= quality[:, [j]]) & (tables.rate >= tables.rate[:, [j]]) & (size <= size[:, [j]])
        better &= tables.start_cost <= tables.start_cost[:, [j]]
        equal = (quality == quality[:, [j]]) & (tables.rate == tables.rate[:, [j]]) & (size == size[:, [j]])
        equal &= tables.start_cost == tables.start_cost[:, [j]]
        beaten = (same & better & (~equal | (place[None, :] < j))).any(axis=1)
        alive[:, j] &= ~(beaten & usable[:, j] & (tables.present[:, j] == 0))
    alive |= exists & (np.take_along_axis(tables.low, tables.tier, axis=1) > 0) & (tables.rate > 0)
    return alive


def _plain_quality(tables: Tables) -> Floats:
    """(M, J) quality of a column's tier; NaN where levels or several classes make it more than one number."""
    quality = np.full(tables.rate.shape, np.nan)
    one_class = (tables.demand > 0).sum(axis=1) <= 1
    for m in np.flatnonzero(one_class):
        c = int(np.argmax(tables.demand[m]))
        used = tables.step_rate[m, c] > 0
        tiers, counts = np.unique(tables.step_tier[m, c][used], return_counts=True)
        for tier in tiers[counts == 1]:
            step = np.flatnonzero(used & (tables.step_tier[m, c] == tier))[0]
            if tables.step_rate[m, c, step] == 1.0:
                quality[m, tables.tier[m] == tier] = tables.step_quality[m, c, step]
    return quality


def _of_model(tables: Tables, m: int, prices: Floats, alive: Flags, pairs: bool) -> Ints:
    """Configurations of one model (K, J), each once, within the tiers' maxima, minimums topped up."""
    columns = np.flatnonzero(alive)
    most = _most(tables, m)
    as_they_are = np.vstack([np.zeros((1, tables.rate.shape[1]), np.int64), tables.present[[m]]])
    rows = [as_they_are, *(_alone(tables, int(j), most[j]) for j in columns), _around_present(tables, m, columns)]
    if pairs:
        chosen = _worth_pairing(tables, m, prices, columns)
        rows += [_small_pairs(tables, m, columns, most), _large_pairs(tables, m, chosen, most)]
        rows.append(_chains(tables, m, prices, columns, most))
    return _allowed(tables, m, np.vstack([as_they_are, _with_minimums(tables, m, prices, np.vstack(rows))]))


def _allowed(tables: Tables, m: int, counts: Ints) -> Ints:
    """Those within the bounds of a model, each once."""
    most = np.maximum(_most(tables, m), tables.present[m])
    counts = counts[((counts >= 0) & (counts <= most)).all(axis=1)]
    _, first = np.unique(_names(np.zeros(len(counts), np.int64), counts), return_index=True)
    counts = counts[np.sort(first)]
    totals = tier_totals(tables, m, counts)
    allowed = (totals <= tables.high[m]).all(axis=1) & (counts @ tables.accelerators[m] <= tables.most_accelerators[m])
    return np.asarray(counts[allowed])


def _names(owner: Ints, counts: Ints) -> Ints:
    """(K,) a number for each plan of each model: equal for equal ones, different for others as good as always."""
    names: Ints = counts @ _MIX[1 : counts.shape[1] + 1] + owner * _MIX[0]
    return names


def _neighbours(bases: Ints, columns: Ints) -> Ints:
    each, none = np.eye(bases.shape[1], dtype=np.int64), np.zeros((1, bases.shape[1]), np.int64)
    more = np.vstack([none, each[columns]])
    less = np.vstack([none, each[np.flatnonzero(bases.any(axis=0))]])
    moves = (more[:, None, :] - less[None, :, :]).reshape(-1, bases.shape[1])
    return np.asarray((bases[:, None, :] + moves[None, :, :]).reshape(-1, bases.shape[1]))


def _most(tables: Tables, m: int) -> Ints:
    """(J,) most replicas of each column worth listing: what the demand needs or the minimum, within the limits."""
    demand = tables.demand[m].sum()
    need = np.ceil(demand / np.maximum(tables.rate[m], 1e-9)).astype(np.int64)
    need = np.maximum(need, tables.low[m][tables.tier[m]])
    use = tables.held_use[m]
    fits = np.where(use > 0, tables.limits // np.maximum(use, 1.0), np.inf).min(axis=1, initial=np.inf)
    allowed: Ints = np.minimum(tables.high[m][tables.tier[m]], np.minimum(fits, 1 << 30).astype(np.int64))
    allowed = np.minimum(allowed, tables.most_accelerators[m] // np.maximum(tables.accelerators[m], 1))
    most: Ints = np.minimum(need, allowed)
    return most


def _alone(tables: Tables, j: int, most: int) -> Ints:
    counts = np.arange(1, most + 1) if most <= _ALONE else _grid(1, most, _ALONE)
    rows = np.zeros((len(counts), tables.rate.shape[1]), np.int64)
    rows[:, j] = counts
    return rows


def _grid(low: int, high: int, points: int) -> Ints:
    return np.unique(np.round(np.linspace(low, high, points)).astype(np.int64))


def _around_present(tables: Tables, m: int, columns: Ints) -> Ints:
    """What runs, with one or two replicas more, fewer, or exchanged."""
    present = tables.present[m]
    running = np.flatnonzero(present)
    if len(running) == 0:
        return np.zeros((0, len(present)), np.int64)
    each, none = np.eye(len(present), dtype=np.int64), np.zeros((1, len(present)), np.int64)
    less = np.vstack([none, each[running], 2 * each[running], present[running, None] * each[running]])
    more = np.vstack([none, each[columns], 2 * each[columns]])
    rows = (present - less[:, None, :] + more[None, :, :]).reshape(-1, len(present))
    return np.asarray(rows[(rows >= 0).all(axis=1)])


def _chains(tables: Tables, m: int, prices: Floats, columns: Ints, most: Ints) -> Ints:
    """Column after column up to what the limits hold, until the demand is carried: for models larger than a shape.

    In two orders: by price, and by quality.
    """
    per_rate, quality = _price_per_rate(tables, m, prices), _best_quality(tables, m)
    orders = [
        sorted(columns, key=lambda j: (per_rate[j], j)),
        sorted(columns, key=lambda j: (-quality[j], per_rate[j], j)),
    ]
    rows = [row for order in orders for row in _chain(tables, m, order, most)]
    return np.array(rows, np.int64).reshape(-1, tables.rate.shape[1])


def _chain(tables: Tables, m: int, order: Sequence[int], most: Ints) -> list[Ints]:
    row, left, held = np.zeros(tables.rate.shape[1], np.int64), float(tables.demand[m].sum()), tables.limits.copy()
    rows, own = list[Ints](), int(tables.most_accelerators[m])
    for j in order:
        if left <= 0:
            break
        use = tables.held_use[m, j]
        fits = int(np.min(held[use > 0] // use[use > 0], initial=most[j]))
        size = int(tables.accelerators[m, j])
        row[j] = max(0, min(fits, own // max(1, size), math.ceil(left / tables.rate[m, j])))
        own -= int(row[j]) * size
        left -= row[j] * tables.rate[m, j]
        held -= row[j] * use
        rows.append(row.copy())
    return rows


def _price_per_rate(tables: Tables, m: int, prices: Floats) -> Floats:
    price = tables.held_use[m] @ prices + tables.running_cost[m] + tables.start_cost[m] * (tables.present[m] == 0)
    return np.asarray(price / np.maximum(tables.rate[m], 1e-9))


def _worth_pairing(tables: Tables, m: int, prices: Floats, columns: Ints) -> list[int]:
    """Of each tier the shapes with the least price per request/s, and everything that runs."""
    per_rate = _price_per_rate(tables, m, prices)
    chosen = {int(j) for j in columns if tables.present[m, j] > 0}
    for tier in np.unique(tables.tier[m, columns]):
        of_tier = [int(j) for j in columns if tables.tier[m, j] == tier]
        chosen.update(sorted(of_tier, key=lambda j: (per_rate[j], j))[:_SHAPES_PER_TIER])
    return sorted(chosen)


def _small_pairs(tables: Tables, m: int, columns: Ints, most: Ints) -> Ints:
    """Up to six of each of two columns, of all columns: with few replicas the fit counts more than the price."""
    pairs = np.array([(i, j) for i in columns for j in columns if i < j], np.int64).reshape(-1, 2)
    each = np.arange(1, _SMALL + 1)
    cells = _spread(pairs, np.repeat(each, _SMALL)[None, :], np.tile(each, _SMALL)[None, :])
    return _pair_rows(tables, m, cells, most)


def _large_pairs(tables: Tables, m: int, chosen: list[int], most: Ints) -> Ints:
    """Many of two columns: those that carry the demand together, and those that keep the floor between them."""
    pairs = np.array([(a, b) for a in chosen for b in chosen if a != b], np.int64).reshape(-1, 2)
    pairs = pairs[most[pairs].max(axis=1, initial=0) > _SMALL]
    if not len(pairs):
        return np.zeros((0, tables.rate.shape[1]), np.int64)  # most models are small
    n = np.round(np.linspace(0, most[pairs[:, 0]], _GRID, axis=1)).astype(np.int64)
    rests = [*_carrying(tables, m, pairs, n), _on_the_floor(tables, m, pairs, n)]
    parts = [_spread(pairs, n, whole(rest).astype(np.int64)) for rest in rests for whole in (np.floor, np.ceil)]
    return _pair_rows(tables, m, np.vstack(parts), most)


def _pair_rows(tables: Tables, m: int, cells: Ints, most: Ints) -> Ints:
    """Lines of (column, other column, replicas, other replicas) as configurations, without idle replicas."""
    i, j, n, k = cells.T
    fits = (n <= most[i]) & (k <= most[j])
    if (tables.demand[m] > 0).sum() == 1:
        quality, rate = _best_quality(tables, m), tables.rate[m]
        worse = np.where(quality[i] < quality[j], rate[i], rate[j])
        # Filled best quality first, the demand leaves the last replica of the worse tier idle.
        fits &= n * rate[i] + k * rate[j] - worse < tables.demand[m].sum()
    i, j, n, k = i[fits], j[fits], n[fits], k[fits]
    rows = np.zeros((len(i), tables.rate.shape[1]), np.int64)
    lines = np.arange(len(i))
    rows[lines, i], rows[lines, j] = n, k
    return rows


def _spread(pairs: Ints, first: Ints, second: Ints) -> Ints:
    """(column, other column, replicas, other replicas), a line for every pair (P, 2) and point (1 or P, N)."""
    points = (len(pairs), first.shape[1])
    numbers = [np.broadcast_to(part, points).ravel() for part in (pairs[:, :1], pairs[:, 1:], first, second)]
    return np.column_stack(numbers)


def _carrying(tables: Tables, m: int, pairs: Ints, n: Ints) -> list[Floats]:
    """(P, N) replicas of the second column that carry what n of the first leave, at the best or fastest levels."""
    demand, rate, fastest = tables.demand[m].sum(), tables.rate[m], tables.fastest[m][tables.tier[m]]
    a, b = pairs[:, :1], pairs[:, 1:]
    speeds = [np.ones_like(fastest)] if (fastest <= 1).all() else [np.ones_like(fastest), fastest]
    return [
        np.maximum(0.0, demand - n * rate[a] * fast[a]) / (rate[b] * faster[b]) for fast in speeds for faster in speeds
    ]


def _on_the_floor(tables: Tables, m: int, pairs: Ints, n: Ints) -> Floats:
    """(P, N) replicas of a tier below the floor that n of a better one allow: both full, the mean on the floor."""
    over = _best_quality(tables, m) - tables.floor[m]
    above, below = over[pairs[:, :1]], -over[pairs[:, 1:]]
    rates = tables.rate[m][pairs[:, :1]] / tables.rate[m][pairs[:, 1:]]
    return np.where((above > 0) & (below > 0), n * rates * above / np.where(below > 0, below, 1.0), 0.0)


def _best_quality(tables: Tables, m: int) -> Floats:
    """(J,) quality of each column's tier at its best level, for any class."""
    best = np.zeros(tables.low.shape[1])
    used = tables.step_rate[m] > 0
    np.maximum.at(best, tables.step_tier[m][used], tables.step_quality[m][used])
    return np.asarray(best[tables.tier[m]])


def _with_minimums(tables: Tables, m: int, prices: Floats, counts: Ints) -> Ints:
    """The same configurations, with what their tiers lack of the minimum on the cheapest shape (what runs first)."""
    rows = counts.copy()
    totals = tier_totals(tables, m, counts)
    price = tables.held_use[m] @ prices + tables.running_cost[m] - tables.rate[m] * 1e-9
    for tier in np.flatnonzero(tables.low[m]):
        of_tier = [j for j in range(int(tables.columns[m])) if tables.tier[m, j] == tier]
        if of_tier:
            j = min(of_tier, key=lambda j: (tables.present[m, j] == 0, price[j], j))
            rows[:, j] += np.maximum(0, tables.low[m, tier] - totals[:, tier]).astype(np.int64)
    return rows
