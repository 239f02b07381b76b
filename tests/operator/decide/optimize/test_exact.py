"""The program and its exact solver, against plans that were worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.decide.optimize.fallback import greedy
from adaptive_operator.decide.optimize.milp import relax, route, solve_exact
from adaptive_operator.decide.optimize.problem import (
    Column,
    Limit,
    PlannedModel,
    PlannedTier,
    Problem,
    RequestClass,
    Route,
    exceeded,
    replica_costs,
    used_of,
)
from tests.operator.decide.optimize.instances import small_problem

FULL, INT8, INT4 = "full", "int8", "int4"


def demo_model(demand: float, *, floor: float = 0.0, low: int = 0, present: tuple[int, int, int] = (0, 0, 0)):
    """The demo's tiers, derated to 0.9 of their cards."""
    sizes = ((FULL, 2, 0.72), (INT8, 1, 0.585), (INT4, 1, 0.585))
    return PlannedModel(
        key="demo/assistant",
        tiers=(PlannedTier(FULL), PlannedTier(INT8), PlannedTier(INT4, low)),
        columns=tuple(
            Column(tier, "gpu", size, rate, 60.0, n) for (tier, size, rate), n in zip(sizes, present, strict=True)
        ),
        routes=tuple(Route(tier, ((tier, 1.0),)) for tier, *_ in sizes),
        classes=(RequestClass("all", demand, (1.0, 0.998, 0.78)),),
        floor=floor,
    )


def pool(model: PlannedModel, budget: int = 4, **more) -> Problem:
    return Problem((model,), (Limit("gpu", budget),), **more)


@pytest.mark.parametrize(
    ("demand", "more", "counts"),
    [
        pytest.param(0.0, {}, (0, 0, 0), id="no demand needs no replica"),
        pytest.param(0.5, {}, (1, 0, 0), id="a light load is served by the full tier"),
        pytest.param(1.8, {}, (1, 2, 0), id="1.8 of full 0.72 + int8 2 x 0.585 = 1.89 carry it at the best quality"),
        pytest.param(2.2, {}, (0, 4, 0), id="2.2 pass 1.89, four int8 carry 2.34"),
        pytest.param(9.0, {}, (0, 4, 0), id="beyond all capacity, as much as possible is served"),
        pytest.param(0.5, {"low": 1}, (1, 0, 1), id="the warm tier keeps its replica"),
    ],
)
def test_the_exact_plan_of_one_model_is_the_one_worked_out_by_hand(demand, more, counts):
    assert solve_exact(pool(demo_model(demand, **more))).counts == {"demo/assistant": counts}


def test_the_worked_example_routes_as_much_as_possible_to_the_full_tier():
    routing = route(pool(demo_model(1.8)), {"demo/assistant": (1, 2, 0)})

    assert routing.served["demo/assistant"][0] == pytest.approx((0.72, 1.08, 0.0))
    assert routing.unserved["demo/assistant"] == pytest.approx((0.0,))
    # 0.72 · 1 + 1.08 · 0.998 less 4 accelerators x 0.0001
    assert routing.objective == pytest.approx(1.79784 - 0.0004)


def test_the_floor_leaves_requests_unserved_rather_than_serving_them_worse():
    model = demo_model(1.2, floor=0.9)
    routing = route(pool(model), {"demo/assistant": (1, 0, 2)})

    assert sum(routing.served["demo/assistant"][0]) == pytest.approx(1.2)
    # full earns 0.72 x 0.1 = 0.072 of slack, int4 spends 0.12 a request: 0.6 of them
    short = route(pool(demo_model(1.6, floor=0.9)), {"demo/assistant": (1, 0, 2)})
    assert short.served["demo/assistant"][0] == pytest.approx((0.72, 0.0, 0.6))
    assert short.unserved["demo/assistant"] == pytest.approx((0.28,))


def test_a_class_with_its_own_floor_never_gets_less():
    model = replace(
        demo_model(0.0),
        classes=(
            RequestClass("careful", 0.5, (1.0, 0.998, 0.78), floor=0.99),
            RequestClass("any", 0.5, (1.0, 0.998, 0.78)),
        ),
    )
    served = route(pool(model), {"demo/assistant": (0, 1, 1)}).served["demo/assistant"]

    assert served[0] == pytest.approx((0.0, 0.5, 0.0))
    assert served[1] == pytest.approx((0.0, 0.085, 0.415))


def test_a_cascade_takes_of_both_its_tiers():
    model = demo_model(1.0)
    model = replace(
        model,
        routes=(*model.routes, Route("int4-full", ((INT4, 1.0), (FULL, 0.4)))),
        classes=(RequestClass("all", 1.0, (1.0, 0.998, 0.78, 0.95)),),
    )
    served = route(pool(model), {"demo/assistant": (1, 0, 2)}).served["demo/assistant"][0]

    # a to full, b by the cascade, none to int4 alone: a + b = 1, and full has room for a + 0.4 b = 0.72.
    assert served == pytest.approx((0.32 / 0.6, 0.0, 0.0, 0.28 / 0.6))


def test_a_swap_that_costs_more_than_it_brings_is_not_made():
    running = demo_model(1.1, present=(0, 2, 0))

    assert solve_exact(pool(running)).counts == {"demo/assistant": (2, 0, 0)}
    # 2 starts x 2 accelerators x 1 x 60 s of 300 s = 0.8 for a gain of 1.1 x 0.002
    assert solve_exact(pool(running, prices={"gpu": 1.0})).counts == {"demo/assistant": (0, 2, 0)}


