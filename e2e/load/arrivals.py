"""When requests are due: a step schedule turned into arrival times. Pure; knows no clock and no network.

Arrivals are drawn in units of expected requests and mapped through the schedule's cumulative rate, so that a rate that
changes in the middle of a gap bends the gap instead of restarting it (the exact form of a Poisson process with steps).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_REQUESTS = 20_000  # bound on one run, whatever the schedule says


class Pattern(StrEnum):
    """How arrivals are spread over a step."""

    POISSON = "poisson"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of constant expected rate."""

    rate_per_second: float
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request that is due `offset_seconds` after the start of the run."""

    index: int
    offset_seconds: float
    step: int


def parse_steps(text: str) -> tuple[Step, ...]:
    """Read `0.4x30,1x30` (rate per second x seconds); raises ValueError naming the bad part."""
    steps = []
    for part in text.split(","):
        rate, _, duration = part.strip().partition("x")
        try:
            step = Step(float(rate), float(duration))
        except ValueError as error:
            raise ValueError(f"step {part!r}: write RATExSECONDS, for example 0.5x30") from error
        if not (0 <= step.rate_per_second <= 1000 and 0 < step.duration_seconds <= 3600):
            raise ValueError(f"step {part!r}: the rate must be 0-1000 per second, the duration 1-3600 seconds")
        steps.append(step)
    return tuple(steps)


def draw_arrivals(
    steps: Sequence[Step], pattern: Pattern, seed: int, max_requests: int = MAX_REQUESTS
) -> Iterator[Arrival]:
    """Yield arrivals in order of time. The same seed gives the same arrivals; at most `max_requests` of them."""
    gaps = _unit_gaps(pattern, seed)
    due = next(gaps)
    index = 0
    step_start_seconds = 0.0
    requests_before = 0.0
    for number, step in enumerate(steps):
        requests_after = requests_before + step.rate_per_second * step.duration_seconds
        while due < requests_after and index < max_requests:
            offset = step_start_seconds + (due - requests_before) / step.rate_per_second
            yield Arrival(index, offset, number)
            index += 1
            due += next(gaps)
        requests_before = requests_after
        step_start_seconds += step.duration_seconds


def _unit_gaps(pattern: Pattern, seed: int) -> Iterator[float]:
    """Gaps with mean 1. Constant arrivals start half a gap in, so that a step holds rate x duration of them."""
    if pattern is Pattern.CONSTANT:
        yield 0.5
        while True:
            yield 1.0
    generator = random.Random(seed)
    while True:
        yield generator.expovariate(1.0)
