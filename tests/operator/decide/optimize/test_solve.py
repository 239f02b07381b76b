"""Which method is asked for a program, and that the cheaper one is only believed where it is proven."""

from __future__ import annotations

import pytest

from adaptive_operator.decide.optimize import solve as solving
from adaptive_operator.decide.optimize.milp import Exact, Relaxed, route, solve_exact
from adaptive_operator.decide.optimize.problem import Limit, Problem
from adaptive_operator.decide.optimize.solve import Method, SolveSettings, solve
from tests.operator.decide.optimize.test_exact import demo_model


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Problem]:
    """The programs that were searched as a whole."""
    asked: list[Problem] = []

    def searching(problem: Problem, gap: float, seconds: float, relaxed: Relaxed) -> Exact:
        asked.append(problem)
        return solve_exact(problem, gap=gap, seconds=seconds, relaxed=relaxed)

    monkeypatch.setattr(solving, "solve_exact", searching)
    return asked


def pool(demand: float, budget: int, floor: float = 0.9) -> Problem:
    return Problem((demo_model(demand, floor=floor),), (Limit("gpu", budget),))


def test_where_everything_can_be_full_divisible_replicas_prove_it_without_a_search(searches: list[Problem]) -> None:
    plan = solve(pool(0.7, budget=8))

    assert searches == []
    assert plan.counts == {"demo/assistant": (1, 0, 0)}
    assert plan.method is Method.EXACT
    assert plan.gap <= SolveSettings().gap


def test_where_half_a_replica_would_be_better_the_program_is_searched(searches: list[Problem]) -> None:
    problem = pool(1.0, budget=3, floor=1.0)
    plan = solve(problem)

    assert searches == [problem]
    assert plan.objective == pytest.approx(route(problem, solve_exact(problem, gap=1e-6).counts or {}).objective)


def test_more_models_than_are_proven_are_searched_at_once(searches: list[Problem]) -> None:
    solve(pool(0.7, budget=8), settings=SolveSettings(proven_models=0))

    assert len(searches) == 1


def test_models_without_a_replica_serve_nothing_and_cost_what_is_unserved() -> None:
    problem = pool(0.7, budget=8)
    routing = route(problem, {"demo/assistant": (0, 0, 0)})

    assert routing.served == {"demo/assistant": ((0.0, 0.0, 0.0),)}
    assert routing.unserved == {"demo/assistant": (0.7,)}
    assert routing.objective == pytest.approx(-7.0)
    assert set(routing.tier_prices.values()) == {0.0}
