"""Candidate plans and their value: which replicas would serve the demand best within a budget.

A plan is a tuple of replica counts, in the order of the `PlanSpace`'s tiers. Small spaces are enumerated completely,
large ones are searched by moves (add, remove, exchange). An optimiser can take the place of `best_plan`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from operator import mul
from typing import Final

from adaptive_operator.decide.fill import TRICKLE, Fill, Step, fill, fill_outcome
from adaptive_operator.decide.room import Change, Room

Plan = tuple[int, ...]
Worth = tuple[float, float]
WorthOf = Callable[[Plan], Worth]
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
    # What a replica adds, step by step, best first: position of its tier, requests/s, and the permille of each step.
    _steps: tuple[Step, ...] = field(init=False, repr=False, compare=False)
    _qualities: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _accelerators: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Order all tiers' steps once: a space is filled and priced for thousands of plans."""
        steps = [
            (i, *step) for i, t in enumerate(self.tiers) for step in ((t.rate, float(t.quality_permille)), *t.shed)
        ]
        steps.sort(key=lambda step: -step[2])
        object.__setattr__(self, "_steps", tuple(steps))
        object.__setattr__(self, "_qualities", tuple(quality for _, _, quality in steps))
        object.__setattr__(self, "_accelerators", tuple(tier.accelerators for tier in self.tiers))

    def cost(self, plan: Plan) -> int:
        """Accelerators that a plan holds."""
        return sum(map(mul, plan, self._accelerators))

    def fill(self, plan: Plan, demand: float) -> Fill:
        """Who would serve how much of the demand (requests/s)."""
        return fill(demand, [plan[i] * rate for i, rate, _ in self._steps], self._qualities, self.floor_permille)

    def outcome(self, plan: Plan, demand: float) -> tuple[float, float]:
        """How much of the demand (requests/s) a plan does not serve, and the quality of what it does (permille)."""
        return fill_outcome(demand, plan, self._steps, self.floor_permille)

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
    return (*_worth(space, plan, demand), *_thrift(space, plan))


def _worth(space: PlanSpace, plan: Plan, demand: float) -> Worth:
    """What comes first in a plan's value: it leaves few to look at for what they spend."""
    left, permille = space.outcome(plan, demand)
    unserved = round(left / max(demand, _ALMOST_NOTHING), 4)
    return unserved, -round(permille - space.cost_permille(plan, demand), 1)


def _thrift(space: PlanSpace, plan: Plan) -> tuple[int, int, Plan]:
    starts = sum(n - tier.present for n, tier in zip(plan, space.tiers, strict=True) if n > tier.present)
    return space.cost(plan), starts, plan


@lru_cache(maxsize=_ANSWERS_KEPT)
def best_plan(space: PlanSpace, demand: float, exact_plans: int) -> Plan | None:
    """The best plan for a demand (requests/s), at least one replica; None when not even the minimum is affordable.

    Several rules ask the same of a model in one pass, and looking through its plans is most of what a pass decides.
    """
    if not space.tiers:
        return None
    ranges = [_range(space, tier, demand) for tier in space.tiers]
    worth_of: WorthOf = partial(_worth, space, demand=demand)
    if is_enumerable(space, demand, exact_plans):
        return _best(space, itertools.product(*ranges), worth_of)
    worth_of = cache(worth_of)  # the climbs meet: most moves lead to plans that were looked at
    return _best(space, _searched(space, ranges, demand, worth_of), worth_of)


def is_enumerable(space: PlanSpace, demand: float, exact_plans: int) -> bool:
    """Are there at most so many plans worth looking at for a demand (requests/s)?"""
    return math.prod(len(_range(space, tier, demand)) for tier in space.tiers) <= exact_plans


def _best(space: PlanSpace, plans: Iterable[Plan], worth_of: WorthOf) -> Plan | None:
    """The plan of the least value, of those that nodes have room for."""
    if space.room is not None:
        allowed = [plan for plan in plans if any(plan) and space.cost(plan) <= space.limit]
        # In order, as room is looked for on every node: the first plans mostly have it.
        allowed.sort(key=lambda plan: (worth_of(plan), _thrift(space, plan)))
        return next((plan for plan in allowed if space.has_room(plan)), None)
    least: Worth = (math.inf, math.inf)
    alike: list[Plan] = []
    for plan in plans:
        if space.cost(plan) > space.limit or not any(plan):
            continue
        worth = worth_of(plan)
        if worth < least:
            least, alike = worth, [plan]
        elif worth == least:
            alike.append(plan)
    return min(alike, key=partial(_thrift, space), default=None)


def _range(space: PlanSpace, tier: PlanTier, demand: float) -> range:
    """Counts worth looking at: from the minimum to what the whole demand needs, never more than affordable."""
    need = math.ceil(demand / tier.rate) + 1
    affordable = space.limit // tier.accelerators
    return range(tier.low, max(tier.low, min(tier.high, affordable, max(need, tier.present))) + 1)


def _searched(space: PlanSpace, ranges: list[range], demand: float, worth_of: WorthOf) -> Iterator[Plan]:
    """Local optima from three starts: what runs, the minimum, and the demand filled in best quality first."""
    for start in (space.present(), tuple(r.start for r in ranges), _greedy(space, ranges, demand)):
        clamped = tuple(min(max(n, r.start), r.stop - 1) for n, r in zip(start, ranges, strict=True))
        yield _climb(space, ranges, clamped, demand, worth_of)


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


def _climb(space: PlanSpace, ranges: list[range], plan: Plan, demand: float, worth_of: WorthOf) -> Plan:
    for _ in range(_MOVES_AT_MOST):
        better = _best(space, {plan, *_moves(space, ranges, plan, demand)}, worth_of)
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
