"""Which questions one pass asks Prometheus: each once per pool, answered for all of its models. Pure.

Knows metric names (docs/architecture.md) and windows; neither asks nor judges the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adaptive_operator.observe.promql import (
    Matcher,
    aggregate,
    at,
    duration,
    equal,
    max_over,
    min_over,
    number_or_zero,
    one_of,
    over,
    rate,
    selector,
    sum_by,
)

ARRIVALS: Final = "adaptive_router_arrivals_total"
ROUTER_QUEUE: Final = "adaptive_router_queue_length"
TTFT: Final = "adaptive_router_ttft_seconds"
TPOT: Final = "adaptive_router_tpot_seconds"
REQUESTS: Final = "adaptive_router_requests_total"
QUALITY_SUM: Final = "adaptive_router_quality_sum_total"
ENGINE_RUNNING: Final = "adaptive_engine_running"
ENGINE_WAITING: Final = "adaptive_engine_waiting"

BY_MODEL: Final = ("namespace", "model")
BY_ROUTER: Final = ("namespace", "model", "pod")
BY_POD: Final = ("namespace", "pod")
BY_TIER: Final = ("namespace", "model", "tier")
BY_LEVEL: Final = (*BY_TIER, "level")
_BY_ROUTE: Final = ("namespace", "pod", "model", "tier", "level")
# How far back a reading's age is followed when the last scrapes failed: Prometheus' own look-back.
_AGE_RANGE_SECONDS: Final = 300.0
# Bins of the arrivals' history: enough for the deviation of 30 one-step errors.
HISTORY_BINS: Final = 40
_LEAST_BIN_SECONDS: Final = 15.0
# Earlier periods that a season is told from.
SEASON_PERIODS: Final = 2
# Lengths of a season's bins. They divide an hour, and so every period, which is whole hours: bins of all periods begin
# at the same time of theirs.
_SEASON_BINS: Final = (60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 600.0, 1200.0, 1800.0)


class QueryName(StrEnum):
    """Names of the queries: in `MetricsAvailable`, in `adaptive_operator_rejected_samples_total{query}` and in logs."""

    ARRIVALS = "arrivals"
    RECENT_ARRIVALS = "recent_arrivals"
    PEAK_ARRIVALS = "peak_arrivals"
    ARRIVAL_HISTORY = "arrival_history"
    PAST_ARRIVALS = "past_arrivals"
    ROUTER_QUEUE = "router_queue"
    ENGINE_QUEUE = "engine_queue"
    TTFT_P95 = "ttft_p95"
    TPOT_P95 = "tpot_p95"
    SERVED_QUALITY = "served_quality"
    ROUTER_AGE = "router_age"
    ROUTER_SERIES = "router_series"
    POD_WORK = "pod_work"
    POD_WORK_AGE = "pod_work_age"
    POD_SERIES = "pod_series"
    TIER_ANSWERS = "tier_answers"
    TIER_WAITING = "tier_waiting"
    TIER_TPOT = "tier_tpot"
    TIER_TTFT_P95 = "tier_ttft_p95"
    TIER_TPOT_P95 = "tier_tpot_p95"


@dataclass(frozen=True, slots=True)
class Query:
    """One question; the answer has at most one value per combination of `labels`."""

    name: QueryName
    expression: str
    labels: tuple[str, ...]
    hold_seconds: int | None = None  # of PEAK_ARRIVALS: the hold window that it was asked for
    periods_back: int | None = None  # of PAST_ARRIVALS: 1 for the last period


@dataclass(frozen=True, slots=True)
class Windows:
    """How far back the queries look, from the scrape interval."""

    scrape_seconds: float

    @property
    def stable_seconds(self) -> float:
        """Window of steady rates: a rate needs two samples, and one missed scrape must not empty it."""
        return max(15.0, 4 * self.scrape_seconds)

    @property
    def recent_seconds(self) -> float:
        """The panic window."""
        return max(6.0, 3 * self.scrape_seconds)

    @property
    def measured_seconds(self) -> float:
        """What a tier's speed is measured over: two minutes, and at least two windows of steady rates."""
        return max(120.0, 2 * self.stable_seconds)

    @property
    def bin_seconds(self) -> float:
        """Length of a bin of the arrivals' history."""
        return max(_LEAST_BIN_SECONDS, self.scrape_seconds)

    @property
    def bin_window_seconds(self) -> float:
        """What a bin's rate is taken over: at least the bin, and as many scrapes as the panic window."""
        return max(self.bin_seconds, self.recent_seconds)

    @property
    def season_bin_seconds(self) -> float:
        """Length of a bin of earlier periods: at least a minute and four scrapes."""
        return next((length for length in _SEASON_BINS if length >= 4 * self.scrape_seconds), 3600.0)

    @property
    def season_scrapes(self) -> int:
        """Scrapes without which such a bin is unknown: all but one."""
        return max(2, int(self.season_bin_seconds / self.scrape_seconds) - 1)


