"""What holds for every program: limits, floors, minimums, honest gaps, the same answer for the same question."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.optimize.configurations import undominated
from adaptive_operator.decide.optimize.fallback import greedy, keep
from adaptive_operator.decide.optimize.incremental import choose_free, narrow
from adaptive_operator.decide.optimize.master import solve_master
from adaptive_operator.decide.optimize.milp import route, solve_exact
from adaptive_operator.decide.optimize.problem import Problem, exceeded, tier_counts
from adaptive_operator.decide.optimize.solve import Method, SolveSettings, solve
from adaptive_operator.decide.optimize.tables import build_tables, use_of, worth_of
from tests.operator.decide.optimize.instances import small_problem, with_classes_and_a_cascade

pytestmark = pytest.mark.slow

UNHURRIED = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow])
CONFIGURATIONS = SolveSettings(exact_models=0)

problems = st.builds(
    small_problem,
    seed=st.integers(0, 1_000_000),
    models=st.integers(1, 5),
    shapes=st.integers(1, 3),
    starts=st.booleans(),
    nested=st.booleans(),
)


def as_parts(problem: Problem, counts) -> list[np.ndarray]:
    """One plan per model, as the arrays want it."""
    wide = max(len(model.columns) for model in problem.models)
    return [np.array([[*counts[m.key], *[0] * (wide - len(m.columns))]]) for m in problem.models]


@UNHURRIED
@given(problem=problems, whole=st.booleans())
def test_no_plan_ever_passes_a_limit_or_a_maximum(problem, whole):
    plan = solve(problem, settings=SolveSettings() if whole else CONFIGURATIONS)

    assert exceeded(problem, plan.counts) == ()


@UNHURRIED
@given(problem=problems, whole=st.booleans())
def test_the_quality_floor_holds_in_every_plan(problem, whole):
    plan = solve(problem, settings=SolveSettings() if whole else CONFIGURATIONS)
    for model in problem.models:
        served = plan.routing.served[model.key][0]
        points = sum((q - model.floor) * x for q, x in zip(model.classes[0].qualities, served, strict=True))
        assert points >= -1e-6


@UNHURRIED
@given(problem=problems)
def test_minimums_hold_wherever_the_budget_has_room_for_all_of_them(problem):
    roomy = replace(problem, limits=tuple(replace(limit, accelerators=500) for limit in problem.limits))
    for options in (SolveSettings(), CONFIGURATIONS):
        counts = solve(roomy, settings=options).counts
        for model in roomy.models:
            totals = tier_counts(model, counts[model.key])
            assert all(totals[tier.name] >= tier.low for tier in model.tiers)


@UNHURRIED
@given(problem=problems)
def test_demand_is_served_or_unserved_and_no_tier_serves_more_than_it_can(problem):
    plan = solve(problem)
    for model in problem.models:
        served, unserved = plan.routing.served[model.key][0], plan.routing.unserved[model.key][0]
        assert sum(served) + unserved == pytest.approx(model.demand, abs=1e-6)
        for tier in model.tiers:
            load = sum(
                x * part for x, r in zip(served, model.routes, strict=True) for t, part in r.loads if t == tier.name
            )
            able = sum(
                c.rate * n for c, n in zip(model.columns, plan.counts[model.key], strict=True) if c.tier == tier.name
            )
            assert load <= able + 1e-6


@UNHURRIED
@given(problem=problems)
def test_a_plan_is_worth_in_the_arrays_what_it_is_worth_in_the_program(problem):
    counts = solve(problem, settings=CONFIGURATIONS).counts
    tables, parts = build_tables(problem), as_parts(problem, counts)

    assert worth_of(tables, parts).sum() == pytest.approx(route(problem, counts).objective, abs=1e-6, rel=1e-9)
    assert (use_of(tables, parts).sum(axis=0) <= tables.limits + 1e-9).all()


@UNHURRIED
@given(problem=problems)
def test_with_classes_and_cascades_the_arrays_promise_no_more_than_the_program_serves(problem):
    divided = with_classes_and_a_cascade(problem)
    for counts in (solve_exact(divided).counts, solve(divided, settings=CONFIGURATIONS).counts):
        assert counts is not None
        promised = worth_of(build_tables(divided), as_parts(divided, counts)).sum()
        assert promised <= route(divided, counts).objective + 1e-6
        assert exceeded(divided, counts) == ()


@UNHURRIED
@given(problem=problems)
def test_a_small_plan_is_no_further_from_the_best_one_than_the_gap_that_is_allowed(problem):
    best = route(problem, solve_exact(problem, gap=1e-6).counts or {}).objective
    plan, allowed = solve(problem), SolveSettings().gap * problem.weighted_demand

    assert best - allowed - 1e-6 <= plan.objective <= best + 1e-4 * problem.weighted_demand
    assert plan.bound >= best - 1e-6


@UNHURRIED
@given(problem=problems)
def test_a_column_that_another_beats_in_everything_is_not_missed(problem):
    alive = undominated(build_tables(problem))
    fewer = replace(
        problem,
        models=tuple(
            replace(model, columns=tuple(c for c, keep_it in zip(model.columns, row, strict=False) if keep_it))
            for model, row in zip(problem.models, alive, strict=True)
        ),
    )
    best, without = (route(p, solve_exact(p, gap=1e-6).counts or {}).objective for p in (problem, fewer))

    assert without == pytest.approx(best, abs=1e-4 * max(1.0, problem.weighted_demand))


@UNHURRIED
@example(problem=small_problem(seed=11927, models=5, shapes=2))  # minimums out of reach, some models moved
@given(problem=problems)
def test_no_method_passes_the_bound_of_the_exact_solver(problem):
    exact = solve_exact(problem, gap=1e-6)
    limit = exact.bound + 1e-6 * max(1.0, abs(exact.bound))

    assert solve(problem, settings=CONFIGURATIONS).objective <= limit
    for counts in (greedy(problem), keep(problem)):
        if not exceeded(problem, counts):
            assert route(problem, counts).objective <= limit


@UNHURRIED
@given(problem=problems)
def test_the_exact_plan_is_within_the_gap_that_it_reports(problem):
    best = route(problem, solve_exact(problem, gap=1e-6).counts or {}).objective
    plan = solve(problem, settings=SolveSettings(gap=0.01))

    assert best - plan.objective <= plan.gap * problem.weighted_demand + 1e-6
    assert plan.gap <= 0.01 + 1e-9 or not plan.solved


@UNHURRIED
@given(problem=problems, whole=st.booleans())
def test_no_plan_is_worse_than_keeping_what_runs(problem, whole):
    plan = solve(problem, settings=SolveSettings() if whole else CONFIGURATIONS)
    kept = route(problem, keep(problem)).objective

    assert plan.objective >= kept - 1e-6
    assert plan.bound >= plan.objective


@UNHURRIED
@given(problem=problems)
def test_keeping_starts_nothing_and_is_worth_exactly_what_it_reports(problem):
    kept = keep(problem)
    assert all(n <= c.present for m in problem.models for n, c in zip(kept[m.key], m.columns, strict=True))

    shut = replace(
        problem, limits=(*problem.limits, *(replace(x, accelerators=0, starts=True) for x in problem.limits))
    )
    plan = solve(shut, settings=CONFIGURATIONS)
    if plan.method is Method.KEEP:
        assert plan.objective == pytest.approx(route(shut, kept).objective)


@UNHURRIED
@given(problem=problems, whole=st.booleans())
def test_the_same_program_has_the_same_plan(problem, whole):
    options = SolveSettings() if whole else CONFIGURATIONS

    assert solve(problem, settings=options) == solve(problem, settings=options)


@UNHURRIED
@given(problem=problems, lowered=st.integers(0, 3))
def test_a_lowered_budget_is_kept_by_giving_up_replicas(problem, lowered):
    tight = replace(problem, limits=tuple(replace(limit, accelerators=lowered) for limit in problem.limits))

    assert exceeded(tight, keep(tight)) == ()
    assert exceeded(tight, solve(tight).counts) == ()


def test_configurations_come_within_two_permille_of_the_exact_plan_of_twelve_models():
    missed = []
    for seed in range(10):
        problem = small_problem(seed, models=12)
        best = route(problem, solve_exact(problem, gap=1e-4).counts or {}).objective
        master = solve_master(problem)
        assert master.counts is not None
        assert exceeded(problem, master.counts) == ()
        worth = route(problem, master.counts).objective
        assert worth <= master.bound + 1e-6
        missed.append((best - worth) / problem.weighted_demand)

    assert statistics.median(missed) <= 0.001
    assert max(missed) <= 0.002


def test_models_that_did_not_change_keep_their_replicas_in_an_incremental_plan():
    problem = small_problem(5, models=60)
    options = SolveSettings(incremental_models=40)
    first = solve(problem, settings=options)
    later = replace(
        problem,
        prices=first.prices,
        models=tuple(
            replace(
                m, columns=tuple(replace(c, present=n) for c, n in zip(m.columns, first.counts[m.key], strict=True))
            )
            for m in problem.models
        ),
    )
    changed = {"demo/m7", "demo/m9"}
    plan = solve(later, changed, options)
    free = choose_free(later, changed)

    assert plan.method in (Method.INCREMENTAL, Method.KEEP)
    assert changed <= free
    assert len(free) < 60
    for model in later.models:
        if model.key not in free:
            assert plan.counts[model.key] == model.present


def test_what_others_hold_is_taken_off_the_limits_of_a_narrowed_program():
    problem = small_problem(8, models=4)
    kept = keep(problem)
    part = narrow(problem, {"demo/m0"}, kept)

    assert [model.key for model in part.models] == ["demo/m0"]
    counts = solve(part).counts
    assert exceeded(replace(problem, models=problem.models), {**kept, **counts}) == ()


def test_a_pool_without_models_has_an_empty_plan():
    plan = solve(Problem((), ()))

    assert (dict(plan.counts), plan.gap, plan.objective) == ({}, 0.0, 0.0)


def test_a_model_on_more_columns_than_a_pair_is_found_among_the_neighbours():
    problem = small_problem(6, models=3)
    best = route(problem, solve_exact(problem, gap=1e-6).counts or {}).objective

    assert route(problem, solve_master(problem).counts or {}).objective == pytest.approx(best)


@pytest.mark.parametrize("columns", [0, 1], ids=["no tier with a card", "one tier on one shape"])
def test_a_large_pool_has_a_plan_although_one_of_its_models_has_nothing_to_pair(columns):
    first, *others = small_problem(3, models=25).models
    [whole] = first.classes
    bare = replace(
        first,
        tiers=first.tiers[:columns],
        columns=first.columns[:columns],
        routes=first.routes[:columns],
        classes=(replace(whole, qualities=whole.qualities[:columns]),),
    )
    problem = replace(small_problem(3, models=25), models=(bare, *others))
    assert solve(problem).method is Method.MASTER
