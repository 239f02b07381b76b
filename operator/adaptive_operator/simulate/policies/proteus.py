"""Accuracy scaling as Proteus does it, linearised: every 10 s the mix that serves the present rate most accurately.

max ΣA·x/s with Σx = s and β·x ≤ μ·n within the accelerators, all of which are in use; β = 1.05, less by 0.05 while that
is infeasible, down to 0.2. s: exponentially weighted mean (0.385) of 1 s counts. μ: throughput at the largest batch
that keeps the objective, from mean lengths. No swap cost, no load time and no quality floor in the plan; the simulator
charges the first two, and the router of this policy has no floor either. With one model the program is small enough to
be solved by looking at all mixes. Source: Proteus (ASPLOS 2024), whose original is bilinear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from adaptive_operator.decide.fill import fill
from adaptive_operator.simulate.curve import Lengths, saturation
from adaptive_operator.simulate.policies.base import Scaler
from adaptive_operator.simulate.policies.static import maximal_mixes
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.world import World, fixed_table

PERIOD_SECONDS: Final = 10.0
BIN_SECONDS: Final = 1.0
SMOOTHING: Final = 0.385
BETAS: Final = tuple(round(1.05 - 0.05 * i, 2) for i in range(18))  # 1.05 … 0.2
_SERVED: Final = 1e-6  # of the rate may be left over by rounding
_DEFAULT_LENGTHS: Final = Lengths(1155.0, 211.0)


@dataclass(frozen=True, slots=True)
class Planner:
    """The program. `rates`: requests/s of one replica, in the order of the scenario's tiers."""

    scenario: Scenario
    rates: tuple[float, ...]

    def plan(self, demand: float) -> dict[str, int]:
        """The mix for a rate (requests/s); with the least β, what serves most."""
        mixes = _mixes_of(self.scenario)
        for beta in BETAS:
            best = max(mixes, key=lambda mix: self._worth(mix, demand, beta))
            if self._worth(best, demand, beta)[0] >= demand * (1 - _SERVED):
                return dict(best)
        return dict(best)

    def _worth(self, mix: Mapping[str, int], demand: float, beta: float) -> tuple[float, float, tuple[int, ...]]:
        """(requests/s served, mean accuracy, replicas of the best tiers), compared in this order."""
        tiers = self.scenario.tiers
        capacities = [rate * mix.get(tier.name, 0) / beta for tier, rate in zip(tiers, self.rates, strict=True)]
        outcome = fill(demand, capacities, [tier.quality_permille for tier in tiers], 0.0)
        counts = tuple(mix.get(tier.name, 0) for tier in tiers)
        return round(sum(outcome.served), 6), round(outcome.quality_permille, 6), counts


@lru_cache(maxsize=8)
def _mixes_of(scenario: Scenario) -> tuple[Mapping[str, int], ...]:
    return tuple(maximal_mixes(scenario))


@dataclass(slots=True)
class ProteusPolicy:
    """See the module."""

    name: str = "proteus"
    _world: World = field(init=False)
    _scaler: Scaler = field(init=False)
    _planner: Planner = field(init=False)
    _rate: float = 0.0
    _counted: int = 0

    def begin(self, world: World) -> None:
        """The best tier everywhere, then a plan every 10 s."""
        self._world, self._scaler = world, Scaler(world)
        self._planner = make_planner(world.scenario)
        table = fixed_table(world.scenario, tuple(tier.name for tier in world.scenario.tiers))
        world.dispatcher.offer_table(replace(table, floor_permille=0))
        self._scaler.set(self._planner.plan(0.0), "Start")
        world.events.after(BIN_SECONDS, self._count)
        world.events.after(PERIOD_SECONDS, self._plan)

    def _count(self) -> None:
        self._world.events.after(BIN_SECONDS, self._count)
        arrivals = self._world.dispatcher.counters.arrivals
        seen, self._counted = (arrivals - self._counted) / BIN_SECONDS, arrivals
        self._rate += SMOOTHING * (seen - self._rate)

    def _plan(self) -> None:
        self._world.events.after(PERIOD_SECONDS, self._plan)
        self._scaler.set(self._planner.plan(self._rate), "Proteus")


def make_planner(scenario: Scenario) -> Planner:
    """The program with rates from the curves at the cards' reference lengths."""
    cards = [tier.card for tier in scenario.spec.tiers if tier.card is not None]
    lengths = next(
        (
            Lengths(card.reference_prompt_tokens, card.reference_output_tokens)
            for card in cards
            if card.reference_prompt_tokens is not None and card.reference_output_tokens is not None
        ),
        _DEFAULT_LENGTHS,
    )
    return Planner(scenario, tuple(saturation(tier.curve, lengths) for tier in scenario.tiers))
