"""A fixed mix of replicas for the whole run: P0 (the best tier everywhere), P1 (the cheapest one within the floor) and
any other. The router's fast loop divides the load within it, as it does for every policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adaptive_operator.simulate.policies.base import Scaler
from adaptive_operator.simulate.policies.mixes import MixProgram
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.world import World, fixed_table


@dataclass(slots=True)
class StaticPolicy:
    """These replicas by tier, from the start on."""

    name: str
    mix: Mapping[str, int]

    def begin(self, world: World) -> None:
        """Start everything and leave it alone."""
        world.dispatcher.offer_table(fixed_table(world.scenario, tuple(self.mix)))
        Scaler(world).set(self.mix, "Static")


def best_tier_mix(scenario: Scenario) -> dict[str, int]:
    """P0: the best tier on all of the budget."""
    tier = scenario.best_affordable
    return {tier.name: scenario.budget // tier.accelerators}


def cheapest_tier_mix(scenario: Scenario) -> dict[str, int]:
    """P1: the tier with the most requests/s per accelerator whose quality reaches the floor, on all of the budget."""
    allowed = [t for t in scenario.tiers if t.quality >= scenario.floor and t.accelerators <= scenario.budget]
    tier = max(allowed or scenario.tiers[:1], key=lambda t: t.rate / t.accelerators)
    return {tier.name: scenario.budget // tier.accelerators}


def best_mix(scenario: Scenario) -> dict[str, int]:
    """The mix that carries most within the floor by the cards, better quality where two carry the same."""
    return MixProgram(scenario, tuple(tier.rate for tier in scenario.tiers)).most(scenario.floor).replicas
