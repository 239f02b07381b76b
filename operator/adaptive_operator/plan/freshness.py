"""Until when a plan may still take something away: as long as the readings that it rests on are fresh enough.

The limits are those of `decide/`: arrivals older than one hold all replicas, any reading older than the other lets
nothing shrink. Time passes between a decision and its steps when the API server is slow or many models wait their turn,
and a swap goes on for minutes after the readings that it was decided on.
"""

from __future__ import annotations

from typing import Final

from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.swaps import DOWNWARD
from adaptive_operator.observe.observation import ModelObservation, Sample
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.reasons import Reason

# Swaps to more capacity. Half done they serve less than before and after, so they end whatever becomes of the readings.
_GROWTH: Final = frozenset({Reason.ADDED_REPLICA, Reason.SWAPPED_TO_CHEAPER_TIER})


def fresh_until(model: ModelObservation, decision: Decision, settings: PlanSettings, now: float) -> float | None:
    """Unix seconds, never after `now` where a shrink's readings are too old already; None: it rests on no reading.

    A rollback and an edit of the spec rest on none, and neither does the end of a growth once its readings are gone.
    """
    seen, reason = model.metrics, decision.swap.reason if decision.swap is not None else None
    if reason in DOWNWARD:
        ages = [_age(reading) for reading in (seen.arrivals, seen.peak_arrivals, seen.queue)]
        known = [age for age in ages if age is not None]
        left = settings.stale_after_seconds - max(known) if len(known) == len(ages) else 0.0
        return now + max(left, 0.0)
    age = _age(seen.arrivals)
    if (reason is not None and reason not in _GROWTH) or age is None or age > settings.hold_after_stale_seconds:
        return None
    return now + settings.hold_after_stale_seconds - age


def _age(reading: object) -> float | None:
    return reading.age_seconds if isinstance(reading, Sample) else None
