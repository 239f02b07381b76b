"""Sums over request records: who was answered, how fast, by which tier. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from e2e.load.record import RequestRecord

NO_TIER = "none"  # of a request that no tier accepted, or whose answer named none


@dataclass(frozen=True, slots=True)
class Account:
    """sent = ok + failed."""

    sent: int
    ok: int
    failed: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles over completed answers; None without any."""

    ttft_p50_seconds: float | None
    ttft_p95_seconds: float | None
    tpot_p50_seconds: float | None
    tpot_p95_seconds: float | None


def account(records: Iterable[RequestRecord]) -> Account:
    """Count the records."""
    outcomes = Counter(record.ok for record in records)
    return Account(outcomes.total(), outcomes[True], outcomes[False])


def account_by_tier(records: Iterable[RequestRecord]) -> dict[str, Account]:
    """Counts per tier that served; requests without one are under `none`."""
    groups: dict[str, list[RequestRecord]] = {}
    for record in records:
        groups.setdefault(tier_of(record), []).append(record)
    return {tier: account(group) for tier, group in sorted(groups.items())}


def tier_of(record: RequestRecord) -> str:
    """The tier that the answer named."""
    return record.tier_served or NO_TIER


def latency(records: Iterable[RequestRecord]) -> Latency:
    """Quantiles of the answered ones."""
    answered = [record for record in records if record.ok]
    ttft = [value for record in answered if (value := record.ttft_seconds) is not None]
    tpot = [value for record in answered if (value := record.tpot_seconds) is not None]
    return Latency(quantile(ttft, 0.5), quantile(ttft, 0.95), quantile(tpot, 0.5), quantile(tpot, 0.95))


def attainment(records: Iterable[RequestRecord], ttft_seconds: float, tpot_seconds: float) -> float | None:
    """Share of requests, 0..1, that were answered within both objectives; None without requests."""
    met = [_meets(record, ttft_seconds, tpot_seconds) for record in records]
    return sum(met) / len(met) if met else None


def served_quality_permille(records: Iterable[RequestRecord]) -> float | None:
    """Mean of what the answers themselves said; None when none said it."""
    values = [r.quality_permille for r in records if r.ok and r.quality_permille is not None]
    return sum(values) / len(values) if values else None


def errors(records: Iterable[RequestRecord], most: int = 5) -> list[tuple[str, int]]:
    """The commonest error texts and how often each came."""
    return Counter(record.error for record in records if record.error).most_common(most)


def quantile(values: Sequence[float], q: float) -> float | None:
    """Nearest-rank quantile: a value that was measured, never one in between. None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def _meets(record: RequestRecord, ttft_seconds: float, tpot_seconds: float) -> bool:
    ttft, tpot = record.ttft_seconds, record.tpot_seconds
    return record.ok and ttft is not None and ttft <= ttft_seconds and (tpot is None or tpot <= tpot_seconds)
