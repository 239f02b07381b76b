"""Cards from curves: the rate at which one replica alone keeps the objective for as many requests as it has to.

A card's capacity has to hold at the attainment of the spec; a part of the saturation that is the same for all tiers
does not: a tier that is twice as fast attains at 0.95 of its saturation what a slow one attains at 0.65.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from adaptive_operator.api.card import DeclaredLevelCard
from adaptive_operator.api.tiers import Tier
from adaptive_operator.simulate.curve import Lengths, StepCurve, saturation
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.replica import Replica
from adaptive_operator.simulate.requests import Request, TraceRow
from adaptive_operator.simulate.scenario import Scenario, ScenarioError, TierModel
from adaptive_operator.simulate.scores import is_attained

MOST_PART: Final = 0.95  # of saturation: beyond it a backlog grows that a finite stream does not show
_LEAST_PART: Final = 0.05
_STEP_PART: Final = 0.01
_REQUESTS: Final = 6000


@dataclass(frozen=True, slots=True)
class MeasuredCards:
    """The scenario with measured capacities, without the tiers (by name) that never keep the objective."""

    scenario: Scenario
    left_out: tuple[str, ...] = ()


def measure_cards(scenario: Scenario, trace: Sequence[TraceRow], seed: int) -> MeasuredCards:
    """Capacities measured on Poisson streams with the lengths of the trace, which should not be the one judged on.

    Raises ScenarioError when no tier keeps the objective.
    """
    lengths = [(row.prompt_tokens, row.output_tokens) for row in trace]
    measured = [_measure_tier(scenario, tier, lengths, seed) for tier in scenario.tiers]
    able = {tier.name: tier for tier in measured if tier.rate > 0}
    if not any(tier.accelerators <= scenario.budget for tier in able.values()):
        raise ScenarioError(
            f"{scenario.name}: no tier keeps the objective even at {_LEAST_PART:.0%} of its saturation; allow more time"
            " in slo, or correct the step times"
        )
    tiers = tuple(_with_card(tier, able[tier.name]) for tier in scenario.spec.tiers if tier.name in able)
    routing = scenario.spec.routing
    if routing.warm_tier not in able:
        routing = routing.model_copy(update={"warm_tier": None})
    spec = scenario.spec.model_copy(update={"tiers": tiers, "routing": routing})
    left_out = tuple(tier.name for tier in measured if tier.name not in able)
    return MeasuredCards(replace(scenario, spec=spec, tiers=tuple(able.values())), left_out)


def _measure_tier(scenario: Scenario, tier: TierModel, lengths: Sequence[tuple[int, int]], seed: int) -> TierModel:
    """With measured rates, and without the lower levels that never keep the objective."""
    rate = attained_rate(scenario, tier.curve, lengths, seed)
    lower = [replace(lv, rate=attained_rate(scenario, lv.curve, lengths, seed)) for lv in tier.levels[1:]]
    top = [replace(level, rate=rate) for level in tier.levels[:1]]
    return replace(tier, rate=rate, levels=(*top, *(level for level in lower if level.rate > 0)))


def _with_card(tier: Tier, measured: TierModel) -> Tier:
    """The spec's tier with a card that says what was measured: of the top level on its own, of the others below it."""
    if tier.card is None:
        return tier
    levels = tuple(
        DeclaredLevelCard(
            name=level.name,
            quality_permille=level.quality_permille,
            capacity_milli_requests_per_second=max(round(1000 * level.rate), 1),
        )
        for level in measured.levels[1:]
    )
    update = {
        "quality_permille": measured.quality_permille,
        "capacity_milli_requests_per_second": max(round(1000 * measured.rate), 1),
        "levels": levels,
    }
    return tier.model_copy(update={"card": tier.card.model_copy(update=update)})


def attained_rate(scenario: Scenario, curve: StepCurve, lengths: Sequence[tuple[int, int]], seed: int) -> float:
    """Requests/s of one replica at which the spec's `attainmentPercent` is kept, at most 0.95 of saturation; 0 when it
    is not kept at 0.05 of it either: a tier that is always late carries nothing."""
    limit = saturation(curve, Lengths.of(lengths))
    needed = scenario.spec.slo.attainment_percent / 100

    def attains(part: float) -> bool:
        return _attainment(scenario, curve, lengths, part * limit, seed) >= needed

    low, high = _LEAST_PART, MOST_PART
    if attains(high):
        return high * limit
    if not attains(low):
        return 0.0
    while high - low > _STEP_PART:
        middle = (low + high) / 2
        low, high = (middle, high) if attains(middle) else (low, middle)
    return low * limit


def _attainment(
    scenario: Scenario, curve: StepCurve, lengths: Sequence[tuple[int, int]], rate: float, seed: int
) -> float:
    """Part of a Poisson stream that one replica answers within the objectives. The same stream for every rate."""
    rng = random.Random(seed)  # noqa: S311 a simulation, no secret
    events = EventQueue()
    replica = Replica(curve, events, _ignore, _ignore)
    requests: list[Request] = []
    now = 0.0
    for _ in range(_REQUESTS):
        now += rng.expovariate(1.0) / rate
        request = Request(now, *lengths[rng.randrange(len(lengths))])
        requests.append(request)
        events.at(now, partial(replica.submit, request))
    events.run_until(now + 3600.0)
    return sum(is_attained(request, scenario) for request in requests) / len(requests)


def _ignore(_request: Request) -> None:
    return None
