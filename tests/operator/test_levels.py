"""What a tier can serve, read from recipe and card."""

from __future__ import annotations

from typing import Any

import pytest

from adaptive_operator.api.tiers import Tier
from adaptive_operator.levels import Level, format_levels, levels_of, parse_levels, top_of

OWN = {"qualityPermille": 998, "capacityMilliRequestsPerSecond": 600}
INT8 = {"name": "int8", "qualityPermille": 990, "capacityMilliRequestsPerSecond": 500}
INT4 = {"name": "int4", "qualityPermille": 770, "capacityMilliRequestsPerSecond": 800}


def tier(recipe: dict[str, Any], card: dict[str, Any] | None) -> Tier:
    replica = {"accelerators": 1, "cpu": "1", "memory": "1Gi"}
    return Tier.model_validate({"name": "t", "recipe": recipe, "replica": replica, "card": card})


NESTED = {"nested": {"levels": ["int8", "int4"]}}


@pytest.mark.parametrize(
    ("recipe", "card", "expected"),
    [
        pytest.param({"precision": "bf16"}, OWN, [Level("", 998, 0.6)], id="a plain tier is its own only level"),
        pytest.param({"precision": "int8"}, None, [Level("", None, None)], id="without a card nothing is known"),
        pytest.param(
            NESTED,
            {"levels": [INT4, INT8]},
            [Level("int8", 990, 0.5), Level("int4", 770, 0.8)],
            id="levels come in the recipe's order",
        ),
        pytest.param(
            NESTED,
            {**OWN, "levels": [INT8, INT4]},
            [Level("int8", 998, 0.6), Level("int4", 770, 0.8)],
            id="the tier's own card is the top level's",
        ),
        pytest.param(
            NESTED, OWN, [Level("int8", 998, 0.6), Level("int4", None, None)], id="a level may be without a card"
        ),
        pytest.param(
            {"nested": {"levels": ["int8", "int4"], "depths": [30, 28, 24]}},
            None,
            [Level(n, None, None) for n in ("int8", "int8-d28", "int8-d24", "int4", "int4-d28", "int4-d24")],
            id="a level per precision and depth, the first depth unnamed",
        ),
    ],
)
def test_levels(recipe: dict[str, Any], card: dict[str, Any] | None, expected: list[Level]) -> None:
    levels = levels_of(tier(recipe, card))
    assert list(levels) == expected
    assert top_of(tier(recipe, card)) == levels[0]
    assert [level.is_known for level in levels] == [level.quality_permille is not None for level in levels]


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        pytest.param([Level("", 780, 0.65)], '[["",780,650]]', id="a plain tier"),
        pytest.param(
            [Level("int8", 998, 0.6), Level("int4", None, None)],
            '[["int8",998,600],["int4",null,null]]',
            id="a level of which nothing is known",
        ),
    ],
)
def test_levels_are_written_on_a_stateful_set_and_read_back(levels: list[Level], text: str) -> None:
    assert format_levels(levels) == text
    assert parse_levels(text) == tuple(levels)


@pytest.mark.parametrize("text", [None, "", "[]", "{", "7", '[["int8"]]', '[["int8",1001,600]]', '[["int8",998,0]]'])
def test_levels_that_cannot_be_read_are_not_known(text: str | None) -> None:
    assert parse_levels(text) is None
