"""The smooth choice of a tier and the least-loaded choice of a replica."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.endpoints import Replica
from inference_pods.router.pick import ReplicaBook, ReplicaLimits, SmoothChoice
from inference_pods.router.shares import SharePlan
from inference_pods.router.table import RouteKey

A, B, C = RouteKey("a"), RouteKey("b"), RouteKey("c")


def draw(choice, keys, plan, count):
    picked = []
    for _ in range(count):
        key = choice.peek(keys, plan)
        choice.charge(key, keys, plan)
        picked.append(key)
    return picked


def test_turns_are_spread_rather_than_bunched():
    assert draw(SmoothChoice(), [A, B], SharePlan({A: 0.75, B: 0.25}), 8) == [A, A, B, A, A, A, B, A]


def test_without_shares_the_best_takes_the_turn():
    assert draw(SmoothChoice(), [A, B], SharePlan(), 3) == [A, A, A]


def test_looking_does_not_take_a_turn():
    choice, plan = SmoothChoice(), SharePlan({A: 0.5, B: 0.5})
    assert {choice.peek([A, B], plan) for _ in range(5)} == {A}


def test_a_request_that_may_use_only_some_tiers_takes_turns_among_those():
    plan = SharePlan({A: 0.5, B: 0.3, C: 0.2})
    picked = draw(SmoothChoice(), [A, B], plan, 80)
    assert picked.count(A) == pytest.approx(50, abs=1)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(1, 200))
def test_every_tier_gets_its_share_to_within_one_turn_per_tier(weights, count):
    total = sum(weights)
    keys = [RouteKey(str(i)) for i in range(len(weights))]
    plan = SharePlan({key: weight / total for key, weight in zip(keys, weights, strict=True)})
    picked = draw(SmoothChoice(), keys, plan, count)
    for key in keys:
        assert abs(picked.count(key) - plan.of(key) * count) <= len(keys)


def replicas(*names):
    return [Replica(name, "full", f"http://{name}") for name in names]


def test_the_least_loaded_replica_is_chosen_and_equals_take_turns():
    book, (a, b) = ReplicaBook(), replicas("a", "b")
    order = []
    for _ in range(4):
        chosen = book.least_loaded([a, b], ReplicaLimits(9), 0.0)
        book.start(chosen, streams=False)
        order.append(chosen.uid)
    assert order == ["a", "b", "a", "b"]
    book.finish(b, streams=False, awaiting=False)
    assert book.least_loaded([a, b], ReplicaLimits(9), 0.0) == b


def test_idle_replicas_take_turns_too():
    book, pool = ReplicaBook(), replicas("a", "b", "c")
    order = []
    for _ in range(6):
        chosen = book.least_loaded(pool, ReplicaLimits(9), 0.0)
        book.start(chosen, streams=False)
        book.finish(chosen, streams=False, awaiting=False)
        order.append(chosen.uid)
    assert order == ["a", "b", "c"] * 2


def test_a_full_replica_has_no_room():
    book, (a,) = ReplicaBook(), replicas("a")
    book.start(a, streams=False)
    assert book.least_loaded([a], ReplicaLimits(1), 0.0) is None
    assert book.least_loaded([a], ReplicaLimits(2), 0.0) == a


def test_a_failing_replica_is_left_alone_for_longer_each_time_and_returns():
    book, (a, b) = ReplicaBook(), replicas("a", "b")
    book.put_aside(a, 0.0)
    book.start(b, streams=False)
    assert book.least_loaded([a, b], ReplicaLimits(9), 0.9) == b
    assert book.least_loaded([a, b], ReplicaLimits(9), 1.1) == a
    book.put_aside(a, 2.0)
    assert book.is_aside(a, 3.9)
    assert not book.is_aside(a, 4.1)
    book.mark_healthy(a)
    book.put_aside(a, 10.0)
    assert not book.is_aside(a, 11.1)


def test_when_all_are_failing_they_are_tried_anyway():
    book, (a, b) = ReplicaBook(), replicas("a", "b")
    book.put_aside(a, 0.0)
    book.put_aside(b, 0.0)
    assert book.least_loaded([a, b], ReplicaLimits(9), 0.5) is not None


def test_a_failing_replica_is_not_bothered_because_the_healthy_one_is_full():
    book, (a, b) = ReplicaBook(), replicas("a", "b")
    book.put_aside(a, 0.0)
    book.start(b, streams=False)
    assert book.least_loaded([a, b], ReplicaLimits(1), 0.5) is None


def test_avoided_replicas_are_never_chosen():
    book, (a, b) = ReplicaBook(), replicas("a", "b")
    assert book.least_loaded([a, b], ReplicaLimits(9), 0.0, {"a"}) == b
    assert book.least_loaded([a, b], ReplicaLimits(9), 0.0, {"a", "b"}) is None


def test_a_replica_that_is_gone_is_forgotten_when_its_last_stream_ends():
    book, (a, b) = ReplicaBook(), replicas("a", "b")
    book.start(a, streams=False)
    book.keep_only({"b"})
    assert book.in_flight(a) == 1
    book.finish(a, streams=False, awaiting=False)
    book.keep_only({"b"})
    assert book.in_flight(a) == 0
    assert book.in_flight(b) == 0


def test_streams_without_their_first_token_are_the_replicas_queue():
    book, (a,), limits = ReplicaBook(), replicas("a"), ReplicaLimits(9, queued=2)
    for _ in range(2):
        book.start(a, streams=True)
    assert book.queued(a, limits) == 2
    assert book.least_loaded([a], limits, 0.0) is None
    book.note_first_token(a)
    assert book.least_loaded([a], limits, 0.0) == a
    book.finish(a, streams=True, awaiting=True)  # one that never had it
    book.finish(a, streams=True, awaiting=False)
    assert (book.queued(a, limits), book.in_flight(a)) == (0, 0)


def test_whole_answers_queue_beyond_those_that_a_replica_decodes_at_once():
    book, (a,), limits = ReplicaBook(), replicas("a"), ReplicaLimits(9, queued=2, decoding=3)
    for _ in range(4):
        assert book.least_loaded([a], limits, 0.0) == a
        book.start(a, streams=False)
    assert book.queued(a, limits) == 1
    book.start(a, streams=False)
    assert book.least_loaded([a], limits, 0.0) is None


def test_streams_that_have_started_are_never_a_queue_however_many():
    book, (a,), limits = ReplicaBook(), replicas("a"), ReplicaLimits(99, queued=2, decoding=3)
    for _ in range(20):
        book.start(a, streams=True)
        book.note_first_token(a)
    assert book.queued(a, limits) == 0
    book.start(a, streams=False)
    assert book.queued(a, limits) == 1


def test_requests_at_a_lower_level_take_less_of_a_replica_and_leave_nothing_behind():
    book, (a,) = ReplicaBook(), replicas("a")
    for _ in range(3):
        assert book.least_loaded([a], ReplicaLimits(1), 0.0) == a
        book.start(a, streams=True, load=0.34)
    assert book.least_loaded([a], ReplicaLimits(1), 0.0) is None
    for _ in range(3):
        book.note_first_token(a, load=0.34)
        book.finish(a, streams=True, awaiting=False, load=0.34)
    assert (book.in_flight(a), book.queued(a, ReplicaLimits(1))) == (0, 0)
