"""Pods that wait for the word of a node that went silent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.observe.observation import ModelObservation, PodObservation, PodPhase
from adaptive_operator.plan import plan_model
from adaptive_operator.plan.lost_pods import plan_lost_pods
from adaptive_operator.plan.plan import DeleteObject
from tests.operator.plan.situations import NOW, SETTINGS, make_decision, make_model, make_spec

NAME = "assistant-full-aaaaaaaa-0"


def with_pod(mode: str, lost_at: float | None) -> ModelObservation:
    pod = PodObservation(
        NAME, "uid-7", "full", "aaaaaaaa", "assistant-full-aaaaaaaa", 0, 2, PodPhase.TERMINATING, NOW - 900.0
    )
    return replace(make_model(make_spec(mode=mode)), pods=(replace(pod, lost_at=lost_at),))


@pytest.mark.parametrize(
    ("lost_at", "removed"),
    [
        pytest.param(None, False, id="a pod that ends in the usual way is left to its node"),
        pytest.param(NOW + 30.0, False, id="a pod that may still end by itself has its time"),
        pytest.param(NOW - 59.0, False, id="a slow node has a minute more"),
        pytest.param(NOW - 60.0, True, id="a pod whose node stays silent is removed"),
    ],
)
def test_a_pod_is_removed_only_when_its_node_stays_silent(lost_at: float | None, removed: bool) -> None:
    steps = list(plan_lost_pods(with_pod("Active", lost_at), NOW))
    assert steps == ([DeleteObject("Pod", NAME, "uid-7", None, at_once=True)] if removed else [])


@pytest.mark.parametrize(("mode", "removed"), [("Active", True), ("Paused", False), ("DryRun", False)])
def test_only_an_active_model_removes_lost_pods(mode: str, removed: bool) -> None:
    decision = make_decision({"full": 1, "int8": 0, "int4": 0}, {"full": 1.0})
    plan = plan_model(with_pod(mode, NOW - 600.0), decision, SETTINGS, NOW, 1)
    pods = [step for step in plan.steps if isinstance(step, DeleteObject) and step.kind == "Pod"]
    assert bool(pods) == removed