@dataclass(frozen=True, slots=True)
class ModelScope:
    """What the queries need to know of one model."""

    namespace: str
    name: str
    hold_seconds: int


def build_queries(models: Sequence[ModelScope], windows: Windows) -> tuple[Query, ...]:
    """All queries of one pass over one pool's models."""
    scope = (one_of("namespace", (m.namespace for m in models)), one_of("model", (m.name for m in models)))
    peaks = (_peak(hold, models, windows) for hold in sorted({m.hold_seconds for m in models}))
    service = (*_service_queries(scope, windows), *_tier_queries(scope, windows))
    return (*_load_queries(scope, windows), *peaks, *service, *_pod_queries(scope))


def _load_queries(scope: tuple[Matcher, ...], windows: Windows) -> tuple[Query, ...]:
    arrivals = selector(ARRIVALS, *scope)
    step = duration(windows.scrape_seconds)
    # A failed scrape hides the series at once; the subquery still knows when it was last seen.
    seen = f"timestamp({arrivals}) or max_over_time(timestamp({arrivals})[{duration(_AGE_RANGE_SECONDS)}:{step}])"
    return (
        Query(QueryName.ARRIVALS, sum_by(BY_MODEL, rate(arrivals, windows.stable_seconds)), BY_MODEL),
        Query(QueryName.RECENT_ARRIVALS, sum_by(BY_MODEL, rate(arrivals, windows.recent_seconds)), BY_MODEL),
        Query(QueryName.ARRIVAL_HISTORY, _history(arrivals, windows), BY_MODEL),
        Query(QueryName.ROUTER_AGE, f"time() - {aggregate('max', BY_ROUTER, seen)}", BY_ROUTER),
        Query(QueryName.ROUTER_SERIES, aggregate("count", BY_ROUTER, arrivals), BY_ROUTER),
        Query(QueryName.ROUTER_QUEUE, sum_by(BY_MODEL, selector(ROUTER_QUEUE, *scope)), BY_MODEL),
        Query(QueryName.ENGINE_QUEUE, sum_by(BY_MODEL, selector(ENGINE_WAITING, *scope)), BY_MODEL),
    )


def _history(arrivals: str, windows: Windows) -> str:
    """The rate in bins. Asked with every pass, so nothing has to be remembered, and a restart loses nothing."""
    binned = sum_by(BY_MODEL, rate(arrivals, windows.bin_window_seconds))
    return over(binned, HISTORY_BINS * windows.bin_seconds, windows.bin_seconds)


def build_past_queries(
    models: Sequence[ModelScope], windows: Windows, begin: float, end: float, period_seconds: float
) -> tuple[Query, ...]:
    """The rate between two times of this period (Unix seconds, whole bins), as it was in each of the earlier ones.

    Asked apart from the others: the past need not be asked with every pass.
    """
    scope = (one_of("namespace", (m.namespace for m in models)), one_of("model", (m.name for m in models)))
    binned = _whole_bins(selector(ARRIVALS, *scope), windows)
    span, step = end - begin, windows.season_bin_seconds
    return tuple(
        Query(
            QueryName.PAST_ARRIVALS,
            at(over(binned, span, step), end - back * period_seconds),
            BY_MODEL,
            periods_back=back,
        )
        for back in range(1, SEASON_PERIODS + 1)
    )


def _whole_bins(arrivals: str, windows: Windows) -> str:
    """The rate in the bins that all series of a model were there for, but for one scrape.

    A router that came or went, or a Prometheus that was away, makes a bin unknown: else it would look like less load.
    """
    seconds = windows.season_bin_seconds
    counted = aggregate("min", BY_MODEL, f"count_over_time({arrivals}[{duration(seconds)}])")
    known = f"on ({', '.join(BY_MODEL)}) {counted} >= {windows.season_scrapes}"
    return f"{sum_by(BY_MODEL, rate(arrivals, seconds))} and {known}"


