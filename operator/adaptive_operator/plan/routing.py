"""The routing table: what routers may send where. One JSON text in one key of a ConfigMap, so that a swap of it is
atomic.

The planner's shares are a start point: routers move them by their own arrivals and know readiness first hand. Prices
tell them which requests go where, when requests are unlike. A weight of 0 closes a route, so every tier that is not
going away stays open by a hair: else routers could not shed onto it. A nested tier has a route per level; its share is
divided as the decision says. `revisions` tells which StatefulSet's replicas have which levels, because those of an
earlier revision refuse the present one's. The generation is raised only when the content changes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from adaptive_operator import names
from adaptive_operator.api.routing import RequestSizes
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.decision import Decision
from adaptive_operator.observe.observation import ModelObservation, PodObservation, PodPhase
from adaptive_operator.plan.level_parts import divide_tiers
from adaptive_operator.plan.metadata import build_child, model_labels
from adaptive_operator.plan.routes import (
    RouteName,
    ServingSet,
    build_routes,
    name_of,
    serving_sets,
    tiers_by_quality,
)

SCHEMA_VERSION = 1
_Name = TypeVar("_Name", str, RouteName)


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """The table that routers have now."""

    epoch: int
    generation: int
    content: Mapping[str, Any]  # without epoch and generation
    draining: frozenset[str]
    routes: Mapping[RouteName, float]  # weights

    @property
    def weights(self) -> Mapping[str, float]:
        """By tier."""
        return _by_tier(self.routes)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """The table that routers should have."""

    generation: int
    content: Mapping[str, Any]
    routes: Mapping[RouteName, float]  # weights

    @property
    def weights(self) -> Mapping[str, float]:
        """By tier."""
        return _by_tier(self.routes)

    def to_text(self, epoch: int) -> str:
        """The JSON of `table.json`."""
        version = {"schemaVersion": SCHEMA_VERSION, "generation": self.generation, "epoch": epoch}
        return json.dumps({**version, **self.content}, separators=(",", ":"))


def parse_written_table(text: str | None) -> WrittenTable | None:
    """The table as written, or None when there is none or it cannot be read (edited by hand): it is written anew."""
    try:
        document = json.loads(text or "")
        version = (int(document.pop("epoch")), int(document.pop("generation")))
        document.pop("schemaVersion", None)
        draining = frozenset(str(uid) for uid in document["draining"])
        weights = {name_of(route): float(route["weight"]) for route in document["routes"]}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()):
        return None
    return WrittenTable(*version, document, draining, weights)


def plan_table(
    model: ModelObservation,
    decision: Decision,
    draining: Set[str],
    written: WrittenTable | None,
    hysteresis: float,
) -> RoutingTable:
    """The table for the decision's weights, corrected for drains and for tiers that cannot serve yet."""
    serving = serving_sets(model, written.content["routes"] if written else (), decision.factors)
    routes = build_routes(model, serving, decision.factors)
    parts = divide_tiers(routes, serving, decision, draining, written.routes if written else {})
    tiers = plan_weights(model, decision, routes, parts, draining)
    planned = _divide(tiers, parts)
    weights = _damp(planned, written, routes, model.spec, hysteresis)
    prices = _prices(model.spec, decision)
    lowest = min(prices.values(), default=0.0)  # of tiers without a card, and of those that left the spec
    content = {
        "model": model.name,
        "floorPermille": model.spec.quality.floor_permille,
        "slo": model.spec.slo.model_dump(mode="json", by_alias=True),
        "maxQueueSeconds": model.spec.routing.max_queue_seconds,
        "reference": _reference(model.spec),
        "routes": [
            {**route, "weight": weights[name_of(route)], "price": prices.get(route["tier"], lowest)} for route in routes
        ],
        "revisions": [_render_revision(item) for item in serving],
        "draining": sorted(draining),
    }
    return RoutingTable(_generation(model, written, content), content, weights)


