"""When what happened, from the samples and the request records. Pure: nothing here is assumed, only found or not.

Times are seconds of the run; a span is measured from the moment the load gave cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from e2e.demo.sample import Sample
from e2e.load.accounting import served_quality_permille
from e2e.load.record import RequestRecord

RECENT_ANSWERS = 8
QUALITY_SLACK_PERMILLE = 20.0


@dataclass(frozen=True, slots=True)
class Baseline:
    """What there was before the overload: what "restored" is measured against."""

    tier: str  # the best one
    replicas: int
    quality_permille: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """None: it did not happen."""

    shed_at: float | None  # first token of the first answer from a cheaper tier under overload
    swap_decided_at: float | None  # the operator wants fewer replicas of the best tier
    swapped_at: float | None  # …and every replica it wants instead is ready
    restore_decided_at: float | None  # the operator wants the best tier back
    restored_at: float | None  # it is ready, and the answers have the quality of before the overload


def find_baseline(samples: Sequence[Sample], records: Sequence[RequestRecord], best: str) -> Baseline | None:
    """From the samples and answers before the overload; None when the best tier did not serve then."""
    ready = [tier.ready for sample in samples if (tier := sample.tier(best)) is not None]
    quality = served_quality_permille(records)
    if not ready or quality is None or min(ready) == 0:
        return None
    return Baseline(best, min(ready), quality)


def find_timeline(
    samples: Sequence[Sample],
    records: Sequence[RequestRecord],
    baseline: Baseline,
    overload_at: float,
    fall_at: float,
) -> Timeline:
    """`overload_at` and `fall_at` are when the second and the last step began."""
    shed = [
        record.first_token_at
        for record in records
        if record.due_at >= overload_at and record.first_token_at and record.tier_served not in ("", baseline.tier)
    ]
    decided = _first(samples, overload_at, lambda sample: _desired(sample, baseline.tier) < baseline.replicas)
    swapped = None if decided is None else _first(samples, decided, lambda s: _is_swapped(s, baseline))
    restore_decided = restored = None
    if swapped is not None:
        wanted = _first(samples, swapped, lambda sample: _desired(sample, baseline.tier) >= baseline.replicas)
        restore_decided = wanted
        restored = None if wanted is None else find_restored(samples, records, baseline, max(wanted, fall_at))
    return Timeline(min(shed, default=None), decided, swapped, restore_decided, restored)


def find_restored(
    samples: Sequence[Sample], records: Sequence[RequestRecord], baseline: Baseline, after: float
) -> float | None:
    """The first moment after `after` with the best tier's replicas ready and the latest answers of the old quality."""
    answers = sorted((r for r in records if r.ok), key=lambda r: r.ended_at)
    for sample in samples:
        if sample.at < after or not _is_back(sample, baseline):
            continue
        latest = [r for r in answers if r.ended_at <= sample.at][-RECENT_ANSWERS:]
        quality = served_quality_permille(latest)
        enough = len(latest) == RECENT_ANSWERS and quality is not None
        if enough and quality is not None and quality >= baseline.quality_permille - QUALITY_SLACK_PERMILLE:
            return sample.at
    return None


def most_held(samples: Sequence[Sample]) -> int:
    """The most accelerators that any sample saw."""
    return max((sample.held for sample in samples), default=0)


def _desired(sample: Sample, tier: str) -> int:
    found = sample.tier(tier)
    return found.desired if found else 0


def _is_swapped(sample: Sample, baseline: Baseline) -> bool:
    return _desired(sample, baseline.tier) < baseline.replicas and sample.is_settled


def _is_back(sample: Sample, baseline: Baseline) -> bool:
    tier = sample.tier(baseline.tier)
    return tier is not None and tier.ready >= baseline.replicas and not sample.swap_step


def _first(samples: Sequence[Sample], after: float, holds: Callable[[Sample], bool]) -> float | None:
    return next((sample.at for sample in samples if sample.at >= after and holds(sample)), None)
