"""The planner's program as data: what each model asks for and may run, and what all of them share. Solves nothing.

    max   sum w q x - Π sum w u - sum s y - ε sum a·cost·n
    s.t.  sum_r x + u = λ          every class: what is not served counts as unserved
          sum load·x <= sum μ n    every tier: load in reference requests/s on the replicas' SLO-attaining rates
          sum a n, sum a y <= …    every limit: budget, room on the nodes, starts at once
          y >= n - n0              starts
          sum (q - floor) x >= 0   every model; x = 0 where q is below the class's own floor
          low <= sum_g n <= high   every tier; sum a n <= the model's own budget

Qualities are fractions of the full model, rates reference requests/s. `present` (n0) counts what loads, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

UNSERVED: Final = 10.0  # Π: a request that is not served costs as much as the quality of ten full answers
RUNNING: Final = 1e-4  # ε: of equal plans the smaller one
_LEAST_PLAN_LIFE_SECONDS: Final = 300.0
_PLAN_LIFE_LOADS: Final = 5.0

Counts = Mapping[str, tuple[int, ...]]  # replicas by model key, in the order of the model's columns


def plan_life(load: float) -> float:
    """Seconds that a plan is assumed to live whose replicas load for `load` seconds: max(300 s, 5 loads)."""
    return max(_LEAST_PLAN_LIFE_SECONDS, _PLAN_LIFE_LOADS * load)


@dataclass(frozen=True, slots=True)
class PlannedTier:
    """A tier's bounds, over all shapes. `high` None: as many as the limits allow."""

    name: str
    low: int = 0
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """Replicas of one tier on one shape. `rate`: reference requests/s that one replica is planned to serve (μ)."""

    tier: str
    shape: str
    accelerators: int
    rate: float
    load_seconds: float
    present: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A way to serve a request: what one of it takes of each tier's rate.

    A plain tier takes 1 of itself, a level of a nested tier less than 1, a cascade 1 of one tier and part of another.
    """

    name: str
    loads: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class RequestClass:
    """Requests that are alike: demand (requests/s), quality by route, the least quality that each of them may get."""

    name: str
    demand: float
    qualities: tuple[float, ...]
    floor: float = 0.0


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One model: `floor` is the least mean quality of what is served, `weight` what it counts when there is not enough.

    `most_accelerators`: what it may hold at most, whatever the shapes; None: as much as the limits allow.
    """

    key: str
    tiers: tuple[PlannedTier, ...]
    columns: tuple[Column, ...]
    routes: tuple[Route, ...]
    classes: tuple[RequestClass, ...]
    weight: float = 1.0
    floor: float = 0.0
    most_accelerators: int | None = None

    @property
    def demand(self) -> float:
        """Requests/s of all classes."""
        return sum(item.demand for item in self.classes)

    @property
    def present(self) -> tuple[int, ...]:
        """Replicas that are there or load, by column."""
        return tuple(column.present for column in self.columns)

    def held(self, counts: Sequence[int]) -> int:
        """Accelerators that these replicas hold."""
        return sum(column.accelerators * n for column, n in zip(self.columns, counts, strict=True))


@dataclass(frozen=True, slots=True)
class Limit:
    """Accelerators that all models together may hold (or, with `starts`, begin to load) on one shape.

    `least_replica` counts replicas of at least that many accelerators only: what nodes have room for. Example: two
    nodes with 3 free each hold 6 accelerators of 1, but of replicas of 2 only 4.
    """

    shape: str
    accelerators: int
    least_replica: int = 1
    starts: bool = False

    def use_of(self, column: Column) -> int:
        """Accelerators that one replica (or one start) of this column takes of the limit."""
        counts = column.shape == self.shape and column.accelerators >= self.least_replica
        return column.accelerators if counts else 0


