"""A run over time, in equal steps: what the plots show. Pure; draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from adaptive_operator.simulate.requests import Request
from adaptive_operator.simulate.run import RunResult
from adaptive_operator.simulate.scores import is_attained

BINS: Final = 120
_LEAST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Series:
    """Per bin: its start (s), arrivals/s, attained/s, mean quality of what was attained (NaN: nothing)."""

    times: tuple[float, ...]
    arrivals: tuple[float, ...]
    attained: tuple[float, ...]
    quality: tuple[float, ...]


def build_series(result: RunResult) -> Series:
    """At most 120 bins of at least 10 s."""
    width = max(_LEAST_SECONDS, result.seconds / BINS)
    bins: list[list[Request]] = [[] for _ in range(max(math.ceil(result.seconds / width), 1))]
    for request in result.requests:
        bins[min(int(request.arrival // width), len(bins) - 1)].append(request)
    attained = [[r for r in found if is_attained(r, result.scenario)] for found in bins]
    return Series(
        times=tuple(i * width for i in range(len(bins))),
        arrivals=tuple(len(found) / width for found in bins),
        attained=tuple(len(found) / width for found in attained),
        quality=tuple(_mean([r.quality for r in found]) for found in attained),
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
