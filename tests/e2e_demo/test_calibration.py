"""Capacity within the objective, from closed-loop records."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.demo.calibration import (
    ATTAINMENT_FACTOR,
    Level,
    Objective,
    capacity_within,
    measure_levels,
    scale_card,
    tokens_between,
)
from e2e.load.record import RequestRecord

OBJECTIVE = Objective(3.0, 0.3, 0.9)


def answer(first: float, last: float, tokens: int = 24, level: int = 0) -> RequestRecord:
    return RequestRecord(0, level, first, first, last, first, last, 200, tokens=tokens)


@given(st.floats(0, 50), st.floats(0.1, 20), st.integers(2, 100), st.lists(st.floats(0, 80), max_size=5))
def test_tokens_are_neither_lost_nor_counted_twice_by_cutting_time(
    first: float, length: float, tokens: int, cuts: list[float]
) -> None:
    edges = [-1.0, *sorted(cuts), 200.0]
    record = answer(first, first + length, tokens)
    parts = [tokens_between(record, a, b) for a, b in itertools.pairwise(edges)]
    assert sum(parts) == pytest.approx(tokens)


def test_a_request_without_token_counts_nothing() -> None:
    assert tokens_between(RequestRecord(0, 0, 0, 0, 1, error="HTTP 429"), 0, 10) == 0


def test_throughput_is_steady_tokens_over_the_middle_of_a_level() -> None:
    # two streams of 12 tokens/s each: 24 tokens/s = 1 reference request of 24 tokens per second
    records = [answer(start, start + 2, 24) for start in range(0, 20, 2) for _ in range(2)]
    (level,) = measure_levels(records, (2,), 20.0, 0.0, 24, OBJECTIVE)
    assert level.requests_per_second == pytest.approx(1.0, rel=0.01)
    assert level.meets


def test_a_level_that_is_too_slow_does_not_count() -> None:
    fast = [answer(i, i + 1, 24, 0) for i in range(10)]
    slow = [answer(10 + i, 20 + i, 24, 1) for i in range(10)]
    levels = measure_levels(fast + slow, (1, 10), 10.0, 0.0, 24, OBJECTIVE)
    assert [level.meets for level in levels] == [True, False]
    assert levels[1].requests_per_second > levels[0].requests_per_second * 0.5
    assert capacity_within(levels) == pytest.approx(levels[0].requests_per_second * ATTAINMENT_FACTOR)


def test_no_level_within_the_objective_is_unknown_not_zero() -> None:
    assert capacity_within([Level(2, 1.0, 9.0, 0.1, False)]) is None


def test_a_tier_that_was_not_measured_keeps_its_declared_ratio() -> None:
    assert scale_card(0.65, 0.65, 0.5) == pytest.approx(0.5)
    assert scale_card(1.3, 0.65, 0.5) == pytest.approx(1.0)


def test_a_level_without_answers_does_not_meet_the_objective() -> None:
    (level,) = measure_levels([answer(0, 4, level=1)], (2,), 5.0, 0.0, 24, OBJECTIVE)
    assert not level.meets
