"""From a program to a plan that may be adopted: the right method for its size, compared with keeping what runs.

Deterministic as long as no time limit strikes: searches end by nodes. A plan is never worse than what it reports.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from adaptive_operator.decide.optimize.fallback import greedy, keep
from adaptive_operator.decide.optimize.incremental import choose_free, narrow
from adaptive_operator.decide.optimize.master import choose_listed, solve_master
from adaptive_operator.decide.optimize.milp import Routing, relax, route, solve_exact
from adaptive_operator.decide.optimize.problem import Counts, Problem, exceeded


class Method(StrEnum):
    """How a plan was found."""

    EXACT = "Exact"  # as good as the plain integer program, up to the gap
    MASTER = "Master"  # configurations
    INCREMENTAL = "Incremental"  # configurations of the models that changed, and of donors
    GREEDY = "Greedy"  # no solver
    KEEP = "Keep"  # what runs, routed anew


@dataclass(frozen=True, slots=True)
class SolveSettings:
    """Sizes and limits of the solver. Gaps are shares of the weighted demand."""

    # Up to this many models the plain program is fast (a few ms at 1, below a second at 20) and exact.
    exact_models: int = 20
    # Up to this many models divisible replicas nearly always prove listed configurations to be within the gap.
    proven_models: int = 4
    # Beyond this many models only what changed is planned, when the caller says what did.
    incremental_models: int = 300
    gap: float = 1e-3
    # A plan further from its bound is only adopted if it beats keeping by more than what it may miss.
    accepted_gap: float = 0.03
    # Guard only: a plan cut off by time depends on the machine. The searches end by nodes before.
    seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Replicas by model and column, how they serve, and how good that is.

    `bound`: no plan among those looked at is worth more. `prices`: one more accelerator's worth, by shape (v).
    `solved` is False where the solver found nothing, or nothing worth trusting, and a fallback stands in.
    """

    counts: Counts
    routing: Routing
    prices: Mapping[str, float]
    bound: float
    gap: float
    method: Method
    solved: bool

    @property
    def objective(self) -> float:
        """Weighted quality served, less what is unserved and what starts and replicas cost."""
        return self.routing.objective


@dataclass(frozen=True, slots=True)
class _Found:
    counts: Counts | None
    bound: float
    prices: Mapping[str, float]
    method: Method
    free: frozenset[str] | None = None  # models that were planned; None: all


def solve(
    problem: Problem, changed: Collection[str] | None = None, settings: SolveSettings = SolveSettings()
) -> PoolPlan:
    """The plan to adopt. `changed`: keys whose demand or tiers moved since the last plan; None: plan all.

    A plan of a part that is not near enough to its bound is not adopted: all are planned.
    """
    kept, smallest = keep(problem), max(settings.exact_models, settings.incremental_models)
    if changed is not None and len(problem.models) > smallest and kept == problem.present:
        part = _solve(problem, kept, changed, settings)
        if part.gap <= settings.accepted_gap:
            return part
    return _solve(problem, kept, None, settings)


def _solve(problem: Problem, kept: Counts, changed: Collection[str] | None, settings: SolveSettings) -> PoolPlan:
    found = _find(problem, kept, changed, settings)
    keeping = _plan(problem, found, kept, route(problem, kept), Method.KEEP)
    plans = [keeping]
    if found.counts is not None:
        plans += _plans(problem, found, keeping, found.counts, found.method)
    if plans[-1] is keeping or plans[-1].gap > settings.accepted_gap:
        plans += _plans(problem, found, keeping, greedy(problem), Method.GREEDY)
    best = max(plans, key=lambda plan: plan.objective)
    missed = best.gap * problem.weighted_demand
    if best.gap > settings.accepted_gap and best.objective - keeping.objective <= missed:
        return replace(keeping, solved=False)
    return best


def solve_greedily(problem: Problem) -> PoolPlan:
    """A plan without a solver: for when it fails again and again. Prices stay the last known ones."""
    counts = greedy(problem)
    if exceeded(problem, counts):
        counts = keep(problem)
    return PoolPlan(counts, Routing({}, {}, {}, {}), problem.prices, math.inf, math.inf, Method.GREEDY, solved=False)


def _find(problem: Problem, kept: Counts, changed: Collection[str] | None, settings: SolveSettings) -> _Found:
    count = len(problem.models)
    if count <= settings.exact_models:
        return _find_exact(problem, settings)
    if changed is not None:
        return _find_incremental(problem, kept, changed, settings)
    found = solve_master(problem, gap=settings.gap, seconds=settings.seconds)
    return _Found(found.counts, found.bound, _by_shape(problem, found.prices), Method.MASTER)


def _find_exact(problem: Problem, settings: SolveSettings) -> _Found:
    """Configurations that divisible replicas prove to be within the gap need no search; else the program."""
    relaxed, accepted = relax(problem), settings.gap * problem.weighted_demand
    if len(problem.models) <= settings.proven_models:
        listed = choose_listed(problem, relaxed.limit_prices, relaxed.bound, gap=settings.gap, seconds=settings.seconds)
        if listed is not None and relaxed.bound - listed.worth <= accepted:
            return _Found(listed.counts, relaxed.bound, relaxed.prices, Method.EXACT)
    exact = solve_exact(problem, gap=settings.gap, seconds=settings.seconds, relaxed=relaxed)
    return _Found(exact.counts, exact.bound, exact.prices, Method.EXACT)


def _find_incremental(problem: Problem, kept: Counts, changed: Collection[str], settings: SolveSettings) -> _Found:
    """The bound counts the models planned anew only; what the others are worth is added when they are routed.

    What an accelerator is worth in the pool a part of it does not tell: the prices stay those of the last whole plan.
    """
    free = choose_free(problem, changed)
    found = solve_master(narrow(problem, free, kept), gap=settings.gap, seconds=settings.seconds)
    counts = None if found.counts is None else {**kept, **found.counts}
    prices = problem.prices or _by_shape(problem, found.prices)
    return _Found(counts, found.bound, prices, Method.INCREMENTAL, free)


def _plans(problem: Problem, found: _Found, keeping: PoolPlan, counts: Counts, method: Method) -> list[PoolPlan]:
    """These replicas as a plan, if no limit forbids them. Models that keep theirs keep their routing."""
    if exceeded(problem, counts):
        return []
    moved = {model.key for model in problem.models if counts[model.key] != keeping.counts[model.key]}
    routing = keeping.routing.merged(route(problem.part(moved), counts))
    return [_plan(problem, found, counts, routing, method)]


def _plan(problem: Problem, found: _Found, counts: Counts, routing: Routing, method: Method) -> PoolPlan:
    frozen = math.fsum(
        worth for key, worth in routing.worth.items() if found.free is not None and key not in found.free
    )
    bound = max(found.bound + frozen, routing.objective)  # what was not listed may pass the bound of what was
    scale = problem.weighted_demand
    return PoolPlan(
        counts=counts,
        routing=routing,
        prices=found.prices,
        bound=bound,
        gap=(bound - routing.objective) / scale if scale > 0 else 0.0,
        method=method,
        solved=method in (Method.EXACT, Method.MASTER, Method.INCREMENTAL),
    )


def _by_shape(problem: Problem, prices: Collection[float]) -> dict[str, float]:
    """Price of one accelerator by shape, over all limits that hold it."""
    total = dict.fromkeys(sorted({limit.shape for limit in problem.limits}), 0.0)
    for limit, price in zip(problem.limits, prices, strict=True):
        if not limit.starts:
            total[limit.shape] += max(0.0, float(price))
    return total
