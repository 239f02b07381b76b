"""How much is asked for, and how far that may be trusted. Unknown is never zero.

Reads accepted samples only; how they were had is not known here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import ModelMetrics, Reading, Sample, Unknown

_STEP: Final = 1.1
_ALMOST_NOTHING: Final = 1e-9


class Trust(IntEnum):
    """What the readings are good for."""

    NONE = 0  # unknown, or too old: change no replica
    UPWARD = 1  # stale or incomplete: add, never take away
    FULL = 2


@dataclass(frozen=True, slots=True)
class Demand:
    """Demand of one model in requests/s. `rate` is None when it is unknown."""

    trust: Trust
    rate: float | None  # with what waits in the queue
    arrivals: float | None  # without it
    peak: float | None  # most of the hold window, never less than `rate`
    stale: bool = False  # the doubt is age, not absence
    doubt: str = ""  # which query is missing or stale and why; empty when all is well
    chance: float = 0.0  # standard deviation of `rate` from counting arrivals (requests/s)
    is_burst: bool = False  # most of the stable window's arrivals came just now: whether they last is not known yet
    lasting: float | None = None  # `arrivals`, without a burst that is over already


def in_steps(rate: float) -> float:
    """A demand (requests/s) rounded up to the next of steps of a tenth, so that what is said of it rarely moves."""
    return _STEP ** math.ceil(math.log(rate, _STEP) - _ALMOST_NOTHING) if rate > 0 else 0.0


def read_demand(metrics: ModelMetrics, settings: DecideSettings) -> Demand:
    """Demand = stable arrivals, or the panic window's if far above, plus what waits spread over `backlog_seconds`."""
    arrivals = metrics.arrivals
    if isinstance(arrivals, Unknown):
        return Demand(Trust.NONE, None, None, None, doubt=f"{arrivals.query}: {arrivals.cause}")
    if arrivals.age_seconds > settings.hold_after_stale_seconds:
        limit = f"{settings.hold_after_stale_seconds:.0f} s"
        return Demand(Trust.NONE, None, None, None, stale=True, doubt=f"arrivals: last scrape is older than {limit}")
    burst = _burst(arrivals.value, metrics.recent_arrivals, settings)
    rate = arrivals.value if burst is None else burst
    queue = metrics.queue.value if isinstance(metrics.queue, Sample) else 0.0
    total = rate + queue / settings.backlog_seconds
    peak = max(total, metrics.peak_arrivals.value) if isinstance(metrics.peak_arrivals, Sample) else None
    stale, doubt = _doubt(metrics, settings)
    window = settings.recent_window_seconds if burst is not None else settings.arrivals_window_seconds
    chance = math.sqrt(rate / window)
    lasting = _lasting(rate, metrics.recent_arrivals, settings)
    trust = Trust.UPWARD if doubt else Trust.FULL
    return Demand(trust, total, rate, peak, stale, doubt, chance, burst is not None, lasting)


def _burst(stable: float, recent: Reading, settings: DecideSettings) -> float | None:
    """The panic window's rate when it is far above the stable one: a step must not wait for the long window."""
    if isinstance(recent, Sample) and recent.value > settings.panic_ratio * stable:
        return recent.value
    return None


def _lasting(rate: float, recent: Reading, settings: DecideSettings) -> float:
    """The rate, or the panic window's when that is lower beyond chance: a burst that is over still fills the long one.

    Example: 12 requests at once are 0.8/s over 15 s; 6 s later the panic window is empty, and nothing lasts.
    """
    if isinstance(recent, Sample) and recent.value < rate - math.sqrt(rate / settings.recent_window_seconds):
        return recent.value
    return rate


def _doubt(metrics: ModelMetrics, settings: DecideSettings) -> tuple[bool, str]:
    """(is it age?, which reading forbids to take capacity away and why)."""
    limit = settings.stale_after_scrapes * settings.scrape_interval_seconds
    needed = (("arrivals", metrics.arrivals), ("peak arrivals", metrics.peak_arrivals), ("queue", metrics.queue))
    for name, reading in needed:
        if isinstance(reading, Unknown):
            return False, f"{reading.query}: {reading.cause}"
        if reading.age_seconds > limit:
            return True, f"{name}: last scrape is older than {settings.stale_after_scrapes:g} scrapes ({limit:g} s)"
    return False, ""
