"""Tier cards as the policy uses them, and the warm tier. Knows nothing of what runs.

A measured card will take the place of the declared one here, and only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adaptive_operator.api.tiers import Tier
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.frontier import LevelPoint, frontier
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.levels import Level, levels_of

DECLARED = "Declared"
CURVE = "Curve"  # the quality is declared, the rate follows from the tier's curve


@dataclass(frozen=True, slots=True)
class TierCard:
    """What is known of a tier: quality in permille of the full model, reference requests/s per replica, load time.

    Of a nested tier, quality and rate are those of its best level; `levels` has all that are known, the best first.
    """

    quality_permille: int
    requests_per_second: float
    load_seconds: float
    source: str
    levels: tuple[LevelPoint, ...]
    factor: float = 1.0  # that its rates were multiplied by, because of what was measured

    @property
    def most_requests_per_second(self) -> float:
        """Reference requests/s of a replica at its fastest level."""
        return max(level.rate for level in self.levels)


def card_of(tier: Tier, settings: DecideSettings, earlier: Sequence[Level] | None = None) -> TierCard | None:
    """The card of a tier, or None: then its capacity is unknown and it takes no part in decisions.

    `earlier`: what its replicas serve, where they are of a revision that the spec does not tell any more.
    """
    declared = tier.card.load_seconds if tier.card is not None else None
    load = settings.default_load_seconds if declared is None else float(declared)
    return card_of_levels(levels_of(tier) if earlier is None else earlier, load)


def card_of_levels(levels: Sequence[Level], load_seconds: float) -> TierCard | None:
    """The card of replicas that serve these levels, whatever the spec says; None where none of them has a rate."""
    known = _known_levels(levels)
    if not known:
        return None
    best = frontier(known)[0].level
    return TierCard(int(best.quality_permille), best.rate, load_seconds, DECLARED, known)


def horizon_seconds(spec: AdaptiveModelSpec, cards: Iterable[TierCard | None], settings: DecideSettings) -> float:
    """How far ahead a model's forecast looks: until what the next pass starts could serve, whichever tier it is."""
    loads = [card.load_seconds if card is not None else settings.default_load_seconds for card in cards]
    return max(loads) + (spec.scaling.planner_period_seconds or settings.planner_period_seconds)


def _known_levels(levels: Sequence[Level]) -> tuple[LevelPoint, ...]:
    """The best first; equal ones in the recipe's order."""
    known = [
        LevelPoint(level.name, level.quality_permille, level.requests_per_second)
        for level in levels
        if level.quality_permille is not None and level.requests_per_second is not None
    ]
    return tuple(sorted(known, key=lambda level: -level.quality_permille))


def warm_tier(
    spec: AdaptiveModelSpec,
    settings: DecideSettings,
    left_out: frozenset[str] = frozenset(),
    floor_permille: int | None = None,
) -> str | None:
    """The tier that keeps a replica so that load can be shed in seconds; None when no tier may run.

    `routing.warmTier`, else the tier with the fewest accelerators per replica, then per reference request/s, then the
    shortest load time, then the last in the list. Only tiers with a card count, when there are any, and of those only
    the ones that reach the quality floor (the spec's, or the one that is given), when there are any: one below it could
    serve nobody alone. One that is `left_out` counts where there is no other.
    """
    floor = spec.quality.floor_permille if floor_permille is None else floor_permille
    allowed = [t for t in spec.tiers if not (t.replicas and t.replicas.max == 0)]
    usable = [t for t in allowed if t.name not in left_out] or allowed
    named = next((t.name for t in usable if t.name == spec.routing.warm_tier), None)
    if named is not None or not usable:
        return named
    pool = [t for t in usable if t.card is not None] or usable
    pool = [t for t in pool if _reaches(t, floor, settings)] or pool
    position = {tier.name: index for index, tier in enumerate(spec.tiers)}

    def cost(tier: Tier) -> tuple[float, float, float, int]:
        card = card_of(tier, settings)
        units = tier.replica.accelerators
        per_request = units / card.most_requests_per_second if card else 0.0
        return (units, per_request, card.load_seconds if card else 0.0, -position[tier.name])

    return min(pool, key=cost).name


def _reaches(tier: Tier, floor_permille: int, settings: DecideSettings) -> bool:
    card = card_of(tier, settings)
    return card is not None and card.quality_permille >= floor_permille
