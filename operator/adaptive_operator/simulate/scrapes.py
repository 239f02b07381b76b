"""What Prometheus would know: counters and gauges as of the last scrapes, and its answers to the operator's queries.

Nothing fresher ever reaches a policy that reads metrics. Answers can be made to fail, to age or to be NaN.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import Final

from adaptive_operator.observe.prometheus import Answer, Failed, Rows
from adaptive_operator.observe.queries import HISTORY_BINS, Query, QueryName, Windows
from adaptive_operator.simulate.dispatch import Dispatcher
from adaptive_operator.simulate.events import EPOCH, EventQueue
from adaptive_operator.simulate.plant import Plant

NAMESPACE: Final = "simulation"
_LONGEST_SECONDS: Final = 3700.0  # history that any window may need


class Fault(StrEnum):
    """What can be wrong with the metrics."""

    GONE = "gone"  # Prometheus does not answer
    STALE = "stale"  # it answers with what it scraped before the fault
    NAN = "nan"  # it answers with values that are no numbers


FaultAt = Callable[[float], Fault | None]


@dataclass(frozen=True, slots=True)
class PodScrape:
    """One engine pod's gauges."""

    name: str
    tier: str
    running: int
    waiting: int
    kv_share: float
    ready: bool


@dataclass(frozen=True, slots=True)
class Scrape:
    """Everything that was read at one moment."""

    at: float
    arrivals: int
    router_queue: int
    pods: tuple[PodScrape, ...]
    answers: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by tier and level, from the start on

    def waiting(self, tier: str) -> float | None:
        """In the engines of a tier; None: it has none."""
        waiting = [pod.waiting for pod in self.pods if pod.tier == tier]
        return float(sum(waiting)) if waiting else None


@dataclass(frozen=True, slots=True)
class Times:
    """What was timed between two scrapes, as (tier, seconds)."""

    at: float
    ttft: Sequence[tuple[str, float]]
    tpot: Sequence[tuple[str, float]]


