"""How far a tier's card may be trusted: its predicted time per token against what is observed, within bounds.

Unbounded factors oscillate on ramps, and replicas that are still cold look slow and over-scale: both are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from adaptive_operator.decide.curve import Curve, Objective, Request, predicted_tpot_milliseconds, saturation_rate


@dataclass(frozen=True, slots=True)
class Correction:
    """A factor on a card's rate, kept from pass to pass. `bounded_since`: when it came to stand at a bound."""

    factor: float = 1.0
    updated_at: float | None = None
    bounded_since: float | None = None


@dataclass(frozen=True, slots=True)
class TierSample:
    """What was seen of a tier since the last pass: requests that ended, requests/s per replica, their mean size.

    `ready_since`: of each replica that serves. `starting`: are there replicas that do not serve yet?
    """

    requests: int
    rate: float
    request: Request
    tpot_milliseconds: float
    ready_since: tuple[float, ...]
    starting: bool = False


@dataclass(frozen=True, slots=True)
class CorrectionSettings:
    """When a sample counts, and how much."""

    least: float = 0.6
    most: float = 1.2
    memory_seconds: float = 300.0
    least_requests: int = 50
    # Below, the batch is one request and says little; above, waiting is measured and not speed.
    least_utilisation: float = 0.3
    most_utilisation: float = 0.95
    # Replicas that were ready for less are cold: caches are empty, kernels are being tuned.
    warm_seconds: float = 120.0
    # At a bound for this long the card is wrong, not the weather.
    stale_after_seconds: float = 600.0


def correct(
    before: Correction,
    curve: Curve,
    objective: Objective,
    sample: TierSample,
    now: float,
    settings: CorrectionSettings = CorrectionSettings(),
) -> Correction:
    """The factor after a sample: predicted / observed time per token, averaged over five minutes and bounded.

    A sample that does not count leaves everything as it was. Example: observed 12 ms where 9 ms are predicted pulls the
    factor towards 0.75; after 300 s it has gone 63 % of the way.
    """
    predicted = predicted_tpot_milliseconds(curve, sample.request, sample.rate)
    if not _counts(curve, objective, sample, now, settings) or not math.isfinite(predicted):
        return before
    elapsed = settings.memory_seconds if before.updated_at is None else max(0.0, now - before.updated_at)
    gain = 1 - math.exp(-elapsed / settings.memory_seconds)
    seen = min(settings.most, max(settings.least, predicted / sample.tpot_milliseconds))
    factor = before.factor + gain * (seen - before.factor)
    at_bound = seen in (settings.least, settings.most)
    since = (before.bounded_since if before.bounded_since is not None else now) if at_bound else None
    return replace(before, factor=factor, updated_at=now, bounded_since=since)


def is_stale(correction: Correction, now: float, settings: CorrectionSettings = CorrectionSettings()) -> bool:
    """Has the tier been out of the factor's reach, in samples over so long, that its card has to be measured again?

    A time without samples says nothing: one sample at a bound and then silence is no staleness.
    """
    since, last = correction.bounded_since, correction.updated_at
    return since is not None and last is not None and last - since >= settings.stale_after_seconds


def warm_replicas(ready_since: Sequence[float], now: float, settings: CorrectionSettings = CorrectionSettings()) -> int:
    """Replicas that have been ready for long enough to be measured."""
    return sum(now - since >= settings.warm_seconds for since in ready_since)


def _counts(curve: Curve, objective: Objective, sample: TierSample, now: float, settings: CorrectionSettings) -> bool:
    if (
        sample.starting
        or not sample.ready_since
        or warm_replicas(sample.ready_since, now, settings) < len(sample.ready_since)
    ):
        return False
    if sample.requests < settings.least_requests or not 0 < sample.tpot_milliseconds < math.inf:
        return False
    most = saturation_rate(curve, sample.request, objective)
    return most > 0 and settings.least_utilisation <= sample.rate / most <= settings.most_utilisation
