"""Baseline shares of the traffic: where the routers' own fast loop starts from.

The shares stand on a planned demand that moves in steps, so that a routing table is written when it means something.
Every tier that may serve is open (weight > 0): load is shed onto it by the routers within seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from adaptive_operator.decide.demand import Trust
from adaptive_operator.decide.fill import fill
from adaptive_operator.decide.situation import Situation, TierState

_POINTS = 100  # weights are whole per cents


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares by tier (sum 1, or all 0 when nothing can serve) and the demand they stand on."""

    shares: Mapping[str, float]
    planned_demand: float | None  # requests/s
    shift: int  # -1: towards cheaper tiers in this pass, +1: back to better ones, 0: as before


def plan_weights(situation: Situation, wanted: Mapping[str, int]) -> Weights:
    """Shares over the ready replicas, or over the wanted ones while none is ready."""
    counts = {tier.name: tier.ready for tier in situation.tiers}
    if not any(counts.values()):
        counts = dict(wanted)
    milli = situation.memory.planned_demand_milli
    planned = None if milli is None else milli / 1000
    now = situation.demand
    if now.rate is None or now.trust is Trust.NONE:
        return Weights(_shares(situation, counts, wanted, planned or 0.0), planned, 0)
    if planned is None:
        return Weights(_shares(situation, counts, wanted, now.rate), _rounded_up(now.rate), 0)
    return _moved(situation, counts, wanted, planned, now.rate)


def _moved(
    situation: Situation, counts: Mapping[str, int], wanted: Mapping[str, int], planned: float, rate: float
) -> Weights:
    """Shed at once when the demand asks for it; restore only what the hold window's maximum allows."""
    before = _shares(situation, counts, wanted, planned)
    shed = _shares(situation, counts, wanted, rate)
    if rate > planned and _distance(before, shed) >= situation.settings.weight_step:
        return Weights(shed, _rounded_up(rate), -1)
    peak = situation.demand.peak
    if situation.demand.trust is Trust.FULL and peak is not None and peak < planned:
        restored = _shares(situation, counts, wanted, peak)
        if _distance(before, restored) >= situation.settings.weight_restore_step:
            return Weights(restored, _rounded_up(peak), +1)
    return Weights(before, planned, 0)


def _shares(
    situation: Situation, counts: Mapping[str, int], wanted: Mapping[str, int], demand: float
) -> dict[str, float]:
    """Shares for one demand: the fill, with every other wanted tier opened by a trace as far as the floor allows."""
    tiers = sorted((t for t in situation.tiers if t.card), key=lambda t: -t.quality_permille)
    rates = [counts.get(t.name, 0) * _rate(situation, t) for t in tiers]
    outcome = fill(demand, rates, [t.quality_permille for t in tiers], situation.floor_permille)
    total = sum(outcome.served)
    if total <= 0:
        return _all_on_best(situation, counts, wanted)
    points = {t.name: served / total for t, served in zip(tiers, outcome.served, strict=True)}
    open_names = {t.name for t in tiers if max(counts.get(t.name, 0), wanted.get(t.name, 0)) > 0}
    return _in_points(situation, _with_traces(situation, points, [t for t in tiers if t.name in open_names]))


def _with_traces(situation: Situation, shares: Mapping[str, float], opened: list[TierState]) -> dict[str, float]:
    """Give each open tier at least a trace of traffic, as far as the mean quality stays above the floor."""
    trace = situation.settings.open_weight
    small = [tier for tier in opened if shares[tier.name] < trace]
    names = {tier.name for tier in small}
    rest = {name: share for name, share in shares.items() if share > 0 and name not in names}
    total, given, mixed = sum(rest.values()), 0, {name: share / sum(rest.values()) for name, share in rest.items()}
    for tier in small:
        scale = (1 - trace * (given + 1)) / total
        traces = {name: trace for name in mixed if name not in rest}
        trial = {**{name: share * scale for name, share in rest.items()}, **traces, tier.name: trace}
        if _mean_quality(situation, trial) >= situation.floor_permille:
            mixed, given = trial, given + 1
    return mixed


def _in_points(situation: Situation, shares: Mapping[str, float]) -> dict[str, float]:
    """Whole per cents that sum to 1. What rounding leaves over goes to the best tier: the mean never falls."""
    cents = {name: math.floor(share * _POINTS + 1e-9) for name, share in shares.items()}
    best = max((t for t in situation.tiers if shares.get(t.name, 0) > 0), key=lambda t: t.quality_permille).name
    cents[best] += _POINTS - sum(cents.values())
    return {tier.name: cents.get(tier.name, 0) / _POINTS for tier in situation.tiers}


def _all_on_best(situation: Situation, counts: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, float]:
    """No tier with a card serves: everything on the first one that does. Others are opened when no floor is set."""
    shares = dict.fromkeys((tier.name for tier in situation.tiers), 0.0)
    serving = [t for t in sorted(situation.tiers, key=lambda t: -t.quality_permille) if counts.get(t.name, 0) > 0]
    if not serving:
        return shares
    shares[serving[0].name] = 1.0
    if not situation.has_cards and not situation.model.spec.quality.floor_permille:
        others = [t.name for t in situation.tiers if t is not serving[0] and wanted.get(t.name, 0) > 0]
        trace = situation.settings.open_weight
        shares.update(dict.fromkeys(others, trace))
        shares[serving[0].name] = round(1.0 - trace * len(others), 2)
    return shares


def _mean_quality(situation: Situation, shares: Mapping[str, float]) -> float:
    return sum(tier.quality_permille * shares.get(tier.name, 0.0) for tier in situation.tiers)


def _rate(situation: Situation, tier: TierState) -> float:
    return tier.card.requests_per_second * situation.settings.utilisation if tier.card else 0.0


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return max((abs(one[name] - other[name]) for name in one), default=0.0)


def _rounded_up(requests_per_second: float) -> float:
    """To whole requests per 1000 s, as status keeps it."""
    return math.ceil(requests_per_second * 1000) / 1000
