"""Baseline shares of the traffic: where the routers' own fast loop starts from.

The shares stand on a planned demand that moves in steps, so that a routing table is written when it means something.
Every tier and level that may serve is open (weight > 0): load is shed onto it by the routers within seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adaptive_operator.decide.demand import Trust
from adaptive_operator.decide.fill import Fill, fill
from adaptive_operator.decide.frontier import Step, frontier, split
from adaptive_operator.decide.situation import Situation
from adaptive_operator.decide.tier_prices import shadow_prices
from adaptive_operator.levels import top_of

_POINTS = 100  # weights are whole per cents


RouteName = tuple[str, str]  # tier, and its level ("" of a plain tier)
RouteShares = Mapping[RouteName, float]


@dataclass(frozen=True, slots=True)
class Weights:
    """Shares by route (sum 1, or all 0 when nothing can serve) and the demand they stand on."""

    routes: RouteShares
    planned_demand: float | None  # requests/s
    shift: int  # -1: towards cheaper tiers in this pass, +1: back to better ones, 0: as before
    prices: Mapping[str, float] = field(default_factory=dict)  # of tiers, at that demand and these replicas

    @property
    def shares(self) -> dict[str, float]:
        """Shares by tier."""
        tiers = dict.fromkeys(tier for tier, _ in self.routes)
        return {tier: _sum_in_points(share for (t, _), share in self.routes.items() if t == tier) for tier in tiers}

    @property
    def levels(self) -> dict[str, dict[str, float]]:
        """How each nested tier that gets a share divides it: level -> part, which sum to 1."""
        shares = self.shares
        parts: dict[str, dict[str, float]] = {}
        for (tier, level), share in self.routes.items():
            if level and shares[tier] > 0:
                parts.setdefault(tier, {})[level] = share / shares[tier]
        return parts

    @property
    def text(self) -> str:
        """`full 60% · nested/int4 40%`."""
        shown = {f"{tier}/{level}" if level else tier: share for (tier, level), share in self.routes.items()}
        return " · ".join(f"{name} {share:.0%}" for name, share in shown.items() if share > 0)


def plan_weights(situation: Situation, wanted: Mapping[str, int]) -> Weights:
    """Shares over the ready replicas, or over the wanted ones while none is ready."""
    counts = {tier.name: tier.ready for tier in situation.tiers}
    if not any(counts.values()):
        counts = dict(wanted)
    weights = _plan(situation, counts, wanted)
    return replace(weights, prices=_prices(situation, counts, weights.planned_demand or 0.0))


def _plan(situation: Situation, counts: Mapping[str, int], wanted: Mapping[str, int]) -> Weights:
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
    if rate > planned:
        shed = _shares(situation, counts, wanted, rate)
        if _distance(before, shed) >= situation.settings.weight_step:
            return Weights(shed, _rounded_up(rate), -1)
    peak = situation.demand.peak
    if situation.demand.trust is Trust.FULL and peak is not None and peak < planned:
        restored = _shares(situation, counts, wanted, peak)
        if _distance(before, restored) >= situation.settings.weight_restore_step:
            return Weights(restored, _rounded_up(peak), +1)
    return Weights(before, planned, 0)


def _shares(situation: Situation, counts: Mapping[str, int], wanted: Mapping[str, int], demand: float) -> RouteShares:
    """Shares for one demand: the fill, with every other wanted route opened by a trace as far as the floor allows."""
    served = _served(situation, counts, demand)
    total = sum(served.values())
    if total <= 0:
        return _all_on_best(situation, counts, wanted)
    shares = {route: rate / total for route, rate in served.items()}
    open_names = {t.name for t in situation.tiers if max(counts.get(t.name, 0), wanted.get(t.name, 0)) > 0}
    return _in_points(situation, _with_traces(situation, shares, [r for r in shares if r[0] in open_names]))


def _prices(situation: Situation, counts: Mapping[str, int], demand: float) -> dict[str, float]:
    """Shadow prices of all tiers with a card."""
    cards = {t.name: t.card for t in situation.tiers if t.card}
    planned = {name: counts.get(name, 0) * situation.settings.utilisation for name in cards}
    rates = {name: planned[name] * card.requests_per_second for name, card in cards.items()}
    parts = _parts(situation)

    def fill_with(changed: Mapping[str, float]) -> Fill:
        replicas = {name: changed[name] / card.requests_per_second for name, card in cards.items()}
        return _fill(situation, parts, replicas, demand)

    return shadow_prices(demand, rates, fill_with)


def _parts(situation: Situation) -> list[tuple[str, Step]]:
    """The steps of all tiers with a card, best quality first."""
    tiers = sorted((t for t in situation.tiers if t.card), key=lambda t: -t.quality_permille)
    parts = [(t.name, step) for t in tiers if t.card for step in frontier(t.card.levels)]
    return sorted(parts, key=lambda part: -part[1].quality_permille)


def _fill(
    situation: Situation, parts: Sequence[tuple[str, Step]], capacities: Mapping[str, float], demand: float
) -> Fill:
    """`capacities`: replicas by tier, derated."""
    rates = [capacities[name] * step.rate for name, step in parts]
    return fill(demand, rates, [step.quality_permille for _, step in parts], situation.floor_permille)


def _served(situation: Situation, counts: Mapping[str, int], demand: float) -> dict[RouteName, float]:
    """Requests/s by route, of all tiers with a card: best tier first, and in it the best level."""
    tiers = sorted((t for t in situation.tiers if t.card), key=lambda t: -t.quality_permille)
    capacities = {t.name: counts.get(t.name, 0) * situation.settings.utilisation for t in tiers}
    parts = _parts(situation)
    outcome = _fill(situation, parts, capacities, demand)
    served: dict[RouteName, float] = {}
    for tier in tiers:
        steps, used = [], []
        for (name, step), rate in zip(parts, outcome.served, strict=True):
            if name == tier.name:
                steps.append(step)
                used.append(rate)
        by_level = split(steps, capacities[tier.name], used)
        served.update({(tier.name, p.name): by_level.get(p.name, 0.0) for p in tier.card.levels} if tier.card else {})
    return served


def _with_traces(situation: Situation, shares: RouteShares, opened: list[RouteName]) -> RouteShares:
    """Give each open route at least a trace of traffic, as far as the mean quality stays above the floor."""
    trace = situation.settings.open_weight
    small = [route for route in opened if shares[route] < trace]
    rest = {route: share for route, share in shares.items() if share > 0 and route not in small}
    total, given, mixed = sum(rest.values()), 0, {route: share / sum(rest.values()) for route, share in rest.items()}
    for route in small:
        scale = (1 - trace * (given + 1)) / total
        traces = {name: trace for name in mixed if name not in rest}
        trial = {**{name: share * scale for name, share in rest.items()}, **traces, route: trace}
        if _mean_quality(situation, trial) >= situation.floor_permille:
            mixed, given = trial, given + 1
    return mixed


def _in_points(situation: Situation, shares: RouteShares) -> RouteShares:
    """Whole per cents that sum to 1. What rounding leaves over goes to the best route: the mean never falls."""
    qualities = _qualities(situation)
    cents = {name: math.floor(share * _POINTS + 1e-9) for name, share in shares.items()}
    best = max((route for route in qualities if shares.get(route, 0) > 0), key=lambda route: qualities[route])
    cents[best] += _POINTS - sum(cents.values())
    return {route: cents.get(route, 0) / _POINTS for route in qualities}


def _all_on_best(situation: Situation, counts: Mapping[str, int], wanted: Mapping[str, int]) -> RouteShares:
    """No tier with a card serves: everything on the first one that does. Others are opened when no floor is set."""
    shares = dict.fromkeys(_qualities(situation), 0.0)
    tops = {tier: (tier, level) for tier, level in reversed(shares)}
    serving = [t for t in sorted(situation.tiers, key=lambda t: -t.quality_permille) if counts.get(t.name, 0) > 0]
    if not serving:
        return shares
    shares[tops[serving[0].name]] = 1.0
    if not situation.has_cards and not situation.model.spec.quality.floor_permille:
        others = [t.name for t in situation.tiers if t is not serving[0] and wanted.get(t.name, 0) > 0]
        trace = situation.settings.open_weight
        shares.update(dict.fromkeys((tops[name] for name in others), trace))
        shares[tops[serving[0].name]] = round(1.0 - trace * len(others), 2)
    return shares


def _qualities(situation: Situation) -> dict[RouteName, float]:
    """Quality (permille) of every route, tiers in the order of the spec, the best level first; 0 without a card."""
    routes: dict[RouteName, float] = {}
    for tier, spec in zip(situation.tiers, situation.model.spec.tiers, strict=True):
        if tier.card is None:
            routes[tier.name, top_of(spec).name] = 0.0
        else:
            routes.update({(tier.name, level.name): level.quality_permille for level in tier.card.levels})
    return routes


def _mean_quality(situation: Situation, shares: RouteShares) -> float:
    return sum(quality * shares.get(route, 0.0) for route, quality in _qualities(situation).items())


def _sum_in_points(shares: Iterable[float]) -> float:
    """The sum of whole per cents, without the noise of adding fractions."""
    return round(sum(shares) * _POINTS) / _POINTS


def _distance(one: RouteShares, other: RouteShares) -> float:
    return max((abs(one[name] - other[name]) for name in one), default=0.0)


def _rounded_up(requests_per_second: float) -> float:
    """To whole requests per 1000 s, as status keeps it."""
    return math.ceil(requests_per_second * 1000) / 1000
