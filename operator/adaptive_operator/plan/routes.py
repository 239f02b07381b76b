"""The routes of the routing table: a line per thing that routers can send a request to, ordered by quality.

The routes of a tier are the levels that its replicas have, whatever revision they are of: while an edit of the recipe
is carried out, replicas of both recipes serve, each at its own levels. Knows what the cards say of them; not their
weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.revisions import tier_inputs
from adaptive_operator.levels import Level, levels_of, top_of, with_rates
from adaptive_operator.observe.observation import ModelObservation, PodPhase, StatefulSetObservation

RouteName = tuple[str, str]  # tier, and its level ("" of a plain tier)


@dataclass(frozen=True, slots=True)
class ServingSet:
    """A StatefulSet with replicas that are not on their way out: what they serve, the top level first."""

    name: str
    tier: str
    levels: tuple[Level, ...]
    pods: frozenset[str]  # uids
    is_present: bool  # serves what the spec says of its tier
    inputs: str = ""  # that its revision was made from; empty: its StatefulSet is gone


def serving_sets(
    model: ModelObservation, written: Sequence[Mapping[str, Any]], factors: Mapping[str, float]
) -> tuple[ServingSet, ...]:
    """By tier and name. `written`: routes of the last table, which remember tiers that left the spec.

    `factors`: of tiers whose cards are corrected by what was measured; the rates of the sets are.
    """
    pods: dict[RouteName, set[str]] = {}
    for pod in model.pods:
        if pod.phase is not PodPhase.TERMINATING:
            pods.setdefault((pod.tier, pod.stateful_set), set()).add(pod.uid)
    sets = {item.name: item for item in model.stateful_sets}
    tiers = {tier.name: tier for tier in model.spec.tiers}
    return tuple(
        _serving_set(
            model.spec, tiers.get(tier), tier, name, sets.get(name), frozenset(uids), written, factors.get(tier, 1.0)
        )
        for (tier, name), uids in sorted(pods.items())
    )


def build_routes(
    model: ModelObservation, serving: Sequence[ServingSet], factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Those of the spec's tiers, best first, then those of tiers that left it and still have replicas.

    `factors`: as in `serving_sets`.
    """
    routes = [
        route
        for tier in tiers_by_quality(model.spec)
        for route in _merge_routes(tier.name, [item.levels for item in serving if item.tier == tier.name])
        or _level_routes(tier.name, with_rates(levels_of(tier), factors.get(tier.name, 1.0)))
    ]
    routes.sort(key=_rank)
    for tier in sorted({item.tier for item in serving} - {tier.name for tier in model.spec.tiers}):
        routes += _merge_routes(tier, [item.levels for item in serving if item.tier == tier])
    return routes


def tiers_by_quality(spec: AdaptiveModelSpec) -> tuple[Tier, ...]:
    """Best quality first: by card; tiers without one follow, in the spec's order."""
    return tuple(sorted(spec.tiers, key=lambda tier: _order(top_of(tier).quality_permille)))


def name_of(route: Mapping[str, Any]) -> RouteName:
    return str(route["tier"]), str(route.get("level", ""))


def _serving_set(
    spec: AdaptiveModelSpec,
    tier: Tier | None,
    tier_name: str,
    name: str,
    observed: StatefulSetObservation | None,
    pods: frozenset[str],
    written: Sequence[Mapping[str, Any]],
    factor: float,
) -> ServingSet:
    """What it says of itself, unless it is made from the spec of today: its card may have been edited since.

    What stands in the last table is corrected already.
    """
    earlier, inputs = (observed.levels, observed.tier_inputs) if observed is not None else (None, "")
    if tier is not None and (earlier is None or observed is None or inputs == tier_inputs(spec, tier)):
        return ServingSet(name, tier_name, with_rates(levels_of(tier), factor), pods, True, inputs)
    levels = with_rates(earlier, factor) if earlier else _written_levels(tier_name, written)
    return ServingSet(name, tier_name, levels, pods, False, inputs)


def _written_levels(tier: str, written: Iterable[Mapping[str, Any]]) -> tuple[Level, ...]:
    """What the last table says of a tier, for replicas that an older operator made and that say nothing themselves."""
    routes = [route for route in written if route["tier"] == tier]
    levels = [Level(str(r.get("level", "")), r.get("qualityPermille"), r.get("mu")) for r in routes]
    return tuple(levels) or (Level("", None, None),)


def _merge_routes(tier: str, revisions: Iterable[Sequence[Level]]) -> list[dict[str, Any]]:
    """A route per level that any revision has. One that several have promises no more than the worst of them."""
    merged: dict[str, dict[str, Any]] = {}
    for levels in revisions:
        for route in _level_routes(tier, levels):
            other = merged.setdefault(route["level"], route)
            merged[route["level"]] = max(other, route, key=_rank)
    return list(merged.values())


def _level_routes(tier: str, levels: Sequence[Level]) -> list[dict[str, Any]]:
    return [
        {
            "tier": tier,
            "level": level.name,
            "qualityPermille": level.quality_permille,
            "mu": level.requests_per_second,
            "load": _load(levels[0], level),
            "weight": 0.0,
            "price": 0.0,
        }
        for level in levels
    ]


def _load(top: Level, level: Level) -> float:
    """What a request costs of a replica at this level, where one at the top level costs 1.

    Example: 2/s at int8 and 3/s at int4: a request at int4 costs 0.6667 of one at int8.
    """
    if not top.requests_per_second or not level.requests_per_second:
        return 1.0
    return round(top.requests_per_second / level.requests_per_second, 4) or 0.0001


def _rank(route: Mapping[str, Any]) -> int:
    return _order(route["qualityPermille"])


def _order(quality_permille: int | None) -> int:
    """Sorts the best quality first and the unknown ones last."""
    return 1 if quality_permille is None else -quality_permille
