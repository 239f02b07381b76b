"""Accuracy scaling as Proteus does it, linearised: every 10 s the mix that serves the present rate most accurately.

max ΣA·x/s with Σx = s and β·x ≤ μ·n within the accelerators, all of which are in use; β = 1.05 (tuned), less by 0.05
while that is infeasible, down to 0.2. s: exponentially weighted mean (0.385) of 1 s counts. μ: throughput at the
largest batch whose mean time to first token takes half the objective at most and whose time per token keeps it, from
mean lengths. x are the router's weights: no fast loop corrects them. No swap cost, no load time and no quality floor in
the plan; the simulator charges the first two, and the router of this policy has no floor either. Source: Proteus
(ASPLOS 2024), whose original is bilinear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from adaptive_operator.simulate.curve import Lengths, StepCurve
from adaptive_operator.simulate.policies.base import Scaler
from adaptive_operator.simulate.policies.mixes import Mix, MixProgram
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.world import World, fixed_table
from inference_pods.router.table import RoutingTable

PERIOD_SECONDS: Final = 10.0
BIN_SECONDS: Final = 1.0
SMOOTHING: Final = 0.385
BETA: Final = 1.05
_BETA_STEP: Final = 0.05
_LEAST_BETA: Final = 0.2
_TTFT_PART: Final = 0.5  # of the objective: the other half is for waiting, as in the paper
_SERVED: Final = 1e-6  # of the rate may be left over by rounding


def betas_from(first: float) -> tuple[float, ...]:
    """`first`, then 0.05 less each, down to 0.2."""
    count = max(round((first - _LEAST_BETA) / _BETA_STEP), 0) + 1
    return tuple(round(first - _BETA_STEP * i, 4) for i in range(count))


def batch_rate(curve: StepCurve, lengths: Lengths, ttft_seconds: float, tpot_seconds: float) -> float:
    """μ: requests/s of one replica at the largest batch that keeps both on average; at one sequence if none does.

    With b sequences and prefills of P seconds: rate = b / ((out - 1)·step + b·P), the prefills take rate·P of the time
    and stretch a step to step / (1 - rate·P); a first token waits for a step, its own prefill and (M/D/1) those before.
    """
    by_memory = int(curve.kv_tokens / (lengths.prompt + lengths.output / 2))
    largest = max(1, min(curve.max_sequences, by_memory))
    prefill = curve.prefill(round(lengths.prompt))
    best = 0.0
    for batch in range(1, largest + 1):
        rate = batch / (max(lengths.output - 1, 0.0) * curve.step(batch) + batch * prefill)
        busy = rate * prefill
        ttft = curve.step(batch) + prefill * (1 + busy / (2 * (1 - busy))) if busy < 1 else float("inf")
        kept = busy < 1 and ttft <= _TTFT_PART * ttft_seconds and curve.step(batch) / (1 - busy) <= tpot_seconds
        if batch == 1 or kept:
            best = max(best, rate)
    return best


@dataclass(slots=True)
class Planner:
    """The program. `rates`: requests/s of one replica, in the order of the scenario's tiers; `beta`: the first one."""

    scenario: Scenario
    rates: tuple[float, ...]
    beta: float = BETA
    _most: Mix = field(init=False)

    def __post_init__(self) -> None:
        """Solve once what is the same for every rate."""
        self._most = MixProgram(self.scenario, self.rates).most()

    def plan(self, demand: float) -> Mix:
        """The mix for a rate (requests/s), and what each tier gets of it; what serves most if nothing serves all."""
        capacity = sum(self._most.served.values())
        for beta in betas_from(self.beta):
            if demand * beta <= capacity * (1 + _SERVED):
                return MixProgram(self.scenario, tuple(rate / beta for rate in self.rates)).most_accurate(demand)
        return self._most


@dataclass(slots=True)
class ProteusPolicy:
    """See the module. `models`: that share the accelerators, in equal parts: the plan takes all it may have."""

    beta: float = BETA
    models: int = 1
    name: str = "proteus"
    _world: World = field(init=False)
    _scaler: Scaler = field(init=False)
    _planner: Planner = field(init=False)
    _table: RoutingTable = field(init=False)
    _rate: float = 0.0
    _counted: int = 0

    def begin(self, world: World) -> None:
        """The best tier everywhere, then a plan every 10 s."""
        self._world, self._scaler = world, Scaler(world)
        part = replace(world.scenario, budget=world.scenario.budget // self.models)
        self._planner = make_planner(part, self.beta)
        table = fixed_table(world.scenario, tuple(tier.name for tier in world.scenario.tiers))
        rates = dict(zip((tier.name for tier in world.scenario.tiers), self._planner.rates, strict=True))
        routes = tuple(replace(route, mu=rates[route.key.tier]) for route in table.routes)
        self._table = replace(table, floor_permille=0, routes=routes)
        world.dispatcher.follow_weights()
        self._adopt(self._planner.plan(0.0), "Start")
        world.events.after(BIN_SECONDS, self._count)
        world.events.after(PERIOD_SECONDS, self._plan)

    def _count(self) -> None:
        self._world.events.after(BIN_SECONDS, self._count)
        arrivals = self._world.dispatcher.counters.arrivals
        seen, self._counted = (arrivals - self._counted) / BIN_SECONDS, arrivals
        self._rate += SMOOTHING * (seen - self._rate)

    def _plan(self) -> None:
        self._world.events.after(PERIOD_SECONDS, self._plan)
        self._adopt(self._planner.plan(self._rate), "Proteus")

    def _adopt(self, mix: Mix, reason: str) -> None:
        self._table = weighted(self._table, mix)
        self._world.dispatcher.offer_table(self._table)
        self._scaler.set(mix.replicas, reason)


def weighted(table: RoutingTable, mix: Mix) -> RoutingTable:
    """The next table: each tier's weight is what the mix gives it, or its replicas while nothing is asked for."""
    served = mix.served if sum(mix.served.values()) > 0 else {tier: float(n) for tier, n in mix.replicas.items()}
    weights: Mapping[str, float] = served
    routes = tuple(replace(route, weight=weights.get(route.key.tier, 0.0)) for route in table.routes)
    return replace(table, generation=table.generation + 1, routes=routes)


def make_planner(scenario: Scenario, beta: float = BETA) -> Planner:
    """The program with rates from the curves at the cards' reference lengths."""
    lengths = scenario.reference.lengths
    ttft, tpot = scenario.ttft_seconds, scenario.tpot_seconds
    return Planner(scenario, tuple(batch_rate(tier.curve, lengths, ttft, tpot) for tier in scenario.tiers), beta)
