"""How a tier's share of the requests is divided among its levels.

The replicas of the revision that was decided on divide theirs as decided: the spec's, or the earlier one that a tier
goes on with. Those of any other revision go on as the last table had it: the decision does not know their levels.
Knows neither tiers' shares nor quality.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from adaptive_operator.decide.decision import Decision
from adaptive_operator.plan.routes import RouteName, ServingSet, name_of


def divide_tiers(
    routes: Iterable[Mapping[str, Any]],
    serving: Sequence[ServingSet],
    decision: Decision,
    draining: Set[str],
    written: Mapping[RouteName, float],
) -> dict[str, dict[str, float]]:
    """Parts by tier and level, in the order of the routes; those of a tier sum to 1.

    `written`: the last table's weights.

    Example: one replica of plain weights goes, one of int8 and int4 comes, and int4 has a quarter of what the tier
    serves: {"": 0.5, "int8": 0.375, "int4": 0.125}.
    """
    levels: dict[str, list[str]] = {}
    for tier, level in map(name_of, routes):
        levels.setdefault(tier, []).append(level)
    return {
        tier: _divide_tier(tier, names, [item for item in serving if item.tier == tier], decision, draining, written)
        for tier, names in levels.items()
    }


def _divide_tier(
    tier: str,
    levels: Sequence[str],
    serving: Sequence[ServingSet],
    decision: Decision,
    draining: Set[str],
    written: Mapping[RouteName, float],
) -> dict[str, float]:
    """Each revision's levels get as much as it has of the replicas that stay."""
    if not serving:
        return _normalise(levels, decision.levels.get(tier, {}))
    staying = {item.name: len(item.pods - draining) for item in serving}
    total = sum(staying.values())
    if not total:
        staying, total = {item.name: 1 for item in serving}, len(serving)
    parts = dict.fromkeys(levels, 0.0)
    for item in serving:
        for level, part in _divide_revision(item, decision, written).items():
            parts[level] += part * staying[item.name] / total
    return parts


def _divide_revision(serving: ServingSet, decision: Decision, written: Mapping[RouteName, float]) -> dict[str, float]:
    names = [level.name for level in serving.levels]
    before = {name: written.get((serving.tier, name), 0.0) for name in names}
    return _normalise(names, decision.levels.get(serving.tier, {}) if _is_decided(serving, decision) else before)


def _is_decided(serving: ServingSet, decision: Decision) -> bool:
    """Is it of the revision that the decision is about?"""
    held_back = decision.held_back.get(serving.tier)
    return serving.is_present if held_back is None else serving.inputs == held_back


def _normalise(names: Sequence[str], shares: Mapping[str, float]) -> dict[str, float]:
    """As `shares` say, else all for the top level."""
    total = sum(shares.get(name, 0.0) for name in names)
    if total <= 0:
        return {name: float(index == 0) for index, name in enumerate(names)}
    return {name: shares.get(name, 0.0) / total for name in names}
