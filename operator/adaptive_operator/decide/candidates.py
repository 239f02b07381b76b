"""Candidate plans and their value: which replicas would serve the demand best within a budget.

A plan is a tuple of replica counts, in the order of the `PlanSpace`'s tiers. Small spaces are enumerated completely,
large ones are searched by moves (add, remove, exchange). An optimiser can take the place of `best_plan`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from operator import mul
from typing import Final

from adaptive_operator.decide.fill import TRICKLE, Fill, fill
from adaptive_operator.decide.room import Change, Room

Plan = tuple[int, ...]
Value = tuple[float, float, int, int, Plan]

_MOVES_AT_MOST: Final = 24  # rounds of the local search
_ALMOST_NOTHING: Final = 1e-9
_PLENTY: Final = 1e12  # requests/s that no plan serves
_ANSWERS_KEPT: Final = 8192  # of best_plan: those of a pass over a thousand models


@dataclass(frozen=True, slots=True)
class PlanTier:
    """One tier that may be planned with. `rate` is what one replica is planned to serve (requests/s, derated).

    `shed` is what a replica of a nested tier serves beyond that at lower levels: (requests/s, permille) per step.
    """

    name: str
    accelerators: int
    rate: float
    quality_permille: int
    low: int
    high: int
    present: int
    shed: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PlanSpace:
    """All plans that are allowed: tiers (best quality first), the mean quality floor and the accelerators to spend.

    `room`: of the nodes, which have to hold what a plan starts. None: they hold whatever the accelerators allow.
    """

    tiers: tuple[PlanTier, ...]
    floor_permille: float
    limit: int
    accelerator_price: float = 0.0  # permille x requests/s that one has to add to be worth its money
    room: Room | None = None
    # What a replica adds, step by step, best first: (position of its tier, requests/s), and the permille of each step.
    _steps: tuple[tuple[int, float], ...] = field(init=False, repr=False, compare=False)
    _qualities: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _accelerators: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Order all tiers' steps once: a space is filled and priced for thousands of plans."""
        steps = [
            (i, *step) for i, t in enumerate(self.tiers) for step in ((t.rate, float(t.quality_permille)), *t.shed)
        ]
        steps.sort(key=lambda step: -step[2])
        object.__setattr__(self, "_steps", tuple((i, rate) for i, rate, _ in steps))
        object.__setattr__(self, "_qualities", tuple(quality for _, _, quality in steps))
        object.__setattr__(self, "_accelerators", tuple(tier.accelerators for tier in self.tiers))

    def cost(self, plan: Plan) -> int:
        """Accelerators that a plan holds."""
        return sum(map(mul, plan, self._accelerators))

    def fill(self, plan: Plan, demand: float) -> Fill:
        """Who would serve how much of the demand (requests/s)."""
        return fill(demand, [plan[i] * rate for i, rate in self._steps], self._qualities, self.floor_permille)

    def net_quality(self, plan: Plan, demand: float) -> float:
        """Quality (permille) that a plan serves at a demand (requests/s), less what its accelerators cost."""
        return self.fill(plan, demand).quality_permille - self.cost_permille(plan, demand)

    def cost_permille(self, plan: Plan, demand: float) -> float:
        """What a plan's accelerators cost, as quality of the requests (permille); 0 without a price."""
        if not self.accelerator_price:
            return 0.0
        return self.cost(plan) * self.accelerator_price / max(demand, TRICKLE)

    def most(self, plan: Plan) -> float:
        """What a plan serves at most within the floor (requests/s)."""
        return sum(self.fill(plan, _PLENTY).served)

    def has_room(self, plan: Plan) -> bool:
        """Do nodes have room for what a plan starts?"""
        if self.room is None:
            return True
        pairs = zip(plan, self.tiers, strict=True)
        return self.room.holds([Change(t.name, t.accelerators, t.rate, t.present, n) for n, t in pairs])

    def present(self) -> Plan:
        """What is wanted now."""
        return tuple(tier.present for tier in self.tiers)