def test_the_cost_of_a_start_grows_with_the_price_and_the_load_time_but_never_passes_a_fifth_of_the_price():
    problem = pool(demo_model(1.0), prices={"gpu": 3.0})
    column = problem.models[0].columns[0]

    assert problem.start_cost(replace(column, load_seconds=30.0)) == pytest.approx(2 * 3.0 * 0.1)
    assert problem.start_cost(replace(column, load_seconds=900.0)) == pytest.approx(2 * 3.0 * 0.2)


def test_starts_at_once_are_limited():
    problem = Problem((demo_model(2.2),), (Limit("gpu", 4), Limit("gpu", 2, starts=True)))
    counts = solve_exact(problem).counts

    assert counts is not None
    assert used_of(problem, problem.limits[1], counts) <= 2


def test_room_on_the_nodes_is_a_limit_of_its_own_for_large_replicas():
    problem = Problem((demo_model(0.5),), (Limit("gpu", 4), Limit("gpu", 0, least_replica=2)))

    assert solve_exact(problem).counts == {"demo/assistant": (0, 1, 0)}


def test_a_minimum_that_the_budget_does_not_hold_leaves_a_plan_all_the_same():
    counts = solve_exact(pool(demo_model(1.0, low=3), budget=2)).counts

    assert counts == {"demo/assistant": (0, 0, 2)}


def test_idle_accelerators_are_worth_nothing_and_scarce_ones_what_they_would_serve():
    assert solve_exact(pool(demo_model(0.5), budget=8)).prices["gpu"] == pytest.approx(0.0, abs=1e-3)
    # the last accelerator serves 0.585 more requests, each worth Π + 0.998
    assert solve_exact(pool(demo_model(9.0))).prices["gpu"] == pytest.approx(0.585 * 10.998, rel=1e-3)


def test_a_tier_with_room_has_no_price():
    routing = route(pool(demo_model(0.5)), {"demo/assistant": (1, 1, 0)})

    assert routing.tier_prices["demo/assistant", FULL] == 0.0


def test_broken_limits_and_maxima_are_named():
    model = demo_model(1.0)
    model = replace(model, tiers=(PlannedTier(FULL, high=1), *model.tiers[1:]))

    assert exceeded(pool(model), {"demo/assistant": (2, 1, 0)}) == (
        "gpu: 5 of 4",
        "demo/assistant: 2 of at most 1 full",
    )
    assert exceeded(pool(model), {"demo/assistant": (1, 2, 0)}) == ()
    capped = replace(model, most_accelerators=3)
    assert exceeded(pool(capped), {"demo/assistant": (1, 2, 0)}) == ("demo/assistant: 4 of its own 3",)


def test_a_model_stays_within_a_budget_of_its_own():
    capped = replace(demo_model(1.8), most_accelerators=3)

    assert solve_exact(pool(capped)).counts == {"demo/assistant": (0, 3, 0)}


def test_missing_minimums_cost_more_than_anything_else_could_earn():
    problem = pool(demo_model(9.0, low=1))
    the_same_replica_as_full = (10 + 1) * 0.72

    assert replica_costs(problem, problem.models[0], (2, 0, 0), problem.missing_cost()) > the_same_replica_as_full


@pytest.mark.parametrize(
    ("budget", "assistant", "mixes"),
    [
        pytest.param(4, 1.6, ((0, 3, 0), (0, 1, 0)), id="four accelerators: int8 for both"),
        pytest.param(5, 1.6, ((1, 2, 0), (0, 1, 0)), id="a fifth goes where full serves more requests"),
        pytest.param(4, 2.0, ((0, 3, 0), (0, 1, 0)), id="more load: taking from search would leave more unserved"),
    ],
)
def test_the_worked_example_of_the_documentation(budget, assistant, mixes):
    models = (demo_model(assistant, floor=0.9), replace(demo_model(0.5, floor=0.9), key="demo/search"))

    counts = solve_exact(Problem(models, (Limit("gpu", budget),)), gap=1e-5).counts

    assert counts == dict(zip(("demo/assistant", "demo/search"), mixes, strict=True))


def test_the_worked_example_is_worth_what_the_documentation_says():
    models = (demo_model(1.6, floor=0.9), replace(demo_model(0.5, floor=0.9), key="demo/search"))
    four, five = (Problem(models, (Limit("gpu", budget),)) for budget in (4, 5))
    int8 = {"demo/assistant": (0, 3, 0), "demo/search": (0, 1, 0)}
    better = {"demo/assistant": (1, 2, 0), "demo/search": (0, 1, 0)}
    other = {"demo/assistant": (0, 3, 0), "demo/search": (1, 0, 0)}

    assert route(four, int8).objective == pytest.approx(2.0958 - 0.0004)
    assert route(five, better).objective == pytest.approx(2.09724 - 0.0005)
    assert route(five, other).objective == pytest.approx(2.0968 - 0.0005)


def scaled(problem: Problem, times: float) -> Problem:
    """The same program with as many times the demand."""
    return replace(
        problem,
        models=tuple(
            replace(model, classes=tuple(replace(item, demand=item.demand * times) for item in model.classes))
            for model in problem.models
        ),
    )


@pytest.mark.parametrize("seed", range(4))
def test_where_all_together_is_worth_nothing_the_gap_is_still_a_share_of_the_demand(seed):
    """What is refused weighs against what is served: where that is 0, any plan is near it relative to the objective."""
    problem, low, high = small_problem(seed, models=4), 0.5, 200.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if relax(scaled(problem, middle)).bound > 0 else (low, middle)
    even = scaled(problem, low)

    assert abs(relax(even).bound) < 1e-6 * even.weighted_demand
    found = route(even, solve_exact(even, gap=1e-3).counts or {}).objective
    assert found >= route(even, greedy(even)).objective - 1e-3 * even.weighted_demand
