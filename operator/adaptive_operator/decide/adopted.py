"""A pool's plan as the decision log keeps it: enough to decide all that follows from it again without a solver."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from adaptive_operator.decide.optimize.milp import Routing
from adaptive_operator.decide.optimize.problem import Problem, tier_counts
from adaptive_operator.decide.optimize.solve import Method, PoolPlan


@dataclass(frozen=True, slots=True)
class AdoptedPlan:
    """Replicas by model and tier (none: left out), and how good they are.

    `objective` and `bound` in quality x requests/s, `gap` as a share of the weighted demand; None: there is no bound.
    """

    counts: Mapping[str, Mapping[str, int]]
    objective: float
    bound: float | None
    gap: float | None
    method: Method
    solved: bool  # False: a fallback stands in for the solver
    prices: Mapping[str, float]  # worth of one more accelerator, by resource
    seconds: float | None = None  # from question to answer; None: nobody looked at a clock


def as_adopted(problem: Problem, plan: PoolPlan) -> AdoptedPlan:
    """What the log keeps of a plan."""
    counts = {m.key: {t: n for t, n in tier_counts(m, plan.counts[m.key]).items() if n} for m in problem.models}
    bound, gap = (number if math.isfinite(number) else None for number in (plan.bound, plan.gap))
    return AdoptedPlan(counts, plan.objective, bound, gap, plan.method, plan.solved, dict(plan.prices))


def rebuild_plan(problem: Problem, adopted: AdoptedPlan) -> PoolPlan:
    """The plan again, for a program whose tiers are on one shape each. Raises ValueError for another pool's program.

    How it serves is not kept: the objective stands in for it.
    """
    keys = {model.key for model in problem.models}
    if keys != set(adopted.counts):
        others = ", ".join(sorted(keys ^ set(adopted.counts)))
        raise ValueError(f"the program is of other models than the plan: {others}")
    counts = {
        model.key: tuple(adopted.counts[model.key].get(column.tier, 0) for column in model.columns)
        for model in problem.models
    }
    bound, gap = (math.inf if number is None else number for number in (adopted.bound, adopted.gap))
    routing = Routing({"": adopted.objective}, {}, {}, {})
    return PoolPlan(counts, routing, adopted.prices, bound, gap, adopted.method, adopted.solved)