def value(space: PlanSpace, plan: Plan, demand: float) -> Value:
    """Smaller is better: unserved, then quality less its price, then accelerators, then starts; the plan itself breaks
    ties."""
    outcome = space.fill(plan, demand)
    starts = sum(n - tier.present for n, tier in zip(plan, space.tiers, strict=True) if n > tier.present)
    unserved = round(outcome.unserved / max(demand, _ALMOST_NOTHING), 4)
    quality = outcome.quality_permille - space.cost_permille(plan, demand)
    return (unserved, -round(quality, 1), space.cost(plan), starts, plan)


@lru_cache(maxsize=_ANSWERS_KEPT)
def best_plan(space: PlanSpace, demand: float, exact_plans: int) -> Plan | None:
    """The best plan for a demand (requests/s), at least one replica; None when not even the minimum is affordable.

    Several rules ask the same of a model in one pass, and looking through its plans is most of what a pass decides.
    """
    if not space.tiers:
        return None
    ranges = [_range(space, tier, demand) for tier in space.tiers]
    if is_enumerable(space, demand, exact_plans):
        plans: Iterable[Plan] = itertools.product(*ranges)
    else:
        plans = _searched(space, ranges, demand)
    return _best(space, plans, demand)


def is_enumerable(space: PlanSpace, demand: float, exact_plans: int) -> bool:
    """Are there at most so many plans worth looking at for a demand (requests/s)?"""
    return math.prod(len(_range(space, tier, demand)) for tier in space.tiers) <= exact_plans


def _best(space: PlanSpace, plans: Iterable[Plan], demand: float) -> Plan | None:
    allowed = (plan for plan in plans if any(plan) and space.cost(plan) <= space.limit)
    if space.room is None:
        return min(allowed, key=lambda plan: value(space, plan, demand), default=None)
    # In order, as room is looked for on every node: the first plans mostly have it.
    ranked = sorted(allowed, key=lambda plan: value(space, plan, demand))
    return next((plan for plan in ranked if space.has_room(plan)), None)


def _range(space: PlanSpace, tier: PlanTier, demand: float) -> range:
    """Counts worth looking at: from the minimum to what the whole demand needs, never more than affordable."""
    need = math.ceil(demand / tier.rate) + 1
    affordable = space.limit // tier.accelerators
    return range(tier.low, max(tier.low, min(tier.high, affordable, max(need, tier.present))) + 1)


def _searched(space: PlanSpace, ranges: list[range], demand: float) -> Iterator[Plan]:
    """Local optima from three starts: what runs, the minimum, and the demand filled in best quality first."""
    for start in (space.present(), tuple(r.start for r in ranges), _greedy(space, ranges, demand)):
        clamped = tuple(min(max(n, r.start), r.stop - 1) for n, r in zip(start, ranges, strict=True))
        yield _climb(space, ranges, clamped, demand)


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


def _climb(space: PlanSpace, ranges: list[range], plan: Plan, demand: float) -> Plan:
    for _ in range(_MOVES_AT_MOST):
        better = _best(space, itertools.chain((plan,), _moves(space, ranges, plan, demand)), demand)
        if better is None or better == plan:
            break
        plan = better
    return plan


def _moves(space: PlanSpace, ranges: list[range], plan: Plan, demand: float) -> Iterator[Plan]:
    """Remove some of one tier (or none), add some of another (or none): as many as fit, as are needed, or one."""
    rates = sum(n * tier.rate for n, tier in zip(plan, space.tiers, strict=True))
    for i, tier in enumerate(space.tiers):
        for less in {0, 1, plan[i] // 2, plan[i] - ranges[i].start}:
            if not 0 <= less <= plan[i] - ranges[i].start:
                continue
            without = (*plan[:i], plan[i] - less, *plan[i + 1 :])
            yield without
            yield from _additions(space, ranges, without, demand - rates + less * tier.rate)


def _additions(space: PlanSpace, ranges: list[range], plan: Plan, missing: float) -> Iterator[Plan]:
    spare = space.limit - space.cost(plan)
    for j, tier in enumerate(space.tiers):
        fits = min(spare // tier.accelerators, ranges[j].stop - 1 - plan[j])
        for more in {1, fits, min(fits, math.ceil(max(0.0, missing) / tier.rate))}:
            if 0 < more <= fits:
                yield (*plan[:j], plan[j] + more, *plan[j + 1 :])
