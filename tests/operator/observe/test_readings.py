"""What counts as a reading: fresh, plausible, seen once. Everything else is Unknown with its cause, never zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.observe.observation import (
    ModelMetrics,
    PodObservation,
    PodPhase,
    Sample,
    TierReadings,
    Unknown,
)
from adaptive_operator.observe.prometheus import Answer, Failed, Rows
from adaptive_operator.observe.queries import ModelScope, QueryName, Windows, build_queries
from adaptive_operator.observe.readings import Cause, Readings, RouterPod, Subject, judge, max_rate
from stand_ins.raw_objects import build_model, build_tier

NOW = 10_000.0
SPEC = AdaptiveModelSpec.model_validate(build_model()["spec"])
MODEL = ("demo", "assistant")
ROUTER = (*MODEL, "router-0")
POD = PodObservation("engine-0", "u", "full", "r", "set", 0, 2, PodPhase.READY, 0.0)
HEALTHY: dict[QueryName, Answer] = {
    QueryName.ARRIVALS: Rows({MODEL: 1.5}),
    QueryName.RECENT_ARRIVALS: Rows({MODEL: 2.0}),
    QueryName.PEAK_ARRIVALS: Rows({MODEL: 3.0}),
    QueryName.ARRIVAL_HISTORY: Rows({}, series={MODEL: ((9_945.0, 1.0), (9_960.0, 1.5), (9_990.0, 2.0))}),
    QueryName.ROUTER_QUEUE: Rows({MODEL: 4.0}),
    QueryName.ENGINE_QUEUE: Rows({MODEL: 3.0}),
    QueryName.TTFT_P95: Rows({MODEL: 0.4}),
    QueryName.TPOT_P95: Rows({MODEL: 0.05}),
    QueryName.SERVED_QUALITY: Rows({MODEL: 990.0}),
    QueryName.ROUTER_AGE: Rows({ROUTER: 1.0}),
    QueryName.ROUTER_SERIES: Rows({ROUTER: 1.0}),
    QueryName.POD_WORK: Rows({("demo", "engine-0"): 2.0}),
    QueryName.POD_WORK_AGE: Rows({("demo", "engine-0"): 0.5}),
    QueryName.POD_SERIES: Rows({("demo", "engine-0"): 1.0}),
    QueryName.TIER_ANSWERS: Rows({(*MODEL, "full", ""): 0.7, (*MODEL, "int4", ""): 0.3}),
    QueryName.TIER_WAITING: Rows({(*MODEL, "full"): 2.0}),
    QueryName.TIER_TPOT: Rows({(*MODEL, "full"): 0.08, (*MODEL, "int4"): math.nan}),
    QueryName.TIER_TTFT_P95: Rows({(*MODEL, "full"): 1.5, (*MODEL, "int4"): math.nan}),
    QueryName.TIER_TPOT_P95: Rows({(*MODEL, "full"): 0.1}),
}


def read(
    changes: Mapping[QueryName, Answer] | None = None,
    pods: tuple[PodObservation, ...] = (POD,),
    routers: tuple[RouterPod, ...] = (RouterPod("router-0", 0.0),),
    spec: AdaptiveModelSpec = SPEC,
    budget: int = 4,
) -> tuple[ModelMetrics, list[tuple[QueryName, Cause]]]:
    answers = HEALTHY | dict(changes or {})
    queries = build_queries([ModelScope(*MODEL, SPEC.scaling.hold_seconds)], Windows(2.0))
    rejected: list[tuple[QueryName, Cause]] = []
    readings = Readings(
        {q: answers[q.name] for q in queries}, NOW, lambda query, cause: rejected.append((query, cause))
    )
    return readings.read_model(Subject(*MODEL, spec, budget, pods, routers, SPEC.scaling.hold_seconds)), rejected


def test_healthy_answers_become_samples_with_the_age_of_the_scrape() -> None:
    metrics, rejected = read()
    assert metrics.arrivals == Sample(1.5, 1.0)
    assert metrics.peak_arrivals == Sample(3.0, 1.0)
    assert metrics.queue == Sample(7.0, 1.0)
    assert metrics.served_quality_permille == Sample(990.0, 1.0)
    assert metrics.pod_work == {"engine-0": Sample(2.0, 0.5)}
    assert rejected == []


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (math.nan, Cause.NAN),
        (math.inf, Cause.INFINITE),
        (-math.inf, Cause.INFINITE),
        (-0.1, Cause.NEGATIVE),
        (1e9, Cause.ABSURD),
    ],
)
@pytest.mark.parametrize("name", [QueryName.ARRIVALS, QueryName.RECENT_ARRIVALS, QueryName.PEAK_ARRIVALS])
def test_a_rate_that_cannot_be_true_is_unknown_and_counted(name: QueryName, value: float, cause: Cause) -> None:
    metrics, rejected = read({name: Rows({MODEL: value})})
    reading = getattr(metrics, name)
    assert isinstance(reading, Unknown)
    assert cause in reading.cause
    assert name in reading.query
    assert rejected == [(name, cause)]


def test_a_peak_is_never_below_the_present() -> None:
    metrics, _ = read({QueryName.ARRIVALS: Rows({MODEL: 5.0})})
    assert metrics.peak_arrivals == Sample(5.0, 1.0)
    metrics, _ = read({QueryName.PEAK_ARRIVALS: Failed("refused")})
    assert isinstance(metrics.peak_arrivals, Unknown)


def test_zero_is_a_value() -> None:
    metrics, rejected = read({QueryName.ARRIVALS: Rows({MODEL: 0.0})})
    assert (metrics.arrivals, rejected) == (Sample(0.0, 1.0), [])


def test_no_requests_make_latency_and_quality_unknown_but_are_no_fault() -> None:
    quiet = {n: Rows({MODEL: math.nan}) for n in (QueryName.TTFT_P95, QueryName.TPOT_P95, QueryName.SERVED_QUALITY)}
    metrics, rejected = read(quiet)
    assert metrics.ttft_p95_seconds == Unknown("ttft_p95 (adaptive_router_ttft_seconds)", "no requests in the window")
    assert rejected == []


def test_a_duplicate_row_is_rejected() -> None:
    metrics, rejected = read({QueryName.ARRIVALS: Rows({MODEL: 1.5}, frozenset({MODEL}))})
    assert isinstance(metrics.arrivals, Unknown)
    assert rejected == [(QueryName.ARRIVALS, Cause.DUPLICATE)]


def test_a_router_that_is_scraped_twice_makes_all_its_readings_unknown() -> None:
    metrics, rejected = read({QueryName.ROUTER_SERIES: Rows({ROUTER: 2.0})})
    assert isinstance(metrics.arrivals, Unknown)
    assert "scraped twice" in metrics.arrivals.cause
    assert isinstance(metrics.queue, Unknown)
    assert (QueryName.ROUTER_SERIES, Cause.DUPLICATE) in rejected


def test_a_model_whose_router_was_never_scraped_has_no_samples_yet() -> None:
    metrics, rejected = read({n: Rows({}) for n in QueryName})
    assert isinstance(metrics.arrivals, Unknown)
    assert "no samples yet" in metrics.arrivals.cause
    assert rejected == []


def test_the_samples_of_a_namesake_elsewhere_are_not_taken() -> None:
    other = ("prod", "assistant")
    metrics, _ = read({QueryName.ARRIVALS: Rows({other: 9.0}), QueryName.ROUTER_AGE: Rows({(*other, "r"): 1.0})})
    assert isinstance(metrics.arrivals, Unknown)


def test_a_failed_query_is_unknown_with_its_cause_and_the_others_go_on() -> None:
    metrics, _ = read({QueryName.RECENT_ARRIVALS: Failed("Prometheus refused the query")})
    assert metrics.recent_arrivals == Unknown(
        "recent_arrivals (adaptive_router_arrivals_total)", "Prometheus refused the query"
    )
    assert isinstance(metrics.arrivals, Sample)


def test_the_age_is_that_of_the_router_seen_longest_ago() -> None:
    ages = Rows({ROUTER: 1.0, (*MODEL, "router-1"): 40.0, (*MODEL, "gone"): 280.0})
    metrics, _ = read({QueryName.ROUTER_AGE: ages}, routers=(RouterPod("router-0", 0.0), RouterPod("router-1", 0.0)))
    assert metrics.arrivals == Sample(1.5, 40.0)


def test_a_ready_router_that_was_never_scraped_counts_from_when_it_became_ready() -> None:
    metrics, _ = read(routers=(RouterPod("router-0", 0.0), RouterPod("new", NOW - 25.0)))
    assert metrics.arrivals == Sample(1.5, 25.0)


def test_without_a_ready_router_the_freshest_series_tells_the_age() -> None:
    metrics, _ = read({QueryName.ROUTER_AGE: Rows({ROUTER: 90.0, (*MODEL, "old"): 200.0})}, routers=())
    assert metrics.arrivals == Sample(1.5, 90.0)


def test_ready_engines_that_are_not_seen_make_the_queue_unknown_not_smaller() -> None:
    metrics, _ = read({QueryName.ENGINE_QUEUE: Rows({})})
    assert isinstance(metrics.queue, Unknown)


def test_without_ready_engines_only_the_routers_hold_a_queue() -> None:
    metrics, _ = read({QueryName.ENGINE_QUEUE: Rows({})}, pods=())
    assert metrics.queue == Sample(4.0, 1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {QueryName.POD_WORK: Rows({})},
        {QueryName.POD_WORK_AGE: Rows({})},
        {QueryName.POD_SERIES: Rows({("demo", "engine-0"): 2.0})},
        {QueryName.POD_WORK: Rows({("demo", "engine-0"): math.nan})},
    ],
    ids=["no value", "no age", "scraped twice", "not a number"],
)
def test_a_pod_whose_work_is_not_known_is_never_idle(changes: Mapping[QueryName, Answer]) -> None:
    metrics, _ = read(changes)
    assert isinstance(metrics.pod_work["engine-0"], Unknown)


UNBOUNDED = AdaptiveModelSpec.model_validate(build_model(accelerators={})["spec"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accelerators": {"budget": 100}}, 6500.0),
        ({"accelerators": {}, "tiers": [{**build_tier("int4", capacity=650), "replicas": {"max": 100}}]}, 6500.0),
        ({"accelerators": {}}, 65.0),
    ],
    ids=["its own budget", "its bounds", "nothing else is known"],
)
def test_a_load_that_lost_nodes_carried_is_not_absurd(changes: dict[str, Any], expected: float) -> None:
    """Of 100 accelerators one is left: what the others served is still asked for."""
    spec = AdaptiveModelSpec.model_validate(build_model(**changes)["spec"])
    assert max_rate(spec, 1) == pytest.approx(expected)


def test_what_pods_still_hold_counts_for_what_is_absurd() -> None:
    pods = tuple(replace(POD, name=f"engine-{i}") for i in range(50))
    answers = {QueryName.ARRIVALS: Rows({MODEL: 100.0})}
    assert read(answers, pods, spec=UNBOUNDED, budget=1)[0].arrivals == Sample(100.0, 1.0)
    assert isinstance(read(answers, (), spec=UNBOUNDED, budget=1)[0].arrivals, Unknown)


def test_absurd_begins_at_a_hundred_times_what_the_budget_carries() -> None:
    # int4: 0.65 requests/s on one accelerator; 100 x 0.65 x 4
    assert max_rate(SPEC, 4) == pytest.approx(260.0)
    assert judge(260.0, max_rate(SPEC, 4)) is None
    assert judge(260.1, max_rate(SPEC, 4)) is Cause.ABSURD


def test_the_history_is_binned_with_what_is_missing_unknown_and_never_zero() -> None:
    metrics, _ = read()
    assert metrics.history is not None
    assert (metrics.history.bin_seconds, metrics.history.end) == (15.0, 9_990.0)
    assert metrics.history.bins == (*[None] * 36, 1.0, 1.5, None, 2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e9])
def test_a_bin_that_cannot_be_true_is_unknown_and_counted(value: float) -> None:
    metrics, rejected = read({QueryName.ARRIVAL_HISTORY: Rows({}, series={MODEL: ((9_975.0, value), (9_990.0, 2.0))})})
    assert metrics.history is not None
    assert metrics.history.bins[-2:] == (None, 2.0)
    assert [query for query, _ in rejected] == [QueryName.ARRIVAL_HISTORY]


@pytest.mark.parametrize(
    "answer",
    [Failed("refused"), Rows({}), Rows({}, frozenset({MODEL}), {MODEL: ((9_990.0, 2.0),)})],
    ids=["failed", "no series", "scraped twice"],
)
def test_without_a_history_that_can_be_trusted_there_is_none(answer: Answer) -> None:
    metrics, _ = read({QueryName.ARRIVAL_HISTORY: answer})
    assert metrics.history is None
    assert metrics.arrivals == Sample(1.5, 1.0)


FULL = (*MODEL, "full")


def test_a_tiers_readings_have_its_answers_and_how_busy_it_was() -> None:
    metrics, rejected = read()
    assert metrics.tiers == {
        "full": TierReadings(
            {"": 0.7}, 120.0, least_waiting=2.0, least_tpot_seconds=0.08, ttft_p95_seconds=1.5, tpot_p95_seconds=0.1
        ),
        "int4": TierReadings({"": 0.3}, 120.0, least_waiting=None, least_tpot_seconds=None),
    }
    assert rejected == []


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        pytest.param(Rows({}), [], id="never seen"),
        pytest.param(Failed("timed out"), [], id="no answer"),
        pytest.param(Rows({(*FULL, ""): math.nan}), [(QueryName.TIER_ANSWERS, Cause.NAN)], id="no number"),
        pytest.param(Rows({(*FULL, ""): 1e9}), [(QueryName.TIER_ANSWERS, Cause.ABSURD)], id="absurd"),
        pytest.param(
            Rows({(*FULL, ""): 0.7}, frozenset({(*FULL, "")})),
            [(QueryName.TIER_ANSWERS, Cause.DUPLICATE)],
            id="more than one series",
        ),
    ],
)
def test_a_tier_whose_answers_are_not_known_has_no_readings_rather_than_none_answered(answer, counted) -> None:
    metrics, rejected = read({QueryName.TIER_ANSWERS: answer})
    assert metrics.tiers == {}
    assert rejected == counted


def test_tiers_have_no_readings_while_the_age_of_the_samples_is_unknown() -> None:
    metrics, _ = read({QueryName.ROUTER_AGE: Failed("timed out")})
    assert metrics.tiers == {}