def build_table_config_map(model: ModelObservation, table: RoutingTable, epoch: int) -> dict[str, Any]:
    """ConfigMap NAME-routing."""
    labels = model_labels(model.name, names.COMPONENT_ROUTING)
    body = {"data": {names.TABLE_KEY: table.to_text(epoch)}}
    return build_child(model, "v1", "ConfigMap", names.routing_table_name(model.name), labels, body)


def plan_weights(
    model: ModelObservation,
    decision: Decision,
    routes: list[dict[str, Any]],
    parts: Mapping[str, Mapping[str, float]],
    draining: Set[str],
) -> dict[str, float]:
    """Baseline share by tier: sums to 1, or all 0 when nothing is left to serve.

    Example: full Ready, int4 Ready with share 0, int8 still loading: full 0.998, int8 0.001, int4 0.001.
    """
    tiers = list(parts)
    open_tiers = [tier for tier in tiers if _is_open(model, decision, tier, draining)]
    serving = [tier for tier in open_tiers if any(_can_serve(pod, draining) for pod in _pods_of(model, tier))]
    shares = _normalise(decision.weights, serving or open_tiers)
    qualities = _tier_qualities(parts, routes)
    rounded = _round_shares(shares, open_tiers, qualities, model.spec.quality.floor_permille)
    return {tier: rounded.get(tier, 0.0) for tier in tiers}


