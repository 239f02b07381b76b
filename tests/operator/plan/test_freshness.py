"""For how long a plan may still take something away: the readings behind it, and which steps it counts for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adaptive_operator.decide.demand import Trust, read_demand
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import ModelMetrics, ModelObservation, PodPhase, Reading, Sample, Unknown
from adaptive_operator.plan import PlanSettings, plan_model
from adaptive_operator.plan.freshness import fresh_until
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, Step
from tests.operator.plan.situations import METRICS, NOW, SETTINGS, make_decision, make_model, make_swap, with_set

GONE = Unknown("sum(rate(x[15s]))", "no connection")
FULL, CHEAP, FEWER = {"full": 1, "int4": 1}, {"int8": 3, "int4": 1}, {"int8": 1, "int4": 1}
READY = PodPhase.READY


def readings(arrivals: Reading, queue: Reading | None = None) -> ModelMetrics:
    return replace(METRICS, arrivals=arrivals, peak_arrivals=Sample(1.0, 1.0), queue=queue or Sample(0.0, 1.0))


@pytest.mark.parametrize(
    ("target", "metrics", "seconds"),
    [
        pytest.param(CHEAP, readings(Sample(1.0, 5.0)), 115.0, id="an exchange may follow until arrivals are too old"),
        pytest.param(None, readings(Sample(1.0, 5.0)), 115.0, id="without a swap the same"),
        pytest.param(CHEAP, readings(Sample(1.0, 120.0)), 0.0, id="at the limit it has no time left"),
        pytest.param(CHEAP, readings(Sample(1.0, 5.0), Sample(0.0, 90.0)), 115.0, id="an exchange rests on arrivals"),
        pytest.param(FEWER, readings(Sample(1.0, 5.0)), 25.0, id="a shrink may follow until a reading is stale"),
        pytest.param(FEWER, readings(Sample(1.0, 5.0), Sample(0.0, 9.0)), 21.0, id="a shrink rests on the oldest"),
        pytest.param(CHEAP, readings(Sample(1.0, 121.0)), None, id="what was decided on old readings rests on none"),
        pytest.param(CHEAP, readings(GONE), None, id="what was decided without readings rests on none"),
        pytest.param(FEWER, readings(Sample(1.0, 5.0), GONE), None, id="a shrink without all readings rests on none"),
    ],
)
def test_a_plan_may_take_away_for_as_long_as_the_same_readings_would_let_it_decide(
    target: dict[str, int] | None, metrics: ModelMetrics, seconds: float | None
) -> None:
    swap = make_swap(FULL, target) if target is not None else None
    decision = make_decision(target or FULL, swap=swap)
    until = fresh_until(make_model(metrics=metrics), decision, SETTINGS, NOW)
    assert until == (None if seconds is None else NOW + seconds)


@pytest.mark.parametrize(("target", "trust"), [(CHEAP, Trust.NONE), (FEWER, Trust.UPWARD)])
def test_its_end_is_the_moment_from_which_decide_would_trust_the_readings_less(
    target: dict[str, int], trust: Trust
) -> None:
    """The same limits as in `decide/`, which a plan cannot ask."""
    metrics = readings(Sample(1.0, 7.0))
    until = fresh_until(make_model(metrics=metrics), make_decision(target, swap=make_swap(FULL, target)), SETTINGS, NOW)
    assert until is not None
    for later, expected in ((until - NOW, False), (until - NOW + 0.1, True)):
        aged = readings(Sample(1.0, 7.0 + later))
        assert (read_demand(aged, DecideSettings()).trust <= trust) is expected


def disruptive(steps: tuple[Step, ...]) -> list[str]:
    named = [s for s in steps if isinstance(s, ApplyObject | DeleteObject) and s.disruptive]
    return [s.manifest["kind"] if isinstance(s, ApplyObject) else f"delete {s.kind}" for s in named]


def swapping(draining: dict[str, float] | None = None) -> ModelObservation:
    """int4 has to go, the replica of int8 that takes its place is ready."""
    model = with_set(with_set(make_model(), "int8", [READY]), "int4", [READY], draining=draining)
    uid = next(pod.uid for pod in model.pods if pod.tier == "int4")
    table = {"schemaVersion": 1, "generation": 1, "epoch": 1, "routes": [], "draining": [uid]}
    return replace(model, routing_table=json.dumps(table))


def test_a_replica_that_begins_to_drain_is_a_disruptive_step() -> None:
    decision = make_decision({"full": 0, "int8": 1, "int4": 0}, {"int8": 1.0})
    assert disruptive(plan_model(swapping(), decision, SETTINGS, NOW, 1).steps) == ["StatefulSet"]


def test_a_replica_that_drained_and_goes_is_a_disruptive_step() -> None:
    uid = next(pod.uid for pod in swapping().pods if pod.tier == "int4")
    decision = make_decision({"full": 0, "int8": 1, "int4": 0}, {"int8": 1.0})
    plan = plan_model(swapping({uid: NOW - 3600}), decision, SETTINGS, NOW, 1)
    assert disruptive(plan.steps) == ["StatefulSet"]
    lowered = next(s for s in plan.steps if isinstance(s, ApplyObject) and s.disruptive)
    assert lowered.manifest["spec"]["replicas"] == 0


def test_the_pod_of_a_silent_node_goes_by_a_disruptive_step() -> None:
    model = with_set(make_model(), "int8", [PodPhase.TERMINATING], lost_at=NOW - 3600)
    plan = plan_model(model, make_decision({"full": 0, "int8": 1, "int4": 0}), SETTINGS, NOW, 1)
    assert disruptive(plan.steps) == ["delete Pod"]


def test_what_is_made_or_added_disrupts_nothing() -> None:
    model = with_set(make_model(), "int8", [READY])
    plan = plan_model(model, make_decision({"full": 0, "int8": 2, "int4": 1}), SETTINGS, NOW, 1)
    assert any(isinstance(s, ApplyObject) and s.manifest["kind"] == "StatefulSet" for s in plan.steps)
    assert disruptive(plan.steps) == []


def test_a_plan_carries_until_when_its_readings_are_fresh() -> None:
    settings = PlanSettings("engine:1", "router:1", hold_after_stale_seconds=60.0)
    plan = plan_model(make_model(), make_decision(FULL), settings, NOW, 1)
    assert plan.fresh_until == NOW + 59.0
