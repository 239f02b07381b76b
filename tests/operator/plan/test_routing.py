"""The routing table: weights, order, generations."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.api.routing import RequestSizes
from adaptive_operator.decide.decision import Decision
from adaptive_operator.levels import Level
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
        '{"epoch":1e999,"generation":2,"draining":[],"routes":[]}',
        '{"epoch":1,"generation":2,"draining":[],"routes":[{"tier":"full","weight":NaN}]}',
        '{"epoch":1,"generation":2,"draining":[],"routes":[{"tier":"full","weight":-1}]}',
        "[" * 100_000,
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


PLAIN = (Level("", 1000, 0.8),)
TWO_LEVELS = (Level("int8", 990, 0.5), Level("int4", 700, 0.9))
HALVES = {"nested": {"int8": 0.5, "int4": 0.5}}


def edited(tier: dict[str, Any], earlier: tuple[Level, ...] | None, old: list[Any], new: list[Any]) -> ModelObservation:
    """A model whose only tier was edited: replicas of the earlier revision, and of the present one."""
    model = with_set(make_model(make_spec([tier])), "nested", old, revision="old", levels=earlier)
    return with_set(model, "nested", new) if new else model


def levels_in(table: RoutingTable) -> dict[str, tuple[int | None, float]]:
    return {route["level"]: (route["qualityPermille"], route["weight"]) for route in table.content["routes"]}


@pytest.mark.parametrize(
    ("tier", "earlier", "old", "new", "expected"),
    [
        pytest.param(
            nested_tier(),
            PLAIN,
            [READY],
            [],
            {"": (1000, 1.0)},
            id="before-a-replica-of-the-edit-there-are-no-new-levels",
        ),
        pytest.param(
            nested_tier(),
            PLAIN,
            [READY],
            [READY],
            {"": (1000, 0.5), "int8": (998, 0.25), "int4": (770, 0.25)},
            id="plain-to-nested-both-serve-at-their-own-levels",
        ),
        pytest.param(
            nested_tier(),
            PLAIN,
            [READY],
            [STARTING],
            {"": (1000, 0.5), "int8": (998, 0.25), "int4": (770, 0.25)},
            id="a-replica-that-loads-finds-its-levels-open-when-it-is-ready",
        ),
        pytest.param(
            nested_tier(),
            PLAIN,
            [TERMINATING],
            [READY],
            {"int8": (998, 0.5), "int4": (770, 0.5)},
            id="an-earlier-level-goes-with-its-last-replica",
        ),
        pytest.param(
            make_tier("nested", "int8", 1, 995),
            TWO_LEVELS,
            [READY],
            [READY],
            {"": (995, 0.5), "int8": (990, 0.5), "int4": (700, 0.0)},
            id="nested-to-plain",
        ),
        pytest.param(
            nested_tier(),
            (*TWO_LEVELS, Level("int4-d28", 600, 1.2)),
            [READY],
            [READY],
            {"int8": (990, 0.75), "int4": (700, 0.25), "int4-d28": (600, 0.0)},
            id="a-level-that-both-have-promises-the-worse-quality",
        ),
        pytest.param(
            make_tier("nested", "int8", 1, 998),
            (Level("", 780, 0.65),),
            [READY],
            [READY],
            {"": (780, 1.0)},
            id="a-better-plain-recipe-is-not-promised-while-worse-replicas-serve",
        ),
        pytest.param(
            make_tier("nested", "int8", 1, 998),
            (Level("", None, None),),
            [READY],
            [READY],
            {"": (None, 1.0)},
            id="nor-while-the-quality-of-some-replicas-is-not-known",
        ),
        pytest.param(
            nested_tier(),
            None,
            [READY],
            [READY],
            {"int8": (998, 0.5), "int4": (770, 0.5)},
            id="replicas-that-do-not-say-what-they-serve-count-as-the-specs",
        ),
    ],
)
def test_a_tier_under_edit_has_the_levels_of_its_replicas(
    tier: dict[str, Any],
    earlier: tuple[Level, ...] | None,
    old: list[Any],
    new: list[Any],
    expected: dict[str, tuple[int | None, float]],
) -> None:
    table = plan(edited(tier, earlier, old, new), make_decision({"nested": 1}, levels=HALVES))
    assert levels_in(table) == expected
    assert table.weights == {"nested": 1.0}


def test_the_table_says_which_stateful_set_has_which_levels() -> None:
    model = edited(nested_tier(), PLAIN, [READY], [READY])
    table = plan(model, make_decision({"nested": 1}, levels=HALVES))
    assert table.content["revisions"] == [
        {"statefulSet": model.stateful_sets[1].name, "tier": "nested", "levels": ["int8", "int4"]},
        {"statefulSet": "assistant-nested-old", "tier": "nested", "levels": [""]},
    ]


def test_levels_of_an_earlier_revision_go_on_as_they_were_divided() -> None:
    before = plan(edited(nested_tier(), None, [], [READY]), make_decision({"nested": 1}, levels=HALVES))
    model = edited(make_tier("nested", "int8", 1, 995), TWO_LEVELS, [READY], [READY])
    table = plan(model, make_decision({"nested": 1}), text=before.to_text(epoch=1))
    assert levels_in(table) == {"": (995, 0.5), "int8": (990, 0.25), "int4": (700, 0.25)}


def test_levels_of_an_earlier_revision_are_divided_as_decided_while_the_tier_goes_on_with_it() -> None:
    model = edited(make_tier("nested", "int8", 1, 995), TWO_LEVELS, [READY], [])
    old = next(item for item in model.stateful_sets if item.name == "assistant-nested-old")
    decision = make_decision({"nested": 1}, levels={"nested": {"int8": 0.75, "int4": 0.25}})
    held = replace(decision, held_back={"nested": old.tier_inputs})
    assert levels_in(plan(model, held)) == {"int8": (990, 0.75), "int4": (700, 0.25)}


def test_replicas_that_drain_have_no_part_of_the_share() -> None:
    model = edited(nested_tier(), PLAIN, [READY], [READY])
    table = plan(model, make_decision({"nested": 1}, levels=HALVES), frozenset({"nested-old-0"}))
    assert levels_in(table) == {"": (1000, 0.0), "int8": (998, 0.5), "int4": (770, 0.5)}


def test_an_edited_card_speaks_for_the_present_revision_at_once() -> None:
    model = with_set(make_model(make_spec([nested_tier()])), "nested", [READY], levels=TWO_LEVELS)
    assert levels_in(plan(model, make_decision({"nested": 1}, levels=HALVES))) == {
        "int8": (998, 0.5),
        "int4": (770, 0.5),
    }


@given(
    st.lists(st.sampled_from(["", "int8", "int4", "int4-d28"]), min_size=1, unique=True),
    st.integers(0, 3),
    st.integers(0, 3),
    st.floats(0, 1),
)
def test_weights_of_a_tier_under_edit_sum_to_one_and_no_level_is_without_replicas(
    earlier: list[str], old: int, new: int, top: float
) -> None:
    levels = tuple(Level(name, 900, 1.0) for name in earlier)
    model = edited(nested_tier(), levels, [READY] * old, [READY] * new)
    table = plan(model, make_decision({"nested": 1}, levels={"nested": {"int8": top, "int4": 1 - top}}))
    assert sum(table.routes.values()) == pytest.approx(1)
    assert min(table.routes.values()) >= 0
    had = (set(earlier) if old else set()) | ({"int8", "int4"} if new or not old else set())
    assert {level for _, level in table.routes} == had


def prices_of(table: RoutingTable) -> dict[str, float]:
    return {route["tier"]: route["price"] for route in table.content["routes"]}


def test_routers_are_told_the_prices_of_the_tiers() -> None:
    decision = replace(make_decision(MIX, {"full": 0.7, "int4": 0.3}), tier_prices={"full": 11.0, "int4": 10.78})
    assert prices_of(plan(BOTH, decision)) == {"full": 11.0, "int8": 10.78, "int4": 10.78}


def test_routers_are_told_no_prices_where_sizes_are_ignored() -> None:
    spec = BOTH.spec.model_copy(
        update={"routing": BOTH.spec.routing.model_copy(update={"request_sizes": RequestSizes.IGNORED})}
    )
    decision = replace(make_decision(MIX, {"full": 0.7, "int4": 0.3}), tier_prices={"full": 0.22, "int4": 0.0})
    assert set(prices_of(plan(replace(BOTH, spec=spec), decision)).values()) == {0.0}


def rates_of(table: RoutingTable) -> list[tuple[str, str, float, float]]:
    return [(r["tier"], r["level"], r["mu"], r["load"]) for r in table.content["routes"]]


def test_routers_get_the_rates_that_were_measured_and_not_those_of_the_cards() -> None:
    decision = make_decision(NESTED_MIX, {"full": 0.6, "nested": 0.4}, factors={"full": 0.75, "nested": 0.9})
    table = plan(nested_model(), decision)
    assert rates_of(table) == [
        ("full", "", 0.6, 1.0),
        ("nested", "int8", 0.54, 1.0),
        ("int4", "", 0.65, 1.0),
        ("nested", "int4", 0.81, 0.6667),
    ]
    assert plan(nested_model(), decision, text=table.to_text(epoch=1)) == table


def test_a_rate_that_only_the_last_table_tells_is_corrected_once() -> None:
    decision = make_decision({"nested": 1}, {"nested": 1.0}, factors={"nested": 0.5})
    own = edited(nested_tier(), None, [READY], [])
    text = plan(own, decision).to_text(epoch=1)
    again = plan(own, decision, text=text)
    assert rates_of(again) == rates_of(plan(own, decision, text=again.to_text(epoch=1)))
