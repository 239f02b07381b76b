"""The routes of a model: what routers can send a request to, one per tier, or per level of a nested tier.

Knows what the spec and the cards say of them; not their weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.levels import Level, levels_of, top_of
from adaptive_operator.observe.observation import ModelObservation, PodPhase

RouteName = tuple[str, str]  # tier, and its level ("" of a plain tier)


def build_routes(model: ModelObservation, written: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The routes of the spec, best first, and of tiers that left it and still have pods (as they were `written`)."""
    routes = [route for tier in tiers_by_quality(model.spec) for route in _tier_routes(tier)]
    routes.sort(key=lambda route: _rank(route["qualityPermille"]))
    known = {route["tier"] for route in routes}
    left = sorted({pod.tier for pod in model.pods if pod.phase is not PodPhase.TERMINATING} - known)
    for tier in left:
        before = [route for route in written if route["tier"] == tier]
        for old in before or [{}]:
            level, load = str(old.get("level", "")), float(old.get("load", 1.0))
            routes.append(_render_route(tier, level, old.get("qualityPermille"), old.get("mu"), load))
    return routes


def tiers_by_quality(spec: AdaptiveModelSpec) -> tuple[Tier, ...]:
    """Best quality first: by card; tiers without one follow, in the spec's order."""
    return tuple(sorted(spec.tiers, key=lambda tier: _rank(top_of(tier).quality_permille)))


def name_of(route: Mapping[str, Any]) -> RouteName:
    return str(route["tier"]), str(route.get("level", ""))


def _tier_routes(tier: Tier) -> list[dict[str, Any]]:
    """A route per level; a plain tier has one."""
    levels = levels_of(tier)
    return [
        _render_route(tier.name, level.name, level.quality_permille, level.requests_per_second, _load(levels[0], level))
        for level in levels
    ]


def _load(top: Level, level: Level) -> float:
    """What a request costs of a replica at this level, where one at the top level costs 1.

    Example: 2/s at int8 and 3/s at int4: a request at int4 costs 0.6667 of one at int8.
    """
    if not top.requests_per_second or not level.requests_per_second:
        return 1.0
    return round(top.requests_per_second / level.requests_per_second, 4) or 0.0001


def _render_route(tier: str, level: str, quality_permille: int | None, mu: float | None, load: float) -> dict[str, Any]:
    return {
        "tier": tier,
        "level": level,
        "qualityPermille": quality_permille,
        "mu": mu,
        "load": load,
        "weight": 0.0,
        "price": 0.0,
    }


def _rank(quality_permille: int | None) -> int:
    """Sorts the best quality first and the unknown ones last."""
    return 1 if quality_permille is None else -quality_permille
