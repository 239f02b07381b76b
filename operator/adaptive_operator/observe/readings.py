"""From Prometheus' answers to the readings of one model: samples with their age, or Unknown with its cause. Pure.

A reading that is NaN, infinite, negative, absurd or counted twice is rejected, said and counted; it never becomes zero.
Knows no client and no policy: what follows from an old or unknown reading is decided in `decide/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.levels import levels_of
from adaptive_operator.observe.observation import (
    ModelMetrics,
    PodObservation,
    PodPhase,
    Reading,
    Sample,
    Season,
    Series,
    TierReadings,
    Unknown,
)
from adaptive_operator.observe.prometheus import Answer, Answers, Failed, Key
from adaptive_operator.observe.queries import (
    ARRIVALS,
    ENGINE_RUNNING,
    ENGINE_WAITING,
    HISTORY_BINS,
    QUALITY_SUM,
    REQUESTS,
    ROUTER_QUEUE,
    TPOT,
    TTFT,
    QueryName,
    Windows,
)
from adaptive_operator.observe.season import Past, read_season

ABSURD_FACTOR: Final = 100  # times what the fastest tier could carry on all that the model may hold, or holds
_DEFAULT_SCRAPE_SECONDS: Final = 15.0
_MAX_RATE: Final = 1e6  # requests/s, where no card says what is possible
_MAX_QUEUE: Final = 1e7
_MAX_LATENCY_SECONDS: Final = 86_400.0

METRICS: Final[Mapping[QueryName, str]] = {
    QueryName.ARRIVALS: ARRIVALS,
    QueryName.RECENT_ARRIVALS: ARRIVALS,
    QueryName.PEAK_ARRIVALS: ARRIVALS,
    QueryName.ARRIVAL_HISTORY: ARRIVALS,
    QueryName.PAST_ARRIVALS: ARRIVALS,
    QueryName.ROUTER_QUEUE: ROUTER_QUEUE,
    QueryName.ENGINE_QUEUE: ENGINE_WAITING,
    QueryName.TTFT_P95: TTFT,
    QueryName.TPOT_P95: TPOT,
    QueryName.SERVED_QUALITY: QUALITY_SUM,
    QueryName.ROUTER_AGE: ARRIVALS,
    QueryName.ROUTER_SERIES: ARRIVALS,
    QueryName.POD_WORK: ENGINE_RUNNING,
    QueryName.POD_WORK_AGE: ENGINE_RUNNING,
    QueryName.POD_SERIES: ENGINE_RUNNING,
    QueryName.TIER_ANSWERS: REQUESTS,
    QueryName.TIER_WAITING: ENGINE_WAITING,
    QueryName.TIER_TPOT: TPOT,
    QueryName.TIER_TTFT_P95: TTFT,
    QueryName.TIER_TPOT_P95: TPOT,
}


class Cause(StrEnum):
    """Why a sample was rejected (label `cause`)."""

    NAN = "nan"
    INFINITE = "infinite"
    NEGATIVE = "negative"
    ABSURD = "absurd"
    DUPLICATE = "duplicate"


Reject = Callable[[QueryName, Cause], None]


@dataclass(frozen=True, slots=True)
class RouterPod:
    """A router pod that is Ready: its readings have to be there."""

    name: str
    ready_since: float


@dataclass(frozen=True, slots=True)
class Subject:
    """The model whose readings are wanted, and what the cluster says of its pods."""

    namespace: str
    name: str
    spec: AdaptiveModelSpec
    budget: int
    pods: tuple[PodObservation, ...]
    routers: tuple[RouterPod, ...]
    hold_seconds: int
    horizon_seconds: float = 0.0  # how far ahead its forecast looks


class Readings:
    """Answers of one pass, as seen at `now` (seconds since the epoch), and what is known of earlier periods."""

    def __init__(
        self,
        answers: Answers,
        now: float,
        reject: Reject,
        windows: Windows | None = None,
        past: Past | None = None,
    ) -> None:
        self._answers: dict[tuple[QueryName, int | None], Answer] = {
            (query.name, query.hold_seconds): answer for query, answer in answers.items()
        }
        self._now = now
        self._reject = reject
        self._windows = windows or Windows(_DEFAULT_SCRAPE_SECONDS)
        self._past = past

    def read_model(self, subject: Subject) -> ModelMetrics:
        """All readings of one model."""
        key = (subject.namespace, subject.name)
        age = self._age(subject)
        rate_limit = max_rate(subject.spec, max(subject.budget, sum(pod.accelerators for pod in subject.pods)))

        def reading(name: QueryName, limit: float, hold: int | None = None) -> Reading:
            if isinstance(age, Unknown):
                return Unknown(describe(name), age.cause)
            value = self._value(name, key, limit, hold)
            return Sample(value, age.value) if isinstance(value, float) else value

        arrivals = reading(QueryName.ARRIVALS, rate_limit)
        return ModelMetrics(
            arrivals=arrivals,
            recent_arrivals=reading(QueryName.RECENT_ARRIVALS, rate_limit),
            peak_arrivals=_at_least(reading(QueryName.PEAK_ARRIVALS, rate_limit, subject.hold_seconds), arrivals),
            queue=self._queue(reading(QueryName.ROUTER_QUEUE, _MAX_QUEUE), subject),
            ttft_p95_seconds=reading(QueryName.TTFT_P95, _MAX_LATENCY_SECONDS),
            tpot_p95_seconds=reading(QueryName.TPOT_P95, _MAX_LATENCY_SECONDS),
            served_quality_permille=reading(QueryName.SERVED_QUALITY, 1000.5),
            history=None if isinstance(age, Unknown) else self._history(key, rate_limit),
            pod_work={pod.name: self._pod_work(subject.namespace, pod.name) for pod in subject.pods},
            tiers={} if isinstance(age, Unknown) else self._tiers(subject, rate_limit),
            season=None if isinstance(age, Unknown) else self._season(subject, rate_limit),
        )

    def _tiers(self, subject: Subject, limit: float) -> dict[str, TierReadings]:
        """Of the tiers whose answers are known at every level: a level that is not seen would make a tier look slow."""
        found = {}
        for tier in subject.spec.tiers:
            key = (subject.namespace, subject.name, tier.name)
            levels = [level.name for level in levels_of(tier)]
            answers = {name: self._value(QueryName.TIER_ANSWERS, (*key, name), limit) for name in levels}
            known = {name: value for name, value in answers.items() if isinstance(value, float)}
            if len(known) < len(levels):
                continue
            found[tier.name] = TierReadings(
                answers=known,
                window_seconds=self._windows.measured_seconds,
                least_waiting=self._known(QueryName.TIER_WAITING, key, _MAX_QUEUE),
                least_tpot_seconds=self._known(QueryName.TIER_TPOT, key, _MAX_LATENCY_SECONDS),
                ttft_p95_seconds=self._known(QueryName.TIER_TTFT_P95, key, _MAX_LATENCY_SECONDS),
                tpot_p95_seconds=self._known(QueryName.TIER_TPOT_P95, key, _MAX_LATENCY_SECONDS),
            )
        return found

    def _known(self, name: QueryName, key: Key, limit: float) -> float | None:
        value = self._value(name, key, limit)
        return value if isinstance(value, float) else None

    def _history(self, key: Key, limit: float) -> Series | None:
        """Arrivals in bins. A bin that is missing, or cannot be true, is unknown, and never zero."""
        answer = self._answer(QueryName.ARRIVAL_HISTORY)
        if isinstance(answer, Failed) or key in answer.duplicates or not answer.series.get(key):
            return None
        seconds = self._windows.bin_seconds
        end = math.floor(self._now / seconds) * seconds
        known = {round((end - at) / seconds): value for at, value in answer.series[key]}
        causes = {index: cause for index, value in known.items() if (cause := judge(value, limit)) is not None}
        for cause in sorted(set(causes.values())):
            self._reject(QueryName.ARRIVAL_HISTORY, cause)
        bins = (None if i in causes else known.get(i) for i in reversed(range(HISTORY_BINS)))
        return Series(tuple(bins), seconds, end)

    def _season(self, subject: Subject, limit: float) -> Season | None:
        if self._past is None:
            return None

        def accept(value: float) -> bool:
            if (cause := judge(value, limit)) is not None:
                self._reject(QueryName.PAST_ARRIVALS, cause)
            return cause is None

        key = (subject.namespace, subject.name)
        return read_season(self._past, key, self._now, subject.horizon_seconds, self._windows, accept)

    def _age(self, subject: Subject) -> Sample | Unknown:
        """Age of the oldest part: of the last scrape of each router that is Ready (value and age are the same number).

        A router that was never scraped counts from when it became Ready: its share of the load is unseen since then.
        """
        ages = self._answer(QueryName.ROUTER_AGE)
        if isinstance(ages, Failed):
            return Unknown(describe(QueryName.ROUTER_AGE), ages.cause)
        seen = {k[2]: v for k, v in ages.values.items() if k[:2] == (subject.namespace, subject.name)}
        if not seen:
            return Unknown(describe(QueryName.ROUTER_AGE), "no samples yet: no router of this model has been scraped")
        if duplicate := self._duplicate_router(subject):
            return duplicate
        parts = [seen.get(pod.name, self._now - pod.ready_since) for pod in subject.routers] or [min(seen.values())]
        if not all(math.isfinite(part) for part in parts):
            return Unknown(describe(QueryName.ROUTER_AGE), "the age of the samples is not a number")
        oldest = max(0.0, *parts)
        return Sample(oldest, oldest)

    def _duplicate_router(self, subject: Subject) -> Unknown | None:
        series = self._answer(QueryName.ROUTER_SERIES)
        if isinstance(series, Failed):
            return Unknown(describe(QueryName.ROUTER_SERIES), series.cause)
        for (namespace, model, pod), count in series.values.items():
            if (namespace, model) == (subject.namespace, subject.name) and count > 1:
                self._reject(QueryName.ROUTER_SERIES, Cause.DUPLICATE)
                cause = f"router {pod} has more than one series: it is scraped twice; keep one scrape job"
                return Unknown(describe(QueryName.ROUTER_SERIES), cause)
        return None

    def _queue(self, router: Reading, subject: Subject) -> Reading:
        """Requests that wait in routers and engines. Ready engines that are not seen make it unknown, not smaller."""
        if isinstance(router, Unknown):
            return router
        engines = self._value(QueryName.ENGINE_QUEUE, (subject.namespace, subject.name), _MAX_QUEUE)
        if isinstance(engines, float):
            return Sample(router.value + engines, router.age_seconds)
        if any(pod.phase is PodPhase.READY for pod in subject.pods):
            return engines
        return router

    def _pod_work(self, namespace: str, pod: str) -> Reading:
        age = self._value(QueryName.POD_WORK_AGE, (namespace, pod), math.inf)
        series = self._value(QueryName.POD_SERIES, (namespace, pod), math.inf)
        if isinstance(series, float) and series > 1:
            self._reject(QueryName.POD_SERIES, Cause.DUPLICATE)
            return Unknown(describe(QueryName.POD_SERIES), f"pod {pod} is scraped twice; keep one scrape job")
        work = self._value(QueryName.POD_WORK, (namespace, pod), _MAX_QUEUE)
        if isinstance(work, float) and isinstance(age, float):
            return Sample(work, age)
        return work if isinstance(work, Unknown) else Unknown(describe(QueryName.POD_WORK_AGE), "no samples yet")

    def _value(self, name: QueryName, key: Key, limit: float, hold: int | None = None) -> float | Unknown:
        """One accepted value."""
        answer = self._answer(name, hold)
        text = describe(name)
        if isinstance(answer, Failed):
            return Unknown(text, answer.cause)
        if key in answer.duplicates:
            self._reject(name, Cause.DUPLICATE)
            return Unknown(text, "rejected: more than one series")
        value = answer.values.get(key)
        if value is None:
            return Unknown(text, "no samples yet")
        if math.isnan(value) and name in _QUIET_NAN:
            return Unknown(text, "no requests in the window")
        if (cause := judge(value, limit)) is not None:
            self._reject(name, cause)
            return Unknown(text, f"rejected: the value is {cause}")
        return value

    def _answer(self, name: QueryName, hold: int | None = None) -> Answer:
        return self._answers.get((name, hold), Failed("not asked"))


def _at_least(peak: Reading, present: Reading) -> Reading:
    """The peak, the present included: a subquery's last step lies up to one step back, without a rise since then."""
    if isinstance(peak, Unknown) or isinstance(present, Unknown):
        return peak
    return Sample(max(peak.value, present.value), peak.age_seconds)


