"""Loop F: which share of the requests each route gets. PURE: no clock, no I/O, so the simulator runs the same code.

A route is a tier, or a level of a nested one. Levels share their tier's replicas, so load moves to a lower level at
once, without a change of replicas (`levels.py`). Routes are filled best quality first, each up to 0.9 of what its ready
replicas carry within the objective. Arrivals steer; queues correct. A share that has to fall falls at once, one that
may rise does so by 0.3 of the way per period: measured to shed within two periods without oscillating for lags up
to 15 s. Deliberately does not know single requests: what happens when a tier is full at this very moment is admission's
business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate, pairwise
from typing import Final

from inference_pods.router.levels import LevelPoint, Step, frontier
from inference_pods.router.table import RouteKey

UTILISATION: Final = 0.9  # plan for this part of a tier's capacity: the rest absorbs noise
DRAIN_SECONDS: Final = 5.0  # a backlog shall be worked off within this time
RESTORE_FRACTION: Final = 0.3  # of the way back to the better tier, per period
PERIOD_SECONDS: Final = 0.5
_TRICKLE: Final = 1e-9  # requests/s: stands for "idle", so that the same division gives the shares of the next request
_TOLERANCE: Final = 1e-9


class ShareReason(StrEnum):
    STEADY = "Steady"
    SHED = "Shed"
    RESTORING = "Restoring"
    SATURATED = "Saturated"
    FLOOR_REACHED = "FloorReached"
    NOTHING_READY = "NothingReady"


@dataclass(frozen=True, slots=True)
class TierLoad:
    """One route as loop F sees it. `backlog`: requests in flight beyond what it carries comfortably."""

    key: RouteKey
    quality_permille: int | None
    mu: float | None  # requests/s of one replica at the objective; None = unknown, admission alone limits it
    weight: float
    ready: int
    backlog: float = 0.0
    load: float = 1.0  # of a replica per request, where one at the tier's top level costs 1
    shared_with: str = ""  # levels of a tier with the same word share replicas; those of another revision do not


@dataclass(frozen=True, slots=True)
class ShareInputs:
    """`tiers` best quality first; `arrival_rate` in requests/s of this router; `held` = requests waiting in it;
    `routers` = ready routers, which split every tier's capacity evenly."""

    tiers: Sequence[TierLoad]
    arrival_rate: float
    held: int = 0
    routers: int = 1
    floor_permille: int = 0


@dataclass(frozen=True, slots=True)
class SharePlan:
    """Shares sum to 1, or are all 0 when no ready tier may serve within the floor. `at` = seconds, caller's clock."""

    shares: Mapping[RouteKey, float] = field(default_factory=dict)
    reason: ShareReason = ShareReason.NOTHING_READY
    at: float = 0.0

    def of(self, key: RouteKey) -> float:
        return self.shares.get(key, 0.0)


def plan_shares(inputs: ShareInputs, previous: SharePlan | None, now: float) -> SharePlan:
    """One pass of loop F.

    Example: full (mu 0.8, one replica) and int4 (mu 0.65, one replica) at 1.2 requests/s: full takes 0.72 of them, int4
    the remaining 0.48, so the shares are 0.6 and 0.4.
    """
    tiers = open_tiers(inputs.tiers)
    if not tiers:
        return SharePlan({}, ShareReason.NOTHING_READY, now)
    demand = max(inputs.arrival_rate + inputs.held / DRAIN_SECONDS, _TRICKLE)
    target, served = _target_shares(tiers, demand, inputs)
    if target is None:
        return SharePlan(dict.fromkeys((tier.key for tier in tiers), 0.0), ShareReason.FLOOR_REACHED, now)
    before = _previous_shares(tiers, previous)
    shares = _damp(before, target, _restore_fraction(previous, now))
    if _mean_quality(tiers, shares, inputs.floor_permille) < inputs.floor_permille - _TOLERANCE:
        shares = target  # a floor that was raised, or a tier that was lost, does not wait for the damping
    reason = _reason(before, shares, saturated=served < demand * (1 - _TOLERANCE))
    return SharePlan({tier.key: share for tier, share in zip(tiers, shares, strict=True)}, reason, now)


def open_tiers(tiers: Sequence[TierLoad]) -> list[TierLoad]:
    """Ready tiers with a positive weight; if there are none, the closed ones that are still ready."""
    ready = [tier for tier in tiers if tier.ready > 0]
    return [tier for tier in ready if tier.weight > 0] or ready


def _target_shares(tiers: Sequence[TierLoad], demand: float, inputs: ShareInputs) -> tuple[list[float] | None, float]:
    """The undamped shares (None: the floor forbids all) and the requests/s that they serve."""
    for with_backlog in (True, False):  # when backlogs take all capacity away, the plain capacities divide the overload
        capacities = [_capacity(tier, inputs.routers, with_backlog=with_backlog) for tier in tiers]
        rates = _fill(tiers, capacities, demand, inputs.floor_permille)
        served = math.fsum(rates)
        if served > 0:
            return [rate / served for rate in rates], served
    return None, 0.0


