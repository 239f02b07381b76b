"""The program as matrices for HiGHS: exact for few models, and the routing (x) of any plan whose replicas are fixed.

The tests' oracle, too. Everything is written as a minimum, as scipy wants it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_matrix

from adaptive_operator.decide.optimize.problem import (
    UNSERVED,
    Column,
    Counts,
    PlannedModel,
    Problem,
    replica_costs,
)

Floats = NDArray[np.float64]
_EXACT_NODES = 20_000
_LEAST_GAIN = 1e-9
# A gap relative to what was found; from 1 on, any choice that is worth less than nothing would be near enough.
_MOST_RELATIVE = 0.5


@dataclass(frozen=True, slots=True)
class Routing:
    """How fixed replicas serve: requests/s by model, class and route; what is not served; prices of tiers.

    `worth` by model includes what its replicas cost. `tier_prices`: of one more reference request/s of a tier (Λ).
    """

    worth: dict[str, float]
    served: dict[str, tuple[tuple[float, ...], ...]]
    unserved: dict[str, tuple[float, ...]]
    tier_prices: dict[tuple[str, str], float]

    @property
    def objective(self) -> float:
        """Worth of all models."""
        return math.fsum(self.worth.values())

    def merged(self, other: Routing) -> Routing:
        """Models of `other` in place of the same ones here: they share replicas with nobody."""
        return Routing(
            {**self.worth, **other.worth},
            {**self.served, **other.served},
            {**self.unserved, **other.unserved},
            {**self.tier_prices, **other.tier_prices},
        )


@dataclass(frozen=True, slots=True)
class Exact:
    """What the exact solver found: replicas (None: nothing in time) and a bound that no plan can pass.

    `prices`: worth of one more accelerator by shape (v), with replicas taken as divisible.
    """

    counts: Counts | None
    bound: float
    prices: dict[str, float]


@dataclass
class _Rows:
    """A sparse matrix in the making."""

    values: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    right: list[float] = field(default_factory=list)

    def add(self, entries: list[tuple[int, float]], right: float) -> int:
        row = len(self.right)
        self.right.append(right)
        for column, value in entries:
            self.rows.append(row)
            self.columns.append(column)
            self.values.append(value)
        return row

    def matrix(self, width: int) -> csr_matrix:
        return csr_matrix((self.values, (self.rows, self.columns)), shape=(len(self.right), width))


@dataclass
class _Program:
    """Variables and rows. Without `counts` the replicas are variables, with them they are numbers."""

    problem: Problem
    counts: Counts | None = None
    costs: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)
    integers: list[int] = field(default_factory=list)
    most: _Rows = field(default_factory=_Rows)
    equal: _Rows = field(default_factory=_Rows)
    replicas: dict[str, list[int]] = field(default_factory=dict)
    starts: dict[str, list[int | None]] = field(default_factory=dict)
    routes: dict[str, list[list[int]]] = field(default_factory=dict)
    unserved: dict[str, list[int]] = field(default_factory=dict)
    tier_rows: dict[tuple[str, str], int] = field(default_factory=dict)
    limit_rows: list[int] = field(default_factory=list)
    most_matrix: csr_matrix = field(init=False)
    equal_matrix: csr_matrix = field(init=False)

    def __post_init__(self) -> None:
        for model in self.problem.models:
            if self.counts is None:
                self._add_replicas(model)
            self._add_routes(model)
            self._add_capacity(model)
        if self.counts is None:
            self._add_limits()
        width = len(self.costs)
        self.most_matrix, self.equal_matrix = self.most.matrix(width), self.equal.matrix(width)

    def _variable(self, cost: float, high: float = math.inf, integer: bool = False) -> int:
        self.costs.append(cost)
        self.highs.append(high)
        self.integers.append(int(integer))
        return len(self.costs) - 1

    def _add_replicas(self, model: PlannedModel) -> None:
        problem, limited = self.problem, any(limit.starts for limit in self.problem.limits)
        replicas, starts = [], []
        for column in model.columns:
            n = self._variable(problem.running_cost(column), most_useful(model, column), integer=True)
            cost, y = problem.start_cost(column), None
            if cost > 0 or limited:
                y = self._variable(cost)
                self.most.add([(n, 1.0), (y, -1.0)], column.present)
            replicas.append(n)
            starts.append(y)
        self.replicas[model.key], self.starts[model.key] = replicas, starts
        self._add_bounds(model)

    def _add_bounds(self, model: PlannedModel) -> None:
        for tier in model.tiers:
            of_tier = [
                n for n, column in zip(self.replicas[model.key], model.columns, strict=True) if column.tier == tier.name
            ]
            if tier.low > 0:
                missing = self._variable(self.problem.missing_cost(), tier.low)
                self.most.add([*((n, -1.0) for n in of_tier), (missing, -1.0)], -tier.low)
            if tier.high is not None and of_tier:
                self.most.add([(n, 1.0) for n in of_tier], tier.high)
        if model.most_accelerators is not None:
            held = [
                (n, float(column.accelerators))
                for n, column in zip(self.replicas[model.key], model.columns, strict=True)
            ]
            self.most.add(held, model.most_accelerators)

    def _add_routes(self, model: PlannedModel) -> None:
        routes, unserved = [], []
        for item in model.classes:
            xs = [self._variable(-model.weight * q, math.inf if q >= item.floor else 0.0) for q in item.qualities]
            u = self._variable(UNSERVED * model.weight)
            self.equal.add([*((x, 1.0) for x in xs), (u, 1.0)], item.demand)
            routes.append(xs)
            unserved.append(u)
        self.routes[model.key], self.unserved[model.key] = routes, unserved
        if model.floor > 0:
            above = [
                (x, model.floor - q)
                for xs, item in zip(routes, model.classes, strict=True)
                for x, q in zip(xs, item.qualities, strict=True)
            ]
            self.most.add(above, 0.0)

    def _add_capacity(self, model: PlannedModel) -> None:
        for tier in model.tiers:
            entries = [
                (xs[r], load)
                for r, route in enumerate(model.routes)
                for name, load in route.loads
                if name == tier.name
                for xs in self.routes[model.key]
            ]
            capacity = 0.0
            for index, column in enumerate(model.columns):
                if column.tier != tier.name:
                    continue
                if self.counts is None:
                    entries.append((self.replicas[model.key][index], -column.rate))
                else:
                    capacity += column.rate * self.counts[model.key][index]
            self.tier_rows[model.key, tier.name] = self.most.add(entries, capacity)

    def _add_limits(self) -> None:
        for limit in self.problem.limits:
            entries = []
            for model in self.problem.models:
                chosen = self.starts[model.key] if limit.starts else self.replicas[model.key]
                uses = [limit.use_of(column) for column in model.columns]
                entries += [(v, float(use)) for v, use in zip(chosen, uses, strict=True) if use and v is not None]
            self.limit_rows.append(self.most.add(entries, limit.accelerators))

    def relaxed(self) -> Any:
        """The program without whole numbers, with its duals."""
        return linprog(
            self.costs,
            A_ub=self.most_matrix,
            b_ub=self.most.right,
            A_eq=self.equal_matrix,
            b_eq=self.equal.right,
            bounds=np.column_stack([np.zeros(len(self.costs)), self.highs]),
            method="highs",
        )

    def solved(self, offset: float, gap: float, nodes: int, seconds: float) -> Any:
        """The program as it is, with its last variable 1 at the cost `offset`, which only moves the objective.

        `gap` is relative to the moved objective, `nodes` and `seconds` end the search.
        """
        width = len(self.costs) + 1
        return milp(
            [*self.costs, offset],
            integrality=[*self.integers, 0],
            bounds=Bounds(np.append(np.zeros(width - 1), 1.0), np.array([*self.highs, 1.0])),
            constraints=[
                LinearConstraint(self.most.matrix(width), -np.inf, self.most.right),
                LinearConstraint(self.equal.matrix(width), self.equal.right, self.equal.right),
            ],
            options={"mip_rel_gap": gap, "node_limit": nodes, "time_limit": seconds},
        )


@dataclass(frozen=True, slots=True)
class Relaxed:
    """What the program says with divisible replicas: a bound that no plan passes, and what one more is worth.

    `limit_prices` (L,) of one more of each limit, `prices` of one more accelerator by shape.
    """

    program: _Program
    bound: float
    limit_prices: Floats
    prices: dict[str, float]


def most_useful(model: PlannedModel, column: Column) -> int:
    """Most replicas of a column worth planning: what the whole demand needs, or the minimum."""
    tier = next(tier for tier in model.tiers if tier.name == column.tier)
    heaviest = max((load for route in model.routes for name, load in route.loads if name == tier.name), default=0.0)
    need = math.ceil(model.demand * heaviest / column.rate) if column.rate > 0 else 0
    most = max(need, tier.low)
    return most if tier.high is None else min(most, tier.high)


def relative_gap(gap: float, gain: float) -> float:
    """For HiGHS, which takes its gap relative to the objective: `gap` of the most that can be gained above nothing."""
    return min(_MOST_RELATIVE, gap / max(gain, _LEAST_GAIN))


def relax(problem: Problem) -> Relaxed:
    """The program with divisible replicas."""
    if not problem.models:
        return Relaxed(_Program(problem), 0.0, np.zeros(len(problem.limits)), dict.fromkeys(_shapes(problem), 0.0))
    program = _Program(problem)
    result = program.relaxed()
    duals = np.maximum(-result.ineqlin.marginals[program.limit_rows], 0.0)
    return Relaxed(program, -float(result.fun), duals, _prices(problem, duals))


def solve_exact(
    problem: Problem,
    gap: float = 1e-4,
    nodes: int = _EXACT_NODES,
    seconds: float = math.inf,
    relaxed: Relaxed | None = None,
) -> Exact:
    """The best replicas up to a gap (as a share of the weighted demand). `nodes` bounds the search reproducibly."""
    known = relaxed if relaxed is not None else relax(problem)
    if not problem.models:
        return Exact({}, known.bound, known.prices)
    # HiGHS takes its gap relative to the objective, which passes zero where much is unserved: so above holding nothing.
    nothing = _unrouted(problem, problem.models).objective
    gain, accepted = known.bound - nothing, gap * problem.weighted_demand
    program, prices = known.program, known.prices
    result = program.solved(nothing, relative_gap(accepted, gain), nodes, seconds)
    bound = -float(result.mip_dual_bound) + nothing if result.mip_dual_bound is not None else known.bound
    if result.x is None:
        return Exact(None, bound, prices)
    counts = {
        key: tuple(round(float(result.x[index])) for index in indices) for key, indices in program.replicas.items()
    }
    return Exact(counts, bound, prices)


def route(problem: Problem, counts: Counts) -> Routing:
    """The best routing of these replicas. Always feasible: what does not fit is unserved."""
    idle = [model for model in problem.models if not any(counts[model.key])]
    if idle:
        nothing = {model.key for model in idle}
        busy = problem.part({model.key for model in problem.models} - nothing)
        return _unrouted(problem, idle).merged(route(busy, counts))
    if not problem.models:
        return Routing({}, {}, {}, {})
    program = _Program(problem, counts)
    result = program.relaxed()
    found, missing_cost = np.maximum(result.x, 0.0).tolist(), problem.missing_cost()
    served = {key: tuple(tuple(found[x] for x in xs) for xs in classes) for key, classes in program.routes.items()}
    unserved = {key: tuple(found[u] for u in us) for key, us in program.unserved.items()}
    prices = np.maximum(-result.ineqlin.marginals, 0.0).tolist()
    return Routing(
        worth={
            model.key: _served_worth(model, served[model.key], unserved[model.key])
            - replica_costs(problem, model, counts[model.key], missing_cost)
            for model in problem.models
        },
        served=served,
        unserved=unserved,
        tier_prices={name: prices[row] for name, row in program.tier_rows.items()},
    )


def _unrouted(problem: Problem, idle: Sequence[PlannedModel]) -> Routing:
    """Models without a replica: nothing is served, and no tier has a price."""
    missing_cost = problem.missing_cost()
    served = {m.key: tuple((0.0,) * len(item.qualities) for item in m.classes) for m in idle}
    unserved = {m.key: tuple(item.demand for item in m.classes) for m in idle}
    worth = {
        m.key: _served_worth(m, served[m.key], unserved[m.key])
        - replica_costs(problem, m, (0,) * len(m.columns), missing_cost)
        for m in idle
    }
    return Routing(worth, served, unserved, {(m.key, tier.name): 0.0 for m in idle for tier in m.tiers})


def _served_worth(model: PlannedModel, served: Sequence[Sequence[float]], unserved: Sequence[float]) -> float:
    quality = sum(
        q * x for item, xs in zip(model.classes, served, strict=True) for q, x in zip(item.qualities, xs, strict=True)
    )
    return model.weight * (quality - UNSERVED * sum(unserved))


def _prices(problem: Problem, duals: Floats) -> dict[str, float]:
    prices = dict.fromkeys(_shapes(problem), 0.0)
    for limit, dual in zip(problem.limits, duals.tolist(), strict=True):
        if not limit.starts:
            prices[limit.shape] += dual
    return prices


def _shapes(problem: Problem) -> list[str]:
    return sorted({limit.shape for limit in problem.limits})