# Divisions that have nothing to divide while nobody calls: no fault of the source.
_QUIET_NAN: Final = frozenset(
    {
        QueryName.TTFT_P95,
        QueryName.TPOT_P95,
        QueryName.SERVED_QUALITY,
        QueryName.TIER_TPOT,
        QueryName.TIER_TTFT_P95,
        QueryName.TIER_TPOT_P95,
    }
)


def judge(value: float, limit: float) -> Cause | None:
    """Why a value cannot be true, or None. `limit` is the largest value that can be."""
    if math.isnan(value):
        return Cause.NAN
    if math.isinf(value):
        return Cause.INFINITE
    if value < 0:
        return Cause.NEGATIVE
    return Cause.ABSURD if value > limit else None


def max_rate(spec: AdaptiveModelSpec, accelerators: int) -> float:
    """Requests/s above which a rate is absurd: 100 times what its accelerators carry on the fastest tier.

    `accelerators`: the budget, or what is held where that is more. What the spec names counts too: where nodes are
    lost the budget shrinks, and the load that they carried is still true.
    Example: 650 milli-requests/s per accelerator and a budget of 4 give 100 · 0.65 · 4 = 260 requests/s.
    """
    own = spec.accelerators.budget or 0
    asked = sum((tier.replicas.max or 0) * tier.replica.accelerators for tier in spec.tiers if tier.replicas)
    rates = [
        level.requests_per_second / tier.replica.accelerators
        for tier in spec.tiers
        for level in levels_of(tier)
        if level.requests_per_second is not None
    ]
    return ABSURD_FACTOR * max(rates) * max(accelerators, own, asked, 1) if rates else _MAX_RATE


def describe(name: QueryName) -> str:
    """A query as people read it: its name and the metric behind it."""
    return f"{name} ({METRICS[name]})"
