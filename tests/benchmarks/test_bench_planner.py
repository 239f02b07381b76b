from dataclasses import replace

import pytest

from adaptive_operator.decide.optimize.solve import solve
from benchmarks.bench_planner import COLD, Sample, describe, percentile, render
from benchmarks.planner_pools import ACCELERATORS, TIERS, build_pool, changed_keys, move_on


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 1.0), (20, 19.0), (100, 95.0)], ids=["one value", "twenty", "a hundred"]
)
def test_the_95th_percentile_is_the_nearest_rank(count, expected):
    assert percentile([float(n) for n in range(count, 0, -1)], 0.95) == expected


def test_the_same_seed_gives_the_same_pool_with_every_tier_on_every_accelerator_that_holds_it():
    pool = build_pool(3, 50, 1.6)

    assert pool == build_pool(3, 50, 1.6)
    assert pool != build_pool(4, 50, 1.6)
    assert max(len(model.columns) for model in pool.models) == len(TIERS) * len(ACCELERATORS)
    assert all(column.accelerators in (1, 2, 4, 8) for model in pool.models for column in model.columns)


def test_stress_is_what_full_tiers_would_need_over_what_there_is():
    loose, tight = (sum(limit.accelerators for limit in build_pool(1, 80, stress).limits) for stress in (1.0, 2.0))

    assert tight == pytest.approx(loose / 2, rel=0.05)


def test_a_period_later_the_plan_runs_and_a_tenth_of_the_demands_have_moved():
    pool = build_pool(2, 60, 1.6)
    plan = solve(pool)
    later = move_on(pool, plan.counts, plan.prices, seed=9, share=0.1)

    assert later.present == dict(plan.counts)
    assert later.prices == plan.prices
    assert 0 < len(changed_keys(pool, later)) < 20


def test_a_plan_is_described_by_what_it_serves_and_starts():
    pool = build_pool(2, 3, 1.6)
    plan = solve(pool)
    sample = describe(COLD, 1.6, 2, 0.5, pool, plan)

    assert (sample.started, sample.seconds, sample.method) == (1.0, 0.5, plan.method.value)
    assert 0 <= sample.unserved < 1
    assert 0.9 <= sample.quality <= 1
    again = move_on(pool, plan.counts, plan.prices, seed=0, share=0.0)
    assert describe(COLD, 1.6, 2, 0.5, again, solve(again)).started == 0.0


def test_a_figure_beyond_its_limit_is_reported_as_missed():
    sample = Sample(COLD.name, 1.6, 0, 1.0, 0.001, 0.0, 0.99, 1.0, "Master")

    assert "| met |" in render([sample])
    assert "| **missed** |" in render([replace(sample, seconds=1.6)])
