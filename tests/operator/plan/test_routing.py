"""The routing table: weights, order, generations."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.decision import Decision
from adaptive_operator.observe.observation import ModelObservation
from adaptive_operator.plan.routes import tiers_by_quality
from adaptive_operator.plan.routing import RoutingTable, parse_written_table, plan_table
from tests.operator.plan.situations import (
    READY,
    STARTING,
    TERMINATING,
    demo_tiers,
    make_decision,
    make_model,
    make_spec,
    make_tier,
    with_set,
)

HYSTERESIS = 0.05


def plan(
    model: ModelObservation, decision: Decision, draining: frozenset[str] = frozenset(), text: str | None = None
) -> RoutingTable:
    return plan_table(model, decision, draining, parse_written_table(text), HYSTERESIS)


def serving(**phases: list[Any]) -> ModelObservation:
    model = make_model()
    for tier, of_tier in phases.items():
        model = with_set(model, tier, of_tier)
    return model


MIX = {"full": 1, "int8": 0, "int4": 1}
BOTH = serving(full=[READY], int4=[READY])


def test_routes_are_ordered_by_the_cards_best_quality_first() -> None:
    tiers = [make_tier("plain", "fp32", 1), make_tier("low", "int4", 1, 780), make_tier("high", "int8", 1, 998)]
    assert [tier.name for tier in tiers_by_quality(make_spec(tiers))] == ["high", "low", "plain"]


@pytest.mark.parametrize(
    ("model", "replicas", "weights", "draining", "expected"),
    [
        pytest.param(
            BOTH, MIX, {"full": 0.7, "int4": 0.3}, (), (0.7, 0.0, 0.3), id="the-planners-shares-of-ready-tiers"
        ),
        pytest.param(
            BOTH, MIX, {"full": 1.0}, (), (0.999, 0.0, 0.001), id="a-ready-tier-without-a-share-stays-open-by-a-hair"
        ),
        pytest.param(
            serving(full=[READY], int8=[STARTING], int4=[READY]),
            {"full": 0, "int8": 3, "int4": 1},
            {"full": 0.5, "int8": 0.3, "int4": 0.2},
            (),
            (0.714, 0.001, 0.285),
            id="the-share-of-a-tier-that-loads-goes-to-those-that-serve",
        ),
        pytest.param(
            BOTH,
            {"int4": 1},
            {"full": 0.7, "int4": 0.3},
            ("full-new-0",),
            (0.0, 0.0, 1.0),
            id="a-tier-whose-only-replica-drains-closes",
        ),
        pytest.param(
            serving(full=[READY, READY], int4=[READY]),
            {"full": 1, "int4": 1},
            {"full": 0.7, "int4": 0.3},
            ("full-new-1",),
            (0.7, 0.0, 0.3),
            id="a-tier-with-another-replica-stays-open",
        ),
        pytest.param(
            serving(full=[STARTING], int4=[STARTING]),
            MIX,
            {"full": 1.0},
            (),
            (0.999, 0.0, 0.001),
            id="nothing-is-ready-yet",
        ),
        pytest.param(make_model(), {}, {}, (), (0.0, 0.0, 0.0), id="nothing-is-left"),
        pytest.param(
            BOTH, MIX, {"int8": 1.0}, (), (0.999, 0.0, 0.001), id="no-share-for-any-that-serves-goes-to-the-best"
        ),
        pytest.param(
            serving(full=[READY], int4=[TERMINATING]),
            {"full": 1},
            {"full": 1.0},
            (),
            (1.0, 0.0, 0.0),
            id="what-ends-is-closed",
        ),
    ],
)
def test_weights(
    model: ModelObservation,
    replicas: dict[str, int],
    weights: dict[str, float],
    draining: tuple[str, ...],
    expected: tuple[float, ...],
) -> None:
    table = plan(model, make_decision(replicas or {"full": 0}, weights), frozenset(draining))
    assert tuple(table.weights[tier] for tier in ("full", "int8", "int4")) == expected


def test_a_hair_that_would_break_the_floor_is_not_given() -> None:
    spec = make_spec(quality={"floorPermille": 1000})
    model = replace(BOTH, spec=spec)
    assert plan(model, make_decision(MIX, {"full": 1.0})).weights == {"full": 1.0, "int8": 0.0, "int4": 0.0}


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.integers(0, 1000))
def test_weights_sum_to_one_and_rounding_never_lowers_the_quality_below_floor_or_plan(
    shares: list[float], floor: int
) -> None:
    weights = dict(zip(("full", "int8", "int4"), shares, strict=True))
    model = replace(serving(full=[READY], int8=[READY], int4=[READY]), spec=make_spec(quality={"floorPermille": floor}))
    table = plan(model, make_decision({"full": 1, "int8": 1, "int4": 1}, weights, granted=4))
    assert sum(table.weights.values()) == pytest.approx(1)
    assert min(table.weights.values()) >= 0
    if sum(shares) == 0:
        return
    quality = {"full": 1000, "int8": 998, "int4": 780}
    planned = sum(quality[tier] * share for tier, share in weights.items()) / sum(shares)
    assert sum(quality[tier] * share for tier, share in table.weights.items()) >= min(floor, planned) - 1e-6


def test_the_generation_stays_while_the_content_does_and_rises_by_one_when_it_changes() -> None:
    first = plan(BOTH, make_decision(MIX, {"full": 0.7, "int4": 0.3}))
    same = plan(BOTH, make_decision(MIX, {"full": 0.7, "int4": 0.3}), text=first.to_text(epoch=1))
    other = plan(BOTH, make_decision(MIX, {"full": 0.4, "int4": 0.6}), text=first.to_text(epoch=1))
    assert (first.generation, same.generation, other.generation) == (1, 1, 2)


def test_a_small_move_of_the_shares_is_not_written() -> None:
    first = plan(BOTH, make_decision(MIX, {"full": 0.7, "int4": 0.3}))
    text = first.to_text(epoch=1)
    assert plan(BOTH, make_decision(MIX, {"full": 0.66, "int4": 0.34}), text=text) == first
    assert plan(BOTH, make_decision(MIX, {"full": 0.64, "int4": 0.36}), text=text).weights["full"] == 0.64


def test_a_small_move_that_the_floor_needs_is_written() -> None:
    model = replace(BOTH, spec=make_spec(quality={"floorPermille": 934}))
    text = plan(model, make_decision(MIX, {"full": 0.68, "int4": 0.32})).to_text(epoch=1)
    assert plan(model, make_decision(MIX, {"full": 0.7, "int4": 0.3}), text=text).weights["full"] == 0.7


def test_a_lost_table_goes_on_above_what_routers_may_have_seen() -> None:
    assert plan(replace(BOTH, routing_generation=41), make_decision(MIX)).generation == 42


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "7",
        '{"epoch": 1}',
        '{"epoch": 1, "generation": "x"}',
        '{"epoch":1,"generation":2,"draining":3,"routes":[]}',
    ],
)
def test_a_table_that_cannot_be_read_counts_as_none(text: str | None) -> None:
    assert parse_written_table(text) is None


def test_a_tier_that_left_the_spec_keeps_its_route_while_it_serves() -> None:
    text = plan(BOTH, make_decision(MIX, {"full": 0.7, "int4": 0.3})).to_text(epoch=1)
    without_full = replace(BOTH, spec=make_spec(demo_tiers()[1:]))
    routes = json.loads(plan(without_full, make_decision({"int8": 0, "int4": 1}, {"int4": 1.0}), text=text).to_text(2))[
        "routes"
    ]
    assert [(route["tier"], route["qualityPermille"], route["weight"]) for route in routes] == [
        ("int8", 998, 0.0),
        ("int4", 780, 0.999),
        ("full", 1000, 0.001),
    ]


def test_without_cards_quality_capacity_and_reference_are_unknown_not_zero() -> None:
    model = make_model(make_spec([make_tier("full", "fp32", 1), make_tier("int4", "int4", 1)]))
    document = json.loads(plan(model, make_decision({"full": 1, "int4": 1})).to_text(epoch=1))
    assert document["reference"] is None
    assert [(route["qualityPermille"], route["mu"]) for route in document["routes"]] == [(None, None)] * 2


def nested_tier(**card: Any) -> dict[str, Any]:
    levels = [
        {"name": "int8", "qualityPermille": 998, "capacityMilliRequestsPerSecond": 600},
        {"name": "int4", "qualityPermille": 770, "capacityMilliRequestsPerSecond": 900},
    ]
    tier = make_tier("nested", "int8", 1)
    return {**tier, "recipe": {"nested": {"levels": ["int8", "int4"]}}, "card": card or {"levels": levels}}


def nested_model(floor: int = 0, tier: dict[str, Any] | None = None) -> ModelObservation:
    tiers = [make_tier("full", "fp32", 2, 1000), tier or nested_tier(), make_tier("int4", "int4", 1, 780)]
    model = make_model(make_spec(tiers, quality={"floorPermille": floor}))
    return with_set(with_set(model, "full", [READY]), "nested", [READY])


def routes_of(table: RoutingTable) -> list[tuple[Any, ...]]:
    return [(r["tier"], r["level"], r["load"], r["weight"]) for r in table.content["routes"]]


NESTED_MIX = {"full": 1, "nested": 1, "int4": 0}


def test_a_nested_tier_has_a_route_per_level_among_the_others_by_quality() -> None:
    decision = make_decision(NESTED_MIX, {"full": 0.6, "nested": 0.4}, levels={"nested": {"int8": 0.75, "int4": 0.25}})
    table = plan(nested_model(), decision)
    assert routes_of(table) == [
        ("full", "", 1.0, 0.6),
        ("nested", "int8", 1.0, 0.3),
        ("int4", "", 1.0, 0.0),
        ("nested", "int4", 0.6667, 0.1),
    ]
    assert table.weights == {"full": 0.6, "nested": 0.4, "int4": 0.0}


def test_a_level_without_a_card_is_closed_and_its_capacity_unknown() -> None:
    own = {"qualityPermille": 998, "capacityMilliRequestsPerSecond": 600}
    table = plan(nested_model(tier=nested_tier(**own)), make_decision(NESTED_MIX, {"full": 0.6, "nested": 0.4}))
    lower = next(route for route in table.content["routes"] if route["level"] == "int4")
    assert (lower["qualityPermille"], lower["mu"], lower["load"], lower["weight"]) == (None, None, 1.0, 0.0)
    assert table.weights["nested"] == 0.4


def test_a_move_between_levels_alone_is_written_when_it_means_something() -> None:
    def decided(top: float) -> Decision:
        levels = {"nested": {"int8": top, "int4": 1 - top}}
        return make_decision(NESTED_MIX, {"nested": 1.0}, levels=levels)

    first = plan(nested_model(), decided(0.9))
    text = first.to_text(epoch=1)
    assert plan(nested_model(), decided(0.88), text=text) == first
    moved = plan(nested_model(), decided(0.5), text=text)
    assert moved.generation == first.generation + 1
    assert moved.weights == first.weights


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 998))
def test_the_weights_of_levels_sum_to_that_of_their_tier_and_keep_the_quality(
    nested: float, top: float, floor: int
) -> None:
    decision = make_decision(
        NESTED_MIX, {"full": 1 - nested, "nested": nested}, levels={"nested": {"int8": top, "int4": 1 - top}}
    )
    table = plan(nested_model(floor), decision)
    quality = {("full", ""): 1000, ("nested", "int8"): 998, ("nested", "int4"): 770, ("int4", ""): 780}
    planned = (1 - nested) * 1000 + nested * (top * 998 + (1 - top) * 770)
    assert sum(table.routes.values()) == pytest.approx(1)
    assert min(table.routes.values()) >= 0
    served = sum(quality[route] * weight for route, weight in table.routes.items())
    assert served >= min(floor, planned) - 1e-3


def test_levels_of_a_tier_that_left_the_spec_keep_their_routes_while_it_serves() -> None:
    decision = make_decision(NESTED_MIX, {"nested": 1.0}, levels={"nested": {"int8": 0.6, "int4": 0.4}})
    text = plan(nested_model(), decision).to_text(epoch=1)
    left = replace(nested_model(), spec=make_spec([make_tier("full", "fp32", 2, 1000)]))
    table = plan(left, make_decision({"full": 1}), text=text)
    assert [(r["tier"], r["level"], r["mu"], r["load"]) for r in table.content["routes"]] == [
        ("full", "", 0.8, 1.0),
        ("nested", "int8", 0.6, 1.0),
        ("nested", "int4", 0.9, 0.6667),
    ]
