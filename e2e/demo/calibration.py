"""What one replica carries on this machine within the objective, from closed-loop records. Pure.

Throughput is counted in tokens per second over the middle of each level, so that answers that straddle its edges
count for what they did inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from e2e.load.accounting import quantile
from e2e.load.record import RequestRecord

WARM_IN = 0.25  # share of a level that is left out: the batch still fills
# A closed loop never bunches, Poisson arrivals do: one replica attains its objective up to about this share of it.
ATTAINMENT_FACTOR = 0.85


@dataclass(frozen=True, slots=True)
class Objective:
    """The latency objective, from the AdaptiveModel."""

    ttft_seconds: float
    tpot_seconds: float
    attainment: float  # 0..1


@dataclass(frozen=True, slots=True)
class Level:
    """What was measured with a fixed number of requests in flight."""

    in_flight: int
    requests_per_second: float  # tokens per second / tokens of the reference request
    ttft_seconds: float | None  # at the objective's attainment
    tpot_seconds: float | None
    meets: bool


def measure_levels(
    records: Sequence[RequestRecord],
    levels: Sequence[int],
    level_seconds: float,
    begin: float,
    output_tokens: int,
    objective: Objective,
) -> list[Level]:
    """One result per level; `begin` is when the first level started."""
    results = []
    for number, in_flight in enumerate(levels):
        start = begin + number * level_seconds
        window = (start + WARM_IN * level_seconds, start + level_seconds)
        rate = sum(tokens_between(r, *window) for r in records) / (window[1] - window[0]) / output_tokens
        during = [r for r in records if r.ok and r.step == number]
        ttft = quantile([v for r in during if (v := r.ttft_seconds) is not None], objective.attainment)
        tpot = quantile([v for r in during if (v := r.tpot_seconds) is not None], objective.attainment)
        meets = ttft is not None and ttft <= objective.ttft_seconds and (tpot or 0.0) <= objective.tpot_seconds
        results.append(Level(in_flight, rate, ttft, tpot, meets))
    return results


def capacity_within(levels: Sequence[Level]) -> float | None:
    """Requests per second that one replica answers within the objective; None when no level meets it."""
    rates = [level.requests_per_second for level in levels if level.meets]
    return max(rates) * ATTAINMENT_FACTOR if rates else None


def tokens_between(record: RequestRecord, start: float, end: float) -> float:
    """Tokens of a record that fell between two times, taken as evenly spread from its first to its last."""
    if record.first_token_at is None or record.last_token_at is None:
        return 0.0
    if record.last_token_at <= record.first_token_at:
        return float(record.tokens) if start <= record.first_token_at < end else 0.0
    overlap = min(end, record.last_token_at) - max(start, record.first_token_at)
    return record.tokens * max(0.0, overlap) / (record.last_token_at - record.first_token_at)


def scale_card(declared: float, declared_reference: float, measured_reference: float) -> float:
    """A tier that was not measured keeps its declared ratio to one that was."""
    return declared * measured_reference / declared_reference
