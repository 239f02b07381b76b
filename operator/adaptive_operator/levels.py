"""What a tier of the spec can serve: its levels by name, and what its declared card says of each.

A plain tier is its own only level, without a name. The levels of a StatefulSet stand in an annotation of it: once its
tier is edited, the spec no longer tells them. Pure; knows neither replicas nor load.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import Field, TypeAdapter, ValidationError

from adaptive_operator.api.card import DeclaredCard
from adaptive_operator.api.recipe import level_names
from adaptive_operator.api.tiers import Tier

_Row = tuple[str, Annotated[int, Field(ge=0, le=1000)] | None, Annotated[int, Field(ge=1)] | None]
_ROWS: Final = TypeAdapter(Annotated[list[_Row], Field(min_length=1)])


@dataclass(frozen=True, slots=True)
class Level:
    """One servable form of a tier. Quality in permille, reference requests/s of a replica that serves nothing else."""

    name: str  # "" for a plain tier
    quality_permille: int | None  # None: not known
    requests_per_second: float | None

    @property
    def is_known(self) -> bool:
        """Is there a card for it?"""
        return self.quality_permille is not None and self.requests_per_second is not None


def levels_of(tier: Tier) -> tuple[Level, ...]:
    """All levels of a tier in the recipe's order: the top first. Never empty."""
    names = ("",) if tier.recipe.nested is None else level_names(tier.recipe.nested)
    return (_top(names[0], tier.card), *(_level(name, tier.card) for name in names[1:]))


def with_rates(levels: Sequence[Level], factor: float) -> tuple[Level, ...]:
    """The same levels at their rates times a factor, to whole requests per 1000 s; not known ones stay so."""
    if factor == 1:
        return tuple(levels)
    return tuple(
        replace(level, requests_per_second=max(round(level.requests_per_second * factor, 3), 0.001))
        if level.requests_per_second is not None
        else level
        for level in levels
    )


def top_of(tier: Tier) -> Level:
    """The tier's top level: what its own card says, else its entry among the levels."""
    return levels_of(tier)[0]


def format_levels(levels: Sequence[Level]) -> str:
    """The annotation's text: `[["int8",998,600],["int4",null,null]]`, quality in permille and requests per 1000 s."""
    rows = [[level.name, level.quality_permille, _milli(level.requests_per_second)] for level in levels]
    return json.dumps(rows, separators=(",", ":"))


def parse_levels(text: str | None) -> tuple[Level, ...] | None:
    """Levels from an annotation; None when it is absent or cannot be read: they are not known."""
    try:
        rows = _ROWS.validate_json(text or "")
    except ValidationError:
        return None
    return tuple(Level(name, quality, milli / 1000 if milli else None) for name, quality, milli in rows)


def _milli(rate: float | None) -> int | None:
    return None if rate is None else round(rate * 1000)


def _top(name: str, card: DeclaredCard | None) -> Level:
    if card is None or card.quality_permille is None or card.capacity_milli_requests_per_second is None:
        return _level(name, card)
    return Level(name, card.quality_permille, card.capacity_milli_requests_per_second / 1000)


def _level(name: str, card: DeclaredCard | None) -> Level:
    entry = next((item for item in card.levels if item.name == name), None) if card is not None else None
    if entry is None:
        return Level(name, None, None)
    milli = entry.capacity_milli_requests_per_second
    return Level(name, entry.quality_permille, None if milli is None else milli / 1000)
