"""What a replica of a nested tier serves beyond its top level: known cases, and no better way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.fill import fill
from adaptive_operator.decide.frontier import LevelPoint, frontier, split

CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "fixtures" / "contract.json").read_text())[
    "frontier"
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_steps_are_those_that_the_routers_take(case: dict[str, Any]) -> None:
    steps = frontier([LevelPoint(name, quality, mu) for name, quality, mu in case["levels"]])
    assert [(step.level.name, step.rate, step.quality_permille) for step in steps] == [
        (name, pytest.approx(rate), pytest.approx(quality)) for name, rate, quality in case["steps"]
    ]


points = st.lists(st.tuples(st.integers(0, 1000), st.floats(0.1, 50)), min_size=1, max_size=4).map(
    lambda found: [LevelPoint(f"l{i}", quality, rate) for i, (quality, rate) in enumerate(found)]
)
# Levels and replicas per tier, and some way to divide the replicas' time among their levels.
tiers_in_use = st.lists(
    st.tuples(points, st.integers(0, 4), st.lists(st.floats(0, 1), min_size=4, max_size=4)), min_size=1, max_size=3
)


@given(tiers_in_use, st.integers(0, 1000))
def test_no_other_division_of_the_replicas_time_serves_the_same_demand_better(
    tiers: list[tuple[list[LevelPoint], int, list[float]]], floor: int
) -> None:
    other = [
        (level.quality_permille, level.rate * replicas * part / max(sum(parts), 1.0))
        for levels, replicas, parts in tiers
        for level, part in zip(levels, parts, strict=False)
    ]
    demand = sum(rate for _, rate in other)
    if demand < 1e-3:
        return
    quality = sum(quality * rate for quality, rate in other) / demand
    steps = [(i, step) for i, (levels, _, _) in enumerate(tiers) for step in frontier(levels)]
    steps.sort(key=lambda part: -part[1].quality_permille)
    rates = [tiers[i][1] * step.rate for i, step in steps]
    outcome = fill(demand, rates, [step.quality_permille for _, step in steps], min(floor, quality - 1e-6))
    assert outcome.unserved <= 1e-6 * demand
    assert outcome.quality_permille >= quality - 1e-3
    for i, (levels, replicas, _) in enumerate(tiers):
        used = [rate for (j, _), rate in zip(steps, outcome.served, strict=True) if j == i]
        divided = split(frontier(levels), replicas, used)
        rate_of = {level.name: level.rate for level in levels}
        assert min(divided.values()) >= -1e-9
        assert sum(divided.values()) == pytest.approx(sum(used), abs=1e-6)
        assert sum(rate / rate_of[name] for name, rate in divided.items()) <= replicas + 1e-6
