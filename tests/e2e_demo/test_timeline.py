"""Events are found in what was measured, and stay None when they did not happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from e2e.demo.sample import Sample
from e2e.demo.timeline import find_baseline, find_timeline, most_held
from e2e.load.record import RequestRecord

Build = Callable[..., Any]
START = {"full": 1, "int4": 1}
SWAPPED = {"int8": 3, "int4": 1}


@pytest.fixture
def samples(sample: Build) -> list[Sample]:
    return [
        *(sample(at, START) for at in range(60)),
        *(sample(at, {"int8": 1, "int4": 1}, SWAPPED, swap_step="Starting") for at in range(62, 80)),
        *(sample(at, SWAPPED) for at in range(80, 170)),
        *(sample(at, SWAPPED, START, swap_step="Starting") for at in range(170, 185)),
        *(sample(at, START) for at in range(185, 230)),
    ]


@pytest.fixture
def records(record: Build) -> list[RequestRecord]:
    return [
        *(record(float(at)) for at in range(30)),
        *(record(float(at), "int4") for at in range(32, 185)),
        *(record(float(at)) for at in range(185, 230)),
    ]


def test_the_whole_story_is_found(samples: list[Sample], records: list[RequestRecord]) -> None:
    baseline = find_baseline(samples[:30], records[:30], "full")
    assert baseline is not None
    seen = find_timeline(samples, records, baseline, overload_at=30, fall_at=150)
    assert seen.shed_at == pytest.approx(32.5)
    assert (seen.swap_decided_at, seen.swapped_at, seen.restore_decided_at) == (62, 80, 170)
    # eight answers from full have ended by then: due 185..192, each 2.8 s long
    assert seen.restored_at == pytest.approx(195, abs=1)


def test_without_a_swap_nothing_counts_as_restored(sample: Build, records: list[RequestRecord]) -> None:
    steady = [sample(at, START) for at in range(230)]
    baseline = find_baseline(steady[:30], records[:30], "full")
    assert baseline is not None
    seen = find_timeline(steady, records, baseline, 30, 150)
    assert (seen.swap_decided_at, seen.swapped_at, seen.restored_at) == (None, None, None)


def test_replicas_that_are_back_do_not_count_while_cheap_tiers_still_answer(
    samples: list[Sample], records: list[RequestRecord], record: Build
) -> None:
    baseline = find_baseline(samples[:30], records[:30], "full")
    assert baseline is not None
    cheap = records[:183] + [record(float(at), "int4") for at in range(185, 230)]
    assert find_timeline(samples, cheap, baseline, 30, 150).restored_at is None


def test_a_restore_before_the_load_fell_is_counted_from_the_fall(
    samples: list[Sample], records: list[RequestRecord]
) -> None:
    baseline = find_baseline(samples[:30], records[:30], "full")
    assert baseline is not None
    seen = find_timeline(samples, records, baseline, 30, fall_at=210)
    assert seen.restored_at == 210


def test_there_is_no_baseline_when_the_best_tier_was_not_ready(sample: Build, record: Build) -> None:
    assert find_baseline([sample(0, {"int4": 1})], [record(0.0)], "full") is None
    assert find_baseline([sample(0, START)], [], "full") is None


def test_most_held_is_over_all_samples(sample: Build) -> None:
    assert most_held([sample(0, START), sample(1, START, held=5)]) == 5
    assert most_held([]) == 0
