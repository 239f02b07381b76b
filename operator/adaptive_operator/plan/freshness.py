"""Until when a plan may still take something away: as long as the readings that it rests on are fresh enough.

The limits are those of `decide/`: arrivals older than one hold all replicas, any reading older than the other lets
nothing shrink. Time passes between a decision and its steps when the API server is slow or many models wait their turn.
"""

from __future__ import annotations

from adaptive_operator.decide.decision import Decision
from adaptive_operator.observe.observation import ModelObservation, Sample
from adaptive_operator.plan.settings import PlanSettings


def fresh_until(model: ModelObservation, decision: Decision, settings: PlanSettings, now: float) -> float | None:
    """Unix seconds; None where the readings were missing or too old already: what was decided then rests on none."""
    seen = model.metrics
    readings, limit = [seen.arrivals], settings.hold_after_stale_seconds
    if _gives_back(model, decision):
        readings, limit = [*readings, seen.peak_arrivals, seen.queue], settings.stale_after_seconds
    ages = [reading.age_seconds for reading in readings if isinstance(reading, Sample)]
    if len(ages) < len(readings) or max(ages) > limit:
        return None
    return now + limit - max(ages)


def _gives_back(model: ModelObservation, decision: Decision) -> bool:
    """Whether the swap leads to fewer accelerators."""
    if decision.swap is None:
        return False
    each = {tier.name: tier.replica.accelerators for tier in model.spec.tiers}
    before, after = (
        sum(count * each.get(tier, 0) for tier, count in mix.items())
        for mix in (decision.swap.origin, decision.swap.target)
    )
    return after < before
