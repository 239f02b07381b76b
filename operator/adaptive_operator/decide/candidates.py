"""Candidate plans and their value: which replicas would serve the demand best within a budget.

A plan is a tuple of replica counts, in the order of the `PlanSpace`'s tiers. Small spaces are enumerated completely,
large ones are searched by moves (add, remove, exchange). An optimiser can take the place of `best_plan`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache, partial
from typing import Final

from adaptive_operator.decide.enumeration import best_of_all
from adaptive_operator.decide.spaces import Plan, PlanSpace, PlanTier, Worth, thrift, worth

WorthOf = Callable[[Plan], Worth]

_MOVES_AT_MOST: Final = 24  # rounds of the local search
_ANSWERS_KEPT: Final = 8192  # of best_plan: those of a pass over a thousand models


@lru_cache(maxsize=_ANSWERS_KEPT)
def best_plan(space: PlanSpace, demand: float, exact_plans: int) -> Plan | None:
    """The best plan for a demand (requests/s), at least one replica; None when not even the minimum is affordable.

    Several rules ask the same of a model in one pass, and looking through its plans is most of what a pass decides.
    """
    if not space.tiers:
        return None
    ranges = [_range(space, tier, demand) for tier in space.tiers]
    worth_of: WorthOf = partial(worth, space, demand=demand)
    if is_enumerable(space, demand, exact_plans):
        best = best_of_all(space, ranges, demand)
        if best is None or space.has_room(best):
            return best
        return _best(space, itertools.product(*ranges), worth_of)
    worth_of = cache(worth_of)  # most moves lead to plans that were looked at
    return _best(space, _searched(space, ranges, demand, worth_of), worth_of)


def best_of(space: PlanSpace, plans: Iterable[Plan], demand: float) -> Plan | None:
    """The best of these plans, of those that are affordable and that nodes have room for; None: there is none."""
    return _best(space, plans, partial(worth, space, demand=demand))


def is_enumerable(space: PlanSpace, demand: float, exact_plans: int) -> bool:
    """Are there at most so many plans worth looking at for a demand (requests/s)?"""
    return math.prod(len(_range(space, tier, demand)) for tier in space.tiers) <= exact_plans


def _best(space: PlanSpace, plans: Iterable[Plan], worth_of: WorthOf) -> Plan | None:
    """The plan of the least value, of those that nodes have room for."""
    allowed = [plan for plan in plans if space.cost(plan) <= space.limit and any(plan)]
    best = _least(space, allowed, worth_of)
    if best is None or space.has_room(best):
        return best
    # In order, as room is looked for on every node: the first plans mostly have it.
    allowed.sort(key=lambda plan: (worth_of(plan), thrift(space, plan)))
    return next((plan for plan in allowed if space.has_room(plan)), None)


def _least(space: PlanSpace, plans: Iterable[Plan], worth_of: WorthOf) -> Plan | None:
    """The plan of the least value: few are worth as much as the best, so few are looked at for what they spend."""
    least: Worth = (math.inf, math.inf)
    alike: list[Plan] = []
    for plan in plans:
        found = worth_of(plan)
        if found < least:
            least, alike = found, [plan]
        elif found == least:
            alike.append(plan)
    return min(alike, key=partial(thrift, space), default=None)


def _range(space: PlanSpace, tier: PlanTier, demand: float) -> range:
    """Counts worth looking at: from the minimum to what the whole demand needs, never more than affordable."""
    need = math.ceil(demand / tier.rate) + 1
    affordable = space.limit // tier.accelerators
    return range(tier.low, max(tier.low, min(tier.high, affordable, max(need, tier.present))) + 1)


def _searched(space: PlanSpace, ranges: list[range], demand: float, worth_of: WorthOf) -> Iterator[Plan]:
    """Local optima from three starts: what runs, the minimum, and the demand filled in best quality first."""

    @cache  # the climbs meet, and from there on are one
    def step(plan: Plan) -> Plan | None:
        return _best(space, {plan, *_moves(space, ranges, plan, demand)}, worth_of)

    for start in (space.present(), tuple(r.start for r in ranges), _greedy(space, ranges, demand)):
        clamped = tuple(min(max(n, r.start), r.stop - 1) for n, r in zip(start, ranges, strict=True))
        yield _climb(clamped, step)


def _greedy(space: PlanSpace, ranges: list[range], demand: float) -> Plan:
    """Tiers by requests/s per accelerator until the demand fits or the budget is spent."""
    plan = [r.start for r in ranges]
    spare = space.limit - space.cost(tuple(plan))
    left = demand - sum(n * tier.rate for n, tier in zip(plan, space.tiers, strict=True))
    order = sorted(range(len(plan)), key=lambda i: (-space.tiers[i].rate / space.tiers[i].accelerators, i))
    for i in order:
        tier = space.tiers[i]
        wanted = max(0, math.ceil(left / tier.rate))
        count = max(0, min(wanted, spare // tier.accelerators, ranges[i].stop - 1 - plan[i]))
        plan[i] += count
        spare -= count * tier.accelerators
        left -= count * tier.rate
    return tuple(plan)


def _climb(plan: Plan, step: Callable[[Plan], Plan | None]) -> Plan:
    """From plan to better plan, as far as moves lead."""
    for _ in range(_MOVES_AT_MOST):
        better = step(plan)
        if better is None or better == plan:
            break
        plan = better
    return plan


def _moves(space: PlanSpace, ranges: list[range], plan: Plan, demand: float) -> Iterator[Plan]:
    """Remove some of one tier (or none), add some of another (or none): as many as fit, as are needed, or one."""
    missing = demand - sum(n * tier.rate for n, tier in zip(plan, space.tiers, strict=True))
    yield from _additions(space, ranges, plan, missing)
    for i, tier in enumerate(space.tiers):
        most = plan[i] - ranges[i].start
        for less in {1, plan[i] // 2, most}:
            if 0 < less <= most:
                without = (*plan[:i], plan[i] - less, *plan[i + 1 :])
                yield without
                yield from _additions(space, ranges, without, missing + less * tier.rate)


def _additions(space: PlanSpace, ranges: list[range], plan: Plan, missing: float) -> Iterator[Plan]:
    spare = space.limit - space.cost(plan)
    for j, tier in enumerate(space.tiers):
        fits = min(spare // tier.accelerators, ranges[j].stop - 1 - plan[j])
        for more in {1, fits, min(fits, math.ceil(max(0.0, missing) / tier.rate))}:
            if 0 < more <= fits:
                yield (*plan[:j], plan[j] + more, *plan[j + 1 :])