def _peak(hold_seconds: int, models: Iterable[ModelScope], windows: Windows) -> Query:
    """The maximum of the stable rate over the hold window of those models that have this window."""
    own = [m for m in models if m.hold_seconds == hold_seconds]
    series = selector(ARRIVALS, one_of("namespace", (m.namespace for m in own)), one_of("model", (m.name for m in own)))
    stable = sum_by(BY_MODEL, rate(series, windows.stable_seconds))
    # Half a window: each arrival lies inside at least one evaluated window.
    step = windows.stable_seconds / 2
    return Query(
        QueryName.PEAK_ARRIVALS,
        max_over(stable, max(hold_seconds, 2 * step), step),
        BY_MODEL,
        hold_seconds=hold_seconds,
    )


def _service_queries(scope: tuple[Matcher, ...], windows: Windows) -> tuple[Query, ...]:
    window = windows.stable_seconds
    answered = rate(selector(REQUESTS, *scope, equal("code", "200")), window)
    summed = selector(QUALITY_SUM, *scope)
    # Only routes whose quality is known take part: elsewhere the sum stays 0 while requests are answered.
    known = sum_by(BY_MODEL, f"{answered} and on ({', '.join(_BY_ROUTE)}) ({summed} > 0)")
    quality = f"1000 * {sum_by(BY_MODEL, rate(summed, window))} / {known}"
    return (
        Query(QueryName.TTFT_P95, _p95(TTFT, scope, window), BY_MODEL),
        Query(QueryName.TPOT_P95, _p95(TPOT, scope, window), BY_MODEL),
        Query(QueryName.SERVED_QUALITY, quality, BY_MODEL),
    )


def _p95(histogram: str, scope: tuple[Matcher, ...], window: float) -> str:
    return _quantile(0.95, histogram, scope, BY_MODEL, window)


def _quantile(part: float, histogram: str, scope: tuple[Matcher, ...], labels: Sequence[str], window: float) -> str:
    buckets = sum_by((*labels, "le"), rate(selector(f"{histogram}_bucket", *scope), window))
    return f"histogram_quantile({part:g}, {buckets})"


def _tier_queries(scope: tuple[Matcher, ...], windows: Windows) -> tuple[Query, ...]:
    """What each tier answered, how late, and whether its engines were busy all the while: the least over the window.

    A mean would take a load that has only just risen for a tier that was saturated at the low rate before.
    """
    measured, stable = windows.measured_seconds, windows.stable_seconds
    answered = rate(selector(REQUESTS, *scope, equal("code", "200")), measured)
    waiting = sum_by(BY_TIER, selector(ENGINE_WAITING, *scope))
    median = _quantile(0.5, TPOT, scope, BY_TIER, stable)
    # While nobody streams the median is not a number. Left out, a burst now and then would be all of the window.
    tpot = number_or_zero(median, sum_by(BY_TIER, rate(selector(f"{TPOT}_count", *scope), stable)))
    return (
        Query(QueryName.TIER_ANSWERS, sum_by(BY_LEVEL, answered), BY_LEVEL),
        Query(QueryName.TIER_WAITING, min_over(waiting, measured, windows.scrape_seconds), BY_TIER),
        Query(QueryName.TIER_TPOT, min_over(tpot, measured, stable / 2), BY_TIER),
        Query(QueryName.TIER_TTFT_P95, _quantile(0.95, TTFT, scope, BY_TIER, measured), BY_TIER),
        Query(QueryName.TIER_TPOT_P95, _quantile(0.95, TPOT, scope, BY_TIER, measured), BY_TIER),
    )


def _pod_queries(scope: tuple[Matcher, ...]) -> tuple[Query, ...]:
    running, waiting = selector(ENGINE_RUNNING, *scope), selector(ENGINE_WAITING, *scope)
    work = f"{sum_by(BY_POD, running)} + {sum_by(BY_POD, waiting)}"
    return (
        Query(QueryName.POD_WORK, work, BY_POD),
        Query(QueryName.POD_WORK_AGE, f"time() - {aggregate('min', BY_POD, f'timestamp({running})')}", BY_POD),
        Query(QueryName.POD_SERIES, aggregate("count", BY_POD, running), BY_POD),
    )