def _by_tier(routes: Mapping[RouteName, float]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for (tier, _), weight in routes.items():
        weights[tier] = round(weights.get(tier, 0.0) + weight, 6)
    return weights


def _render_revision(serving: ServingSet) -> dict[str, Any]:
    return {"statefulSet": serving.name, "tier": serving.tier, "levels": [level.name for level in serving.levels]}


def _divide(weights: Mapping[str, float], parts: Mapping[str, Mapping[str, float]]) -> dict[RouteName, float]:
    """The tiers' weights as weights of their routes. What rounding takes off goes to the best level with a part."""
    divided: dict[RouteName, float] = {}
    for tier, weight in weights.items():
        best = next(name for name, part in parts[tier].items() if part > 0)
        levels = {name: math.floor(weight * part * 1e6) / 1e6 for name, part in parts[tier].items()}
        levels[best] = 0.0
        levels[best] = round(weight - sum(levels.values()), 6)
        divided.update({(tier, name): share for name, share in levels.items()})
    return divided


def _tier_qualities(parts: Mapping[str, Mapping[str, float]], routes: list[dict[str, Any]]) -> dict[str, float | None]:
    """Mean quality of what each tier serves; None where that of a level with a share is not known."""
    known = {name_of(route): route["qualityPermille"] for route in routes}
    return {
        tier: _mean_quality(
            {level: part for level, part in levels.items() if part > 0}, {level: known[tier, level] for level in levels}
        )
        for tier, levels in parts.items()
    }


def _prices(spec: AdaptiveModelSpec, decision: Decision) -> Mapping[str, float]:
    return decision.tier_prices if spec.routing.request_sizes is RequestSizes.PRICED else {}


def _reference(spec: AdaptiveModelSpec) -> dict[str, int] | None:
    """The request that the cards' capacities are measured in: of the first card that states it."""
    for tier in tiers_by_quality(spec):
        card = tier.card
        if card is not None and card.reference_prompt_tokens is not None and card.reference_output_tokens is not None:
            return {"promptTokens": card.reference_prompt_tokens, "outputTokens": card.reference_output_tokens}
    return None


def _pods_of(model: ModelObservation, tier: str) -> list[PodObservation]:
    return [pod for pod in model.pods if pod.tier == tier]


def _can_serve(pod: PodObservation, draining: Set[str]) -> bool:
    return pod.phase is PodPhase.READY and pod.uid not in draining


def _is_open(model: ModelObservation, decision: Decision, tier: str, draining: Set[str]) -> bool:
    """A tier closes when all that is left of it drains, or when nothing of it exists or is wanted."""
    pods = _pods_of(model, tier)
    if any(pod.uid not in draining and pod.phase is not PodPhase.TERMINATING for pod in pods):
        return True
    return decision.replicas.get(tier, 0) > 0 and not any(pod.uid in draining for pod in pods)


def _normalise(weights: Mapping[str, float], tiers: list[str]) -> dict[str, float]:
    """Shares over these tiers alone; the first (best) one takes all when the planner gave them nothing."""
    positive = {tier: weights.get(tier, 0.0) for tier in tiers if weights.get(tier, 0.0) > 0}
    total = sum(positive.values())
    if total > 0:
        return {tier: weight / total for tier, weight in positive.items()}
    return {tiers[0]: 1.0} if tiers else {}


def _round_shares(
    shares: Mapping[str, float], open_tiers: list[str], qualities: Mapping[str, float | None], floor: int
) -> dict[str, float]:
    """Thousandths that sum to 1. What rounding takes off goes to the best tier: the mean quality never falls by it."""
    if not shares:
        return {}
    best = next(tier for tier in open_tiers if tier in shares)
    others = {tier: math.floor(share * 1000) for tier, share in shares.items() if tier != best and share >= 0.001}
    rounded = _fill_best(best, others)
    for tier in open_tiers:
        if tier not in rounded:
            opened = _fill_best(best, {**others, tier: 1})
            if _keeps_floor(rounded, opened, qualities, floor):
                others, rounded = {**others, tier: 1}, opened
    return rounded


def _fill_best(best: str, others: Mapping[str, int]) -> dict[str, float]:
    """Give the best tier the rest of 1000, at least 1: then the largest other share pays."""
    thousandths = dict(others)
    missing = 1 - (1000 - sum(thousandths.values()))
    if missing > 0:
        thousandths[max(thousandths, key=lambda tier: thousandths[tier])] -= missing
    thousandths[best] = 1000 - sum(thousandths.values())
    return {tier: share / 1000 for tier, share in thousandths.items()}


def _keeps_floor(
    before: Mapping[_Name, float], after: Mapping[_Name, float], qualities: Mapping[_Name, float | None], floor: int
) -> bool:
    """Whether `after` does not push the mean quality below the floor. Unknown qualities are not judged."""
    old, new = _mean_quality(before, qualities), _mean_quality(after, qualities)
    return old is None or new is None or new >= min(floor, old) - 1e-9


def _mean_quality(weights: Mapping[_Name, float], qualities: Mapping[_Name, float | None]) -> float | None:
    mean = 0.0
    for name, weight in weights.items():
        quality = qualities.get(name)
        if quality is None:
            return None
        mean += weight * quality
    return mean


def _damp(
    weights: dict[RouteName, float],
    written: WrittenTable | None,
    routes: list[dict[str, Any]],
    spec: AdaptiveModelSpec,
    hysteresis: float,
) -> dict[RouteName, float]:
    """Keep the written weights while they say nearly the same: routers follow their own arrivals anyway."""
    if written is None or set(written.routes) != set(weights):
        return weights
    old = {route: written.routes[route] for route in weights}
    same_routes_open = all((old[route] > 0) == (weights[route] > 0) for route in weights)
    close = all(abs(old[route] - weights[route]) <= hysteresis + 1e-9 for route in weights)
    qualities = {name_of(route): route["qualityPermille"] for route in routes}
    if same_routes_open and close and _keeps_floor(weights, old, qualities, spec.quality.floor_permille):
        return old
    return weights


def _generation(model: ModelObservation, written: WrittenTable | None, content: Mapping[str, Any]) -> int:
    if written is not None:
        return written.generation if written.content == content else written.generation + 1
    recorded = model.status.routing_generation if model.status is not None else None
    return max(recorded or 0, model.routing_generation) + 1
