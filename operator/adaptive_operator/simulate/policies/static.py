"""A fixed mix of replicas for the whole run: P0 (the best tier everywhere), P1 (the cheapest one within the floor) and
any other. The router's fast loop divides the load within it, as it does for every policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adaptive_operator.decide.fill import fill
from adaptive_operator.simulate.policies.base import Scaler
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
    """The mix that carries most within the floor by the cards, better quality where two carry the same.

    All mixes are looked at that leave no room for the last tier. The rates are those of the cards, not simulated ones.
    """
    return max(maximal_mixes(scenario), key=lambda mix: _worth(scenario, mix))


def maximal_mixes(scenario: Scenario) -> Iterator[dict[str, int]]:
    """All mixes to which no replica of the last tier can be added."""
    return _mixes(scenario, 0, scenario.budget)


def _worth(scenario: Scenario, mix: Mapping[str, int]) -> tuple[float, float]:
    rates = [tier.rate * mix.get(tier.name, 0) for tier in scenario.tiers]
    floor = 1000 * scenario.floor
    outcome = fill(sum(rates), rates, [tier.quality_permille for tier in scenario.tiers], floor)
    return (round(sum(outcome.served), 6), outcome.quality_permille)


def _mixes(scenario: Scenario, index: int, left: int) -> Iterator[dict[str, int]]:
    tier = scenario.tiers[index]
    most = left // tier.accelerators
    if index == len(scenario.tiers) - 1:
        yield {tier.name: most} if most else {}
        return
    for count in range(most + 1):
        for rest in _mixes(scenario, index + 1, left - count * tier.accelerators):
            yield {tier.name: count, **rest} if count else rest
