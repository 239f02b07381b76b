"""For how long a plan may still take something away: the readings behind it, and which steps it counts for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from adaptive_operator.decide.demand import Trust, read_demand
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import ModelMetrics, ModelObservation, PodPhase, Reading, Sample, Unknown
from adaptive_operator.plan import PlanSettings, plan_model
from adaptive_operator.plan.freshness import fresh_until
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, Step
from adaptive_operator.reasons import Reason
from tests.operator.plan.situations import METRICS, NOW, SETTINGS, make_decision, make_model, make_swap, with_set

GONE = Unknown("sum(rate(x[15s]))", "no connection")
FULL, CHEAP, FEWER = {"full": 1, "int4": 1}, {"int8": 3, "int4": 1}, {"int8": 1, "int4": 1}
READY = PodPhase.READY
GROWTH, SHRINK = Reason.SWAPPED_TO_CHEAPER_TIER, Reason.REMOVED_REPLICA


def readings(arrivals: Reading, queue: Reading | None = None) -> ModelMetrics:
    return replace(METRICS, arrivals=arrivals, peak_arrivals=Sample(1.0, 1.0), queue=queue or Sample(0.0, 1.0))


@pytest.mark.parametrize(
    ("reason", "metrics", "seconds"),
    [
        pytest.param(GROWTH, readings(Sample(1.0, 5.0)), 115.0, id="an exchange may follow until arrivals are too old"),
        pytest.param(None, readings(Sample(1.0, 5.0)), 115.0, id="without a swap the same"),
        pytest.param(GROWTH, readings(Sample(1.0, 120.0)), 0.0, id="at the limit it has no time left"),
        pytest.param(GROWTH, readings(Sample(1.0, 5.0), Sample(0.0, 90.0)), 115.0, id="an exchange rests on arrivals"),
        pytest.param(SHRINK, readings(Sample(1.0, 5.0)), 25.0, id="a shrink may follow until a reading is stale"),
        pytest.param(SHRINK, readings(Sample(1.0, 5.0), Sample(0.0, 9.0)), 21.0, id="a shrink rests on the oldest"),
        pytest.param(GROWTH, readings(Sample(1.0, 121.0)), None, id="a growth that is half done ends on old readings"),
        pytest.param(GROWTH, readings(GONE), None, id="a growth that is half done ends without readings"),
        pytest.param(SHRINK, readings(Sample(1.0, 5.0), GONE), 0.0, id="a shrink without all readings has no time"),
        pytest.param(SHRINK, readings(Sample(1.0, 31.0)), 0.0, id="a shrink on stale readings has no time"),
        pytest.param(SHRINK, readings(Sample(1.0, 121.0)), 0.0, id="a shrink on old arrivals has no time"),
        pytest.param(Reason.RESTORED_TIER, readings(Sample(1.0, 31.0)), 0.0, id="an upgrade gives capacity up as well"),
        pytest.param(Reason.GAVE_TO_OTHERS, readings(GONE), 0.0, id="so does what is given to others"),
        pytest.param(Reason.SWAP_ROLLED_BACK, readings(Sample(1.0, 5.0)), None, id="a rollback rests on no reading"),
        pytest.param(Reason.SPEC_CHANGED, readings(Sample(1.0, 5.0)), None, id="an edit rests on no reading"),
        pytest.param(Reason.SPEC_CHANGED, readings(GONE), None, id="an edit needs none"),
    ],
)
def test_a_plan_may_take_away_for_as_long_as_the_same_readings_would_let_it_decide(
    reason: Reason | None, metrics: ModelMetrics, seconds: float | None
) -> None:
    swap = make_swap(FULL, CHEAP, reason=reason.value) if reason is not None else None
    decision = make_decision(CHEAP if swap else FULL, swap=swap)
    until = fresh_until(make_model(metrics=metrics), decision, SETTINGS, NOW)
    assert until == (None if seconds is None else NOW + seconds)


def test_a_shrink_never_gets_more_time_from_older_readings() -> None:
    decision = make_decision(FEWER, swap=make_swap(FULL, FEWER, reason=SHRINK.value))
    ends = [
        fresh_until(make_model(metrics=readings(Sample(1.0, float(age)))), decision, SETTINGS, NOW)
        for age in (1, 29, 30, 31, 45, 119, 121, 4000)
    ]
    assert ends == sorted((end for end in ends if end is not None), reverse=True)


@pytest.mark.parametrize(("reason", "trust"), [(GROWTH, Trust.NONE), (SHRINK, Trust.UPWARD)])
def test_its_end_is_the_moment_from_which_decide_would_trust_the_readings_less(reason: Reason, trust: Trust) -> None:
    """The same limits as in `decide/`, which a plan cannot ask."""
    metrics = readings(Sample(1.0, 7.0))
    decision = make_decision(CHEAP, swap=make_swap(FULL, CHEAP, reason=reason.value))
    until = fresh_until(make_model(metrics=metrics), decision, SETTINGS, NOW)
    assert until is not None
    for later, expected in ((until - NOW, False), (until - NOW + 0.1, True)):
        aged = readings(Sample(1.0, 7.0 + later))
        assert (read_demand(aged, DecideSettings()).trust <= trust) is expected


def disruptive(steps: tuple[Step, ...]) -> list[str]:
    return [s.manifest["kind"] for s in steps if isinstance(s, ApplyObject) and s.disruptive]


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


SHRINKING = make_swap({"int8": 1, "int4": 1}, {"int8": 1}, reason=SHRINK.value)
TO_INT8 = make_decision({"full": 0, "int8": 1, "int4": 0}, {"int8": 1.0}, swap=SHRINKING)


def applied(model: ModelObservation) -> dict[str, dict[str, Any]]:
    """Manifests of what a pass applies, by kind; of StatefulSets by name."""
    plan = plan_model(model, TO_INT8, SETTINGS, NOW, 1)
    assert disruptive(plan.steps) == []
    manifests = [dict(step.manifest) for step in plan.steps if isinstance(step, ApplyObject)]
    return {m["metadata"]["name"] if m["kind"] == "StatefulSet" else m["kind"]: m for m in manifests}


@pytest.mark.parametrize("metrics", [readings(Sample(1.0, 31.0)), readings(GONE)], ids=["stale", "missing"])
def test_a_shrink_on_stale_readings_drains_nothing_and_the_routing_table_is_written_with_all_that_serves(
    metrics: ModelMetrics,
) -> None:
    model = replace(swapping(), metrics=metrics)
    model = replace(model, pods=tuple(replace(pod, ready_since=NOW - 60) for pod in model.pods))
    steps = applied(model)
    int4 = next(item for item in model.stateful_sets if item.tier == "int4")
    assert steps.get(int4.name, {"spec": {"replicas": 1}})["spec"]["replicas"] == 1
    assert json.loads(steps["ConfigMap"]["data"]["table.json"])["draining"] == []


def test_a_shrink_on_stale_readings_keeps_a_replica_that_drains_draining_and_does_not_end_it() -> None:
    uid = next(pod.uid for pod in swapping().pods if pod.tier == "int4")
    model = replace(swapping({uid: NOW - 3600}), metrics=readings(Sample(1.0, 31.0)))
    steps = applied(model)
    int4 = next(item for item in model.stateful_sets if item.tier == "int4")
    assert steps.get(int4.name, {"spec": {"replicas": 1}})["spec"]["replicas"] == 1
    assert json.loads(steps["ConfigMap"]["data"]["table.json"])["draining"] == [uid]


def test_surplus_that_serves_nothing_is_no_loss() -> None:
    """Whatever the readings say: it holds accelerators only."""
    model = with_set(with_set(make_model(), "int8", [READY]), "int4", [PodPhase.PENDING])
    uid = next(pod.uid for pod in model.pods if pod.tier == "int4")
    table = {"schemaVersion": 1, "generation": 1, "epoch": 1, "routes": [], "draining": [uid]}
    model = replace(model, metrics=readings(GONE), routing_table=json.dumps(table))
    int4 = next(item for item in model.stateful_sets if item.tier == "int4")
    stamped = replace(int4, draining={uid: NOW - 10})
    first = applied(model)
    assert uid in first[int4.name]["metadata"]["annotations"]["adaptivellm.dev/draining"]
    sets = tuple(stamped if item is int4 else item for item in model.stateful_sets)
    assert applied(replace(model, stateful_sets=sets))[int4.name]["spec"]["replicas"] == 0


def test_the_pod_of_a_silent_node_goes_although_a_shrink_is_held() -> None:
    model = with_set(make_model(metrics=readings(GONE)), "int8", [PodPhase.TERMINATING], lost_at=NOW - 3600)
    steps = plan_model(model, TO_INT8, SETTINGS, NOW, 1).steps
    assert [step.kind for step in steps if isinstance(step, DeleteObject)] == ["Pod"]


def test_what_is_made_or_added_disrupts_nothing() -> None:
    model = with_set(make_model(), "int8", [READY])
    plan = plan_model(model, make_decision({"full": 0, "int8": 2, "int4": 1}), SETTINGS, NOW, 1)
    assert any(isinstance(s, ApplyObject) and s.manifest["kind"] == "StatefulSet" for s in plan.steps)
    assert disruptive(plan.steps) == []


def test_a_plan_carries_until_when_its_readings_are_fresh() -> None:
    settings = PlanSettings("engine:1", "router:1", hold_after_stale_seconds=60.0)
    plan = plan_model(make_model(), make_decision(FULL), settings, NOW, 1)
    assert plan.fresh_until == NOW + 59.0