@dataclass(frozen=True, slots=True)
class Problem:
    """All models of a pool, sorted by key. `prices` are the last plan's, per accelerator and shape (v)."""

    models: tuple[PlannedModel, ...]
    limits: tuple[Limit, ...]
    prices: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)  # of an accelerator, relative; 1 where it is not given
    minimum_cost: float | None = None  # `missing_cost()` of the whole problem that this one is a part of

    def part(self, keys: Collection[str]) -> Problem:
        """Only the models of these keys; a plan is worth the same in the part as in the whole."""
        models = tuple(model for model in self.models if model.key in keys)
        return replace(self, models=models, minimum_cost=self.missing_cost())

    @property
    def weighted_demand(self) -> float:
        """Sum of weight x demand: what the objective would be if all were served at full quality."""
        return sum(model.weight * model.demand for model in self.models)

    @property
    def present(self) -> dict[str, tuple[int, ...]]:
        """Replicas that are there or load."""
        return {model.key: model.present for model in self.models}

    def start_cost(self, column: Column) -> float:
        """What a start costs (s): its accelerators' price for the part of the plan's life in which it loads.

        s = a·v·L/H with H = max(300 s, 5 L). Not L over the planner's period: with 15 s a load of 155 s would cost ten
        times what its accelerators are worth, and nothing would ever be exchanged.
        """
        life = plan_life(column.load_seconds)
        return column.accelerators * self.prices.get(column.shape, 0.0) * column.load_seconds / life

    def running_cost(self, column: Column) -> float:
        """What a replica costs beyond its place in the budget."""
        return RUNNING * column.accelerators * self.costs.get(column.shape, 1.0)

    def missing_cost(self) -> float:
        """What a replica below a tier's minimum costs: more than its accelerators could earn anywhere else.

        Minimums are soft, so that a budget that does not hold them all still has a plan.
        """
        if self.minimum_cost is not None:
            return self.minimum_cost
        most = max((m.weight * c.rate for m in self.models for c in m.columns), default=1.0)
        largest = max((column.accelerators for model in self.models for column in model.columns), default=1)
        return 1.1 * (UNSERVED + 1) * max(most, 1.0) * largest


def exceeded(problem: Problem, counts: Counts) -> tuple[str, ...]:
    """Limits and maxima that these replicas break, in words; empty when they may run."""
    used = [used_of(problem, limit, counts) for limit in problem.limits]
    over = [
        f"{limit.shape}: {use} of {limit.accelerators}{' started' if limit.starts else ''}"
        for limit, use in zip(problem.limits, used, strict=True)
        if use > limit.accelerators
    ]
    return (*over, *(text for model in problem.models for text in _above_own(model, counts[model.key])))


def used_of(problem: Problem, limit: Limit, counts: Counts) -> int:
    """Accelerators that these replicas take of a limit."""
    return sum(
        limit.use_of(column) * (max(0, n - column.present) if limit.starts else n)
        for model in problem.models
        for column, n in zip(model.columns, counts[model.key], strict=True)
        if n
    )


def tier_counts(model: PlannedModel, counts: tuple[int, ...]) -> dict[str, int]:
    """Replicas by tier, over all shapes."""
    totals = dict.fromkeys((tier.name for tier in model.tiers), 0)
    for column, n in zip(model.columns, counts, strict=True):
        totals[column.tier] += n
    return totals


def replica_costs(problem: Problem, model: PlannedModel, counts: tuple[int, ...], missing_cost: float) -> float:
    """What starts, running replicas and missing minimums of a model take off the objective."""
    total = 0.0
    for column, n in zip(model.columns, counts, strict=True):
        if n:
            total += problem.running_cost(column) * n + problem.start_cost(column) * max(0, n - column.present)
    totals = tier_counts(model, counts)
    return total + missing_cost * sum(max(0, tier.low - totals[tier.name]) for tier in model.tiers)


def _above_own(model: PlannedModel, counts: tuple[int, ...]) -> list[str]:
    """A model's own bounds that are broken: its budget, its tiers' maxima."""
    over, most = [], model.most_accelerators
    if most is not None and (held := model.held(counts)) > most:
        over.append(f"{model.key}: {held} of its own {most}")
    if all(tier.high is None for tier in model.tiers):
        return over
    totals = tier_counts(model, counts)
    return over + [
        f"{model.key}: {totals[tier.name]} of at most {tier.high} {tier.name}"
        for tier in model.tiers
        if tier.high is not None and totals[tier.name] > tier.high
    ]
