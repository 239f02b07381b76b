"""Buckets, order of eviction and counts of the plan cache."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.kernels.step_plans import (
    PlanCache,
    PlanCounts,
    PlanKey,
    common_buckets,
    decoding_buckets,
    round_up_to_bucket,
)


@pytest.mark.parametrize(
    ("count", "limit", "bucket"),
    [(0, 8, 0), (1, 8, 1), (2, 8, 2), (3, 8, 4), (5, 8, 8), (8, 8, 8), (33, 48, 48), (5, 6, 6), (1, 1, 1)],
)
def test_a_count_is_rounded_up_to_a_power_of_two_within_the_limit(count, limit, bucket):
    assert round_up_to_bucket(count, limit) == bucket


@given(limit=st.integers(1, 600), data=st.data())
def test_a_bucket_holds_its_count_wastes_at_most_half_and_is_its_own_bucket(limit, data):
    count = data.draw(st.integers(0, limit))
    bucket = round_up_to_bucket(count, limit)
    assert count <= bucket <= limit
    assert bucket < 2 * max(count, 1)
    assert round_up_to_bucket(bucket, limit) == bucket


def test_a_step_beyond_what_was_reserved_is_refused():
    cache = PlanCache(lambda key: key, 8, 4)
    with pytest.raises(ValueError, match="9 exceeds the limit of 8"):
        cache.get(9, 1)


def test_steps_of_one_bucket_and_level_share_a_plan_and_others_do_not():
    built = []
    cache = PlanCache(lambda key: built.append(key) or object(), 64, 8)
    plan = cache.get(5, 3)
    assert cache.get(8, 4) is plan
    assert cache.get(4, 4) is not plan
    assert cache.get(8, 4, level=1) is not plan
    assert built == [PlanKey(8, 4), PlanKey(4, 4), PlanKey(8, 4, 1)]
    assert (cache.counts.hits, cache.counts.misses, cache.counts.evictions) == (1, 3, 0)


def test_the_plan_that_was_not_used_for_longest_goes_first():
    cache = PlanCache(lambda key: object(), 64, 64, capacity=2)
    one, two = cache.get(1, 1), cache.get(2, 2)
    assert cache.get(1, 1) is one
    cache.get(4, 4)
    assert cache.get(1, 1) is one
    assert cache.get(2, 2) is not two
    assert (cache.counts.evictions, len(cache)) == (2, 2)


def test_warming_counts_no_miss_and_never_evicts():
    cache = PlanCache(lambda key: key, 64, 8, capacity=3)
    cache.warm(common_buckets(64, 8))
    assert (len(cache), cache.counts.misses, cache.counts.evictions) == (3, 0, 0)
    cache.get(1, 1)
    assert cache.counts.hits == 1


def test_what_warming_leaves_out_is_counted_once_per_plan():
    cache = PlanCache(lambda key: key, 64, 8, capacity=3)
    keys = [PlanKey(size, size) for size in (8, 4, 2, 1)]
    cache.warm([*keys, keys[0], keys[3]])
    assert (len(cache), cache.counts.unwarmed, cache.counts.misses) == (3, 1, 0)
    cache.warm(keys[:3])
    assert cache.counts.unwarmed == 1
    cache.get(8, 8)
    assert cache.counts.hits == 1


def test_what_was_warmed_first_is_dropped_last():
    """A small batch that was left out must not cost the plan of the largest one."""
    keys = decoding_buckets(max_rows=64, max_sequences=8, levels=2)
    cache = PlanCache(lambda key: key, 64, 64, capacity=len(keys) - 2)
    cache.warm(keys)
    missed = keys[-2:]
    for key in missed:
        cache.get(key.rows, key.outputs, key.level)
    for key in keys[:-4]:
        cache.get(key.rows, key.outputs, key.level)
    assert (cache.counts.misses, cache.counts.evictions) == (len(missed), len(missed))


def test_decoding_is_warmed_at_the_largest_batches_first_at_every_level_of_it():
    """A large batch that waits for its plan stalls the most requests, and it comes at the worst time."""
    keys = decoding_buckets(max_rows=512, max_sequences=48, levels=2)
    assert [(key.rows, key.level) for key in keys[:4]] == [(64, 0), (64, 1), (32, 0), (32, 1)]
    assert [key.rows for key in keys[::2]] == [64, 32, 16, 8, 4, 2, 1]


@given(max_rows=st.integers(1, 600), max_outputs=st.integers(1, 600), levels=st.integers(1, 3))
def test_every_decoding_step_finds_its_plan_after_warming_as_far_as_the_cache_reaches(max_rows, max_outputs, levels):
    most = min(max_rows, max_outputs)
    keys = decoding_buckets(max_rows, most, levels)
    cache = PlanCache(lambda key: key, max_rows, max_rows, capacity=len(keys))
    cache.warm(keys)
    for level in range(levels):
        for count in range(1, most + 1):
            cache.get(count, count, level)
    assert (cache.counts.misses, cache.counts.unwarmed) == (0, 0)


def test_a_plan_that_cannot_be_built_is_not_kept_and_the_error_is_seen():
    answers = iter([RuntimeError("no memory"), "plan"])

    def build(key):
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    cache = PlanCache(build, 8, 8)
    with pytest.raises(RuntimeError, match="no memory"):
        cache.get(1, 1)
    assert cache.get(1, 1) == "plan"


def test_build_time_is_summed(monkeypatch):
    clock = iter([10.0, 10.5, 20.0, 20.25])
    monkeypatch.setattr("inference_pods.kernels.step_plans.time.perf_counter", lambda: next(clock))
    cache = PlanCache(lambda key: key, 8, 8)
    cache.get(1, 1)
    cache.warm([PlanKey(2, 2)])
    assert cache.counts == PlanCounts(hits=0, misses=1, evictions=0, build_seconds=0.75)


def test_a_cache_without_room_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        PlanCache(lambda key: key, 8, 8, capacity=0)


@given(
    steps=st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8), st.integers(0, 2)), max_size=60),
    capacity=st.integers(1, 12),
)
def test_every_step_is_a_hit_or_a_miss_and_the_bound_holds(steps, capacity):
    built = []
    cache = PlanCache(lambda key: built.append(key) or key, 64, 8, capacity)
    for rows, outputs, level in steps:
        plan = cache.get(rows, min(rows, outputs), level)
        assert plan.rows >= rows
        assert plan.outputs >= min(rows, outputs)
        assert plan.level == level
        assert len(cache) <= capacity
    assert cache.counts.hits + cache.counts.misses == len(steps)
    assert cache.counts.misses == len(built) == len(cache) + cache.counts.evictions


def test_the_common_buckets_are_the_batch_sizes_and_a_full_prompt_chunk():
    assert [(key.rows, key.outputs) for key in common_buckets(64, 6)] == [
        (1, 1), (2, 2), (4, 4), (6, 6), (64, 0), (64, 1), (64, 6),
    ]  # fmt: skip
    assert {key.level for key in common_buckets(64, 6, levels=2)} == {0, 1}
