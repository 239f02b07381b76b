from dataclasses import replace

import pytest

from adaptive_operator.decide.optimize.solve import solve
from adaptive_operator.simulate.requests import TraceRow
from benchmarks import bench_planner, planner_budget
from benchmarks.bench_planner import (
    COLD,
    TWENTY,
    Sample,
    describe,
    percentile,
    render,
    render_budget,
    render_decisions,
)
from benchmarks.planner_budget import Kept, cut_minutes, keep_budget
from benchmarks.planner_decisions import MANY, ONE, Decided, decide_many, decide_one_model
from benchmarks.planner_pools import ACCELERATORS, TIERS, build_pool, changed_keys, move_on
from benchmarks.policy_rows import ROWS


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


def test_the_whole_decision_is_judged_by_its_95th_percentile():
    fast = [Decided(ONE, 0.001, False)] * 19
    text = render_decisions([*fast, Decided(ONE, 0.5, False), Decided(MANY, 6.0, True)])

    assert f"| {ONE} | 20 | 0 | 0.001 | 0.001 | 0.500 | < 0.02 | met |" in text
    assert f"| {MANY} | 1 | 1 | 6.000 | 6.000 | 6.000 | < 5 | **missed** |" in text


def test_one_accelerator_beyond_the_budget_in_one_run_is_a_miss():
    kept = Kept(starts=9, decisions=40, beyond=0)

    assert "| budget: 2 runs, 80 decisions, 18 starts | 0 | 0 | met |" in render_budget([kept, kept])
    assert "| 0 | 1 | **missed** |" in render_budget([kept, replace(kept, beyond=1)])


def test_a_model_s_decision_and_those_of_many_are_timed():
    assert [item.case for item in decide_one_model(2)] == [ONE, ONE]
    many = list(decide_many(passes=2, models=20))

    assert [item.case for item in many] == [MANY, MANY]
    assert all(item.seconds > 0 and item.asked for item in many)


@pytest.mark.parametrize(("case", "seconds"), [(COLD, 2.0), (TWENTY, 9.0)])
def test_a_pool_whose_time_is_a_goal_is_planned_three_times_and_has_their_median(case, seconds, monkeypatch):
    # Three plans of 9, 1 and 2 s.
    clock = iter([0.0, 9.0, 9.0, 10.0, 10.0, 12.0])
    pool = build_pool(0, 1, 1.6)
    plan = solve(pool)
    monkeypatch.setattr(bench_planner.time, "perf_counter", lambda: next(clock))
    sample, _ = bench_planner._timed(case, 1.6, 0, pool, lambda _pool: plan)
    assert sample.seconds == seconds


@pytest.mark.slow
def test_a_run_with_lost_nodes_and_metrics_keeps_its_budget():
    kept = next(keep_budget(1))

    assert kept.starts > 3
    assert kept.decisions > 40
    assert kept.beyond == 0


def test_what_is_not_run_is_told_with_the_way_to_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench_planner, "OUTPUT", tmp_path / "planner.json")
    monkeypatch.setattr(planner_budget, "keep_budget", lambda seeds, trace: [Kept(9, 40, 0)] * seeds)

    assert bench_planner.main(["--parts", "budget", "--seeds", "2"]) == 0
    told = capsys.readouterr().out
    assert "budget: 2 runs" in told
    assert "1 model" not in told
    assert all(name in told for name in ROWS)
    assert "make bench-policies" in told
    assert "--oracle" in told
    assert "--trace" in told


def test_with_a_trace_the_budget_is_kept_under_its_load_too(monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(bench_planner, "OUTPUT", tmp_path / "planner.json")
    monkeypatch.setattr(planner_budget, "keep_budget", lambda *given: asked.append(given) or [Kept(9, 40, 0)])
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,374,44\n4.5,396,109\n")

    assert bench_planner.main(["--parts", "budget", "--seeds", "2", "--trace", str(path)]) == 0
    assert asked == [(2, (TraceRow(0.0, 374, 44), TraceRow(4.5, 396, 109)))]
    assert "Left out of the budget" not in capsys.readouterr().out


def test_each_seed_has_ten_minutes_of_the_trace_of_its_own():
    trace = tuple(TraceRow(float(at), at + 1, 10) for at in range(3600))
    cuts = [cut_minutes(trace, seed) for seed in range(4)]

    assert [len(cut) for cut in cuts] == [600] * 4
    assert len({cut[0].prompt_tokens for cut in cuts}) == 4
    assert all(cut[0].arrival < 1 and cut[-1].arrival < 600 for cut in cuts)
    assert cut_minutes(trace[:60], 0) == trace[:60]
    assert cut_minutes((), 0) == ()
