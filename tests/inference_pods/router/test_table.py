"""The routing table at the border: what is accepted, what is refused by name, which of two is newer."""

from __future__ import annotations

import json
import math

import pytest

from inference_pods.router.table import UNKNOWN_REPLICA_LIMIT, RouteKey, TableError, parse_table


def parse(tools, **changes):
    return parse_table(json.dumps(tools.build_table(**changes)), "assistant")


def test_a_table_as_the_operator_writes_it_is_understood(tools):
    table = parse(tools, generation=12, epoch=3, draining=["uid-1"], unknownFieldOfTheFuture=1)
    assert table.version == (3, 12)
    assert table.tiers() == ("full", "int8", "int4")
    assert table.floor_permille == 750
    assert table.draining == {"uid-1"}
    assert table.revisions == {}
    assert table.routes[2].key == RouteKey("int4")
    assert table.latency_seconds == pytest.approx(1.0 + 10 * 0.1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schemaVersion": 2}, "schemaVersion 2"),
        ({"model": "other"}, "other"),
        ({"routes": []}, "routes"),
        ({"generation": -1}, "generation"),
        ({"floorPermille": 1001}, "floorPermille"),
        ({"routes": [{"tier": "a", "weight": 1}, {"tier": "a", "weight": 1}]}, "twice"),
        ({"routes": [{"tier": "a", "weight": -1}]}, "weight"),
        ({"routes": [{"tier": "a", "weight": 1, "mu": 0}]}, "mu"),
        ({"routes": [{"tier": "a", "weight": float("nan")}]}, "weight"),
        ({"maxQueueSeconds": None}, "maxQueueSeconds"),
        ({"revisions": [{"statefulSet": "m-full-1", "levels": []}]}, "revisions.0.levels"),
    ],
)
def test_a_bad_table_is_refused_by_the_name_of_its_field(tools, changes, named):
    with pytest.raises(TableError, match=named):
        parse(tools, **changes)


def test_a_table_says_which_stateful_set_has_which_levels(tools):
    revisions = [
        {"statefulSet": "m-a-1", "tier": "a", "levels": [""]},
        {"statefulSet": "m-a-2", "tier": "a", "levels": ["int8", "int4"]},
    ]
    assert parse(tools, revisions=revisions).revisions == {"m-a-1": {""}, "m-a-2": {"int8", "int4"}}


def test_text_that_is_not_json_is_refused():
    with pytest.raises(TableError):
        parse_table("{", "assistant")


@pytest.mark.parametrize(
    ("version", "other", "newer"),
    [((1, 2), (1, 1), True), ((1, 1), (1, 1), False), ((1, 9), (2, 1), False), ((2, 1), (1, 9), True)],
)
def test_epoch_beats_generation(tools, version, other, newer):
    first = parse(tools, epoch=version[0], generation=version[1])
    second = parse(tools, epoch=other[0], generation=other[1])
    assert first.is_newer_than(second) is newer
    assert first.is_newer_than(None)


@pytest.mark.parametrize(
    ("mu", "slo", "limit"),
    [
        (0.8, {"ttftMilliseconds": 3000, "tpotMilliseconds": 300}, 5),
        (0.01, {"ttftMilliseconds": 3000, "tpotMilliseconds": 300}, 1),
        (50.0, {"ttftMilliseconds": 1000, "tpotMilliseconds": 100}, 100),
        (None, {"ttftMilliseconds": 3000, "tpotMilliseconds": 300}, UNKNOWN_REPLICA_LIMIT),
        (0.8, None, UNKNOWN_REPLICA_LIMIT),
    ],
)
def test_a_replica_holds_what_it_can_finish_in_time(tools, mu, slo, limit):
    table = parse(tools, slo=slo, routes=[{"tier": "full", "weight": 1, "mu": mu}])
    assert table.replica_limit(table.routes[0]) == limit


def test_the_objective_says_how_many_may_start_and_how_many_decode_at_once(tools):
    slo = {"ttftMilliseconds": 3000, "tpotMilliseconds": 300}
    table = parse(tools, slo=slo, routes=[{"tier": "full", "weight": 1, "mu": 2.0}, {"tier": "int4", "weight": 1}])
    known, unknown = table.routes
    assert table.first_token_capacity(known) == pytest.approx(2.0 * 3)
    assert table.decoding_capacity(known) == pytest.approx(2.0 * 10 * 0.3)
    assert (table.first_token_capacity(unknown), table.decoding_capacity(unknown)) == (math.inf, math.inf)