@dataclass(slots=True)
class Scraper:
    """Scrapes every `windows.scrape_seconds`, and answers queries from what it has."""

    events: EventQueue
    plant: Plant
    dispatcher: Dispatcher
    windows: Windows
    model: str
    fault_at: FaultAt = lambda now: None
    history: deque[Scrape] = field(default_factory=deque)
    _rates: deque[tuple[float, float]] = field(default_factory=deque)  # (time, stable rate) at each scrape
    _bins: deque[tuple[float, float]] = field(default_factory=deque)  # the same over the window of a bin
    _past: dict[float, float] = field(default_factory=dict)  # rate of a season's bin, by its end; never forgotten
    _times: deque[Times] = field(default_factory=deque)  # of the measured window
    _medians: deque[tuple[float, Mapping[str, float]]] = field(default_factory=deque)  # of time per token, by tier

    def start(self) -> None:
        """Scrape now, and from now on."""
        if self.fault_at(self.events.now) is not Fault.STALE:
            self.history.append(self._read())
            rate = self._rate(self.windows.stable_seconds)
            if rate is not None:
                self._rates.append((self.events.now, rate))
            binned = self._rate(self.windows.bin_window_seconds)
            if binned is not None:
                self._bins.append((self.events.now, binned))
            self._note_past()
            self._note_times()
            self._forget()
        self.events.after(self.windows.scrape_seconds, self.start)

    @property
    def last(self) -> Scrape | None:
        """The newest scrape, at most one period old while nothing is wrong."""
        return self.history[-1] if self.history else None

    def answer(self, queries: Iterable[Query]) -> dict[Query, Answer]:
        """Answers to the operator's queries, as of now."""
        fault = self.fault_at(self.events.now)
        if fault is Fault.GONE:
            return {query: Failed("connection refused") for query in queries}
        answers: dict[Query, Answer] = {}
        for query in queries:
            values, series = self._values(query), self._series(query)
            if fault is Fault.NAN:
                values = dict.fromkeys(values, math.nan)
                series = {key: tuple((at, math.nan) for at, _ in found) for key, found in series.items()}
            answers[query] = Rows(values, series=series)
        return answers

    def past(self, begin: float, end: float) -> Rows:
        """The rate in the bins of a season that end after `begin` and up to `end` (Unix seconds).

        Faults are not asked for: the operator remembers what it was answered before.
        """
        step = self.windows.season_bin_seconds
        ends = [begin + (i + 1) * step for i in range(round((end - begin) / step))]
        found = tuple((at, rate) for at in ends if (rate := self._past.get(at - EPOCH)) is not None)
        return Rows({}, series={(NAMESPACE, self.model): found} if found else {})

    def _values(self, query: Query) -> Mapping[tuple[str, ...], float]:
        last = self.last
        if last is None:
            return {}
        model, router = (NAMESPACE, self.model), (NAMESPACE, self.model, router_pod(self.model))
        match query.name:
            case QueryName.ARRIVALS:
                return _known(model, self._rate(self.windows.stable_seconds))
            case QueryName.RECENT_ARRIVALS:
                return _known(model, self._rate(self.windows.recent_seconds))
            case QueryName.PEAK_ARRIVALS:
                return _known(model, self._peak(query.hold_seconds or 0))
            case QueryName.ROUTER_QUEUE:
                return {model: float(last.router_queue)}
            case QueryName.ENGINE_QUEUE:
                return {model: float(sum(pod.waiting for pod in last.pods))} if last.pods else {}
            case QueryName.ROUTER_AGE:
                return {router: self.events.now - last.at}
            case QueryName.ROUTER_SERIES:
                return {router: 1.0}
        return self._of_pods(query.name, last) or self._of_service(query.name, model)

    def _of_pods(self, name: QueryName, last: Scrape) -> Mapping[tuple[str, ...], float]:
        match name:
            case QueryName.POD_WORK:
                return {(NAMESPACE, pod.name): float(pod.running + pod.waiting) for pod in last.pods}
            case QueryName.POD_WORK_AGE:
                return {(NAMESPACE, pod.name): self.events.now - last.at for pod in last.pods}
            case QueryName.POD_SERIES:
                return {(NAMESPACE, pod.name): 1.0 for pod in last.pods}
        return {}

    def _of_service(self, name: QueryName, model: tuple[str, str]) -> Mapping[tuple[str, ...], float]:
        """How fast requests were answered, and by which tiers."""
        match name:
            case QueryName.TIER_TTFT_P95:
                return self._p95(model, [found for times in self._times for found in times.ttft])
            case QueryName.TIER_TPOT_P95:
                return self._p95(model, [found for times in self._times for found in times.tpot])
            case QueryName.TIER_ANSWERS:
                return self._answers(model)
            case QueryName.TIER_WAITING:
                return self._least(model, self._waiting_of)
            case QueryName.TIER_TPOT:
                return self._least(model, self._medians_of)
        return {}

    def _p95(self, model: tuple[str, str], timed: Iterable[tuple[str, float]]) -> Mapping[tuple[str, ...], float]:
        """By tier."""
        return {(*model, tier): _quantile(0.95, values) for tier, values in _by_tier(timed).items()}

    def _answers(self, model: tuple[str, str]) -> Mapping[tuple[str, ...], float]:
        """Answers/s by tier and level, over the measured window."""
        routes = [(tier.name, lv) for tier in self.plant.scenario.tiers for lv in [v.name for v in tier.levels] or [""]]
        inside = self._since(self.windows.measured_seconds)
        if len(inside) < 2:
            return {}
        first, last = inside[0], inside[-1]
        seconds = last.at - first.at
        return {(*model, *key): (last.answers.get(key, 0) - first.answers.get(key, 0)) / seconds for key in routes}

    def _least(
        self, model: tuple[str, str], values_of: Callable[[str, float], list[float]]
    ) -> Mapping[tuple[str, ...], float]:
        """By tier, the least of the values that the measured window has of it."""
        begin = self.events.now - self.windows.measured_seconds
        found = {tier.name: values_of(tier.name, begin) for tier in self.plant.scenario.tiers}
        return {(*model, tier): min(values) for tier, values in found.items() if values}

    def _waiting_of(self, tier: str, begin: float) -> list[float]:
        inside = (scrape for scrape in self.history if scrape.at > begin)
        return [waiting for scrape in inside if (waiting := scrape.waiting(tier)) is not None]

    def _medians_of(self, tier: str, begin: float) -> list[float]:
        """At each scrape; 0 where no request of the tier was timed."""
        return [medians.get(tier, 0.0) for at, medians in self._medians if at > begin]

    def _note_past(self) -> None:
        """The bin of a season that ended last, with what was scraped in it, unless more than one scrape is missing."""
        step = self.windows.season_bin_seconds
        end = math.floor(self.events.now / step) * step
        inside = [scrape for scrape in self._since(2 * step) if end - step < scrape.at <= end]
        if end not in self._past and len(inside) >= self.windows.season_scrapes:
            self._past[end] = (inside[-1].arrivals - inside[0].arrivals) / (inside[-1].at - inside[0].at)

    def _note_times(self) -> None:
        """Keep what the router timed for the measured window, and its medians as they are now."""
        now = self.events.now
        self._times.append(Times(now, *self.dispatcher.counters.take_times()))
        while self._times[0].at <= now - self.windows.measured_seconds:
            self._times.popleft()
        begin = now - self.windows.stable_seconds
        recent = _by_tier(found for times in self._times if times.at > begin for found in times.tpot)
        self._medians.append((now, {tier: _quantile(0.5, values) for tier, values in recent.items()}))
        while self._medians[0][0] <= now - self.windows.measured_seconds:
            self._medians.popleft()

    def _series(self, query: Query) -> Mapping[tuple[str, ...], tuple[tuple[float, float], ...]]:
        """Of the arrivals' history: the rate as it was at the end of each bin, where a scrape lies in it."""
        if query.name is not QueryName.ARRIVAL_HISTORY:
            return {}
        seconds = self.windows.bin_seconds
        newest = math.floor(self.events.now / seconds)
        ends = [index * seconds for index in range(max(0, newest - HISTORY_BINS + 1), newest + 1)]
        bins = list(self._bins)  # in the order of time
        newest_inside = [(end, bisect_right(bins, end, key=itemgetter(0)) - 1) for end in ends]
        found = [(EPOCH + end, bins[at][1]) for end, at in newest_inside if at >= 0 and bins[at][0] > end - seconds]
        return {(NAMESPACE, self.model): tuple(found)} if found else {}

    def _read(self) -> Scrape:
        counters = self.dispatcher.counters
        pods = tuple(
            PodScrape(pod.name, pod.tier, pod.replica.running, pod.replica.waiting, pod.replica.kv_share, pod.is_ready)
            for pod in self.plant.pods.values()
            if pod.ready_at is not None and not pod.ended
        )
        return Scrape(
            at=self.events.now,
            arrivals=counters.arrivals,
            router_queue=self.dispatcher.held,
            pods=pods,
            answers=dict(counters.answers),
        )

    def _since(self, window: float) -> list[Scrape]:
        return [scrape for scrape in self.history if scrape.at > self.events.now - window]

    def _rate(self, window: float) -> float | None:
        """`rate(arrivals[window])`: None with less than two samples in the window."""
        inside = self._since(window)
        if len(inside) < 2:
            return None
        return (inside[-1].arrivals - inside[0].arrivals) / (inside[-1].at - inside[0].at)

    def _peak(self, hold: float) -> float | None:
        """The maximum of the stable rate over the hold window."""
        return max((rate for at, rate in self._rates if at >= self.events.now - hold), default=None)

    def _forget(self) -> None:
        before = self.events.now - _LONGEST_SECONDS
        while self.history and self.history[0].at < before:
            self.history.popleft()
        for rates in (self._rates, self._bins):
            while rates and rates[0][0] < before:
                rates.popleft()


def router_pod(model: str) -> str:
    """The name of a model's router."""
    return f"{model}-router-0"


def merge_answers(answers: Sequence[Mapping[Query, Answer]]) -> dict[Query, Answer]:
    """What several models' answers to the same queries are together: one failure fails the query."""
    merged: dict[Query, Answer] = {}
    for query in answers[0]:
        parts = [one[query] for one in answers]
        failed = next((part for part in parts if isinstance(part, Failed)), None)
        rows = [part for part in parts if isinstance(part, Rows)]
        merged[query] = failed or Rows(
            {key: value for part in rows for key, value in part.values.items()},
            frozenset().union(*(part.duplicates for part in rows)),
            {key: series for part in rows for key, series in part.series.items()},
        )
    return merged


def _known(key: tuple[str, ...], value: float | None) -> dict[tuple[str, ...], float]:
    return {} if value is None else {key: value}


def _by_tier(timed: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for tier, seconds in timed:
        found.setdefault(tier, []).append(seconds)
    return found


def _quantile(part: float, values: Sequence[float]) -> float:
    """The value that this part of the values does not pass. Prometheus has it from buckets."""
    return sorted(values)[math.ceil(part * len(values)) - 1]