def _capacity(tier: TierLoad, routers: int, *, with_backlog: bool) -> float:
    """Requests/s of load 1: the same for all levels of a tier."""
    if tier.mu is None:
        return math.inf
    backlog = tier.backlog / DRAIN_SECONDS if with_backlog else 0.0
    return max(UTILISATION * tier.mu * tier.load * tier.ready / max(routers, 1) - backlog, 0.0)


def _fill(tiers: Sequence[TierLoad], capacities: Sequence[float], demand: float, floor: int) -> list[float]:
    """Requests/s per route: best first; what is below the floor only takes what the better ones' surplus pays for."""
    steps = _steps(tiers, capacities, floor)
    rates = [0.0] * len(tiers)
    surplus = 0.0
    remaining = demand
    for step in sorted(steps, key=lambda step: step.margin < 0):
        used = min(remaining, step.rate)
        if step.margin < 0:
            used = min(used, surplus / -step.margin)
        surplus = max(surplus + used * step.margin, 0.0)  # spent to the last bit, rounding may leave it below zero
        remaining -= used
        _move(rates, step, used)
    return rates


def _steps(tiers: Sequence[TierLoad], capacities: Sequence[float], floor: int) -> list[Step]:
    """The first step of all that share replicas in the order of the routes, and lower levels' further ones where they
    belong."""
    steps: list[Step] = []
    further: list[Step] = []
    for group in dict.fromkeys((tier.key.tier, tier.shared_with) for tier in tiers):
        sharing = [index for index, tier in enumerate(tiers) if (tier.key.tier, tier.shared_with) == group]
        points = [_point(index, tiers[index], capacities[index], floor) for index in sharing]
        first, *more = frontier(points)
        steps.append(first)
        further += more
    steps.sort(key=lambda step: step.index)
    for step in further:
        place = next((i for i, other in enumerate(steps) if other.margin < step.margin), len(steps))
        steps.insert(place, step)
    return steps


def _point(index: int, tier: TierLoad, capacity: float, floor: int) -> LevelPoint:
    return LevelPoint(index, _margin(tier, floor), capacity / tier.load, tier.quality_permille is not None)


def _move(rates: list[float], step: Step, used: float) -> None:
    """Book `used` requests/s of a step: a lower level's step takes the better level's requests along."""
    if step.before is None:
        rates[step.index] += used
    elif used > 0:
        part = used / step.rate
        rates[step.index] = part * step.all_rate
        rates[step.before] *= 1 - part


def _margin(tier: TierLoad, floor: int) -> float:
    """Quality above the floor; an unknown quality neither pays nor costs."""
    return 0.0 if tier.quality_permille is None else float(tier.quality_permille - floor)


def _mean_quality(tiers: Sequence[TierLoad], shares: Sequence[float], floor: int) -> float:
    return floor + math.fsum(share * _margin(tier, floor) for tier, share in zip(tiers, shares, strict=True))


def _previous_shares(tiers: Sequence[TierLoad], previous: SharePlan | None) -> list[float]:
    """The last shares of the tiers that are open now; without any, the planner's weights are the starting point."""
    shares = [previous.of(tier.key) for tier in tiers] if previous else []
    if sum(shares) <= 0:
        shares = [tier.weight for tier in tiers]
    total = sum(shares)
    return [share / total for share in shares] if total > 0 else [1 / len(tiers)] * len(tiers)


def _restore_fraction(previous: SharePlan | None, now: float) -> float:
    """0.3 after a whole period; less when an event triggers the loop early, so that events do not undo the damping."""
    elapsed = PERIOD_SECONDS if previous is None else max(now - previous.at, 0.0)
    return float(1 - (1 - RESTORE_FRACTION) ** min(elapsed / PERIOD_SECONDS, 2.0))


def _damp(before: Sequence[float], target: Sequence[float], fraction: float) -> list[float]:
    """Down at once, up by `fraction`, on the cumulative shares "this tier or better": they stay ordered, so every share
    stays within [0, 1] and the sum is 1 for any number of tiers."""
    cumulative = [
        goal if goal <= start else start + fraction * (goal - start)
        for start, goal in zip(accumulate(before), accumulate(target), strict=True)
    ]
    cumulative[-1] = 1.0
    return [max(upper - lower, 0.0) for lower, upper in pairwise([0.0, *cumulative])]


def _reason(before: Sequence[float], shares: Sequence[float], *, saturated: bool) -> ShareReason:
    if saturated:
        return ShareReason.SATURATED
    change = max(
        (after - start for start, after in zip(accumulate(before), accumulate(shares), strict=True)),
        key=abs,
        default=0.0,
    )
    if abs(change) < 1e-3:
        return ShareReason.STEADY
    return ShareReason.SHED if change < 0 else ShareReason.RESTORING
