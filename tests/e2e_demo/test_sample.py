"""Reading status, pods and router metrics by their published names."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.demo.sample import Explanation, build_sample, held_accelerators, read_routers, router_pods, unix_seconds

METRICS = """# HELP adaptive_router_share share
# TYPE adaptive_router_share gauge
adaptive_router_share{model="a",tier="full",level=""} 0.6
adaptive_router_share{model="a",tier="int4",level=""} 0.4
# TYPE adaptive_router_inflight gauge
adaptive_router_inflight{model="a",tier="full",level=""} 2
# TYPE adaptive_router_queue_length gauge
adaptive_router_queue_length{model="a"} 3
"""
MODEL = {
    "metadata": {"name": "a", "generation": 2},
    "spec": {"accelerators": {"resource": "nvidia.com/gpu", "budget": 4}},
    "status": {
        "acceleratorsBudget": 4,
        "servedQualityPermille": 910,
        "conditions": [{"type": "Ready", "status": "True"}],
        "tiers": [{"name": "full", "desired": 1, "replicas": 1, "ready": 1, "weightPercent": 60}],
        "lastDecision": {"reason": "Steady", "message": "m", "time": "2026-01-01T00:00:05Z"},
        "swap": {"step": "Starting"},
    },
}


def pod(
    component: str, phase: str = "Running", gpus: str = "1", model: str = "a", gone: bool = False
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": f"{component}-0",
        "labels": {"app.kubernetes.io/component": component, "adaptivellm.dev/model": model},
    }
    if gone:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    limits = {"nvidia.com/gpu": gpus} if component == "engine" else {}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"resources": {"limits": limits}}]},
        "status": {"phase": phase},
    }


def test_a_sample_holds_what_status_pods_and_routers_said() -> None:
    sample = build_sample(3.0, MODEL, [pod("engine"), pod("router")], [METRICS])
    (tier,) = sample.tiers
    assert (tier.name, tier.ready, tier.weight_percent, tier.share, tier.in_flight) == ("full", 1, 60, 0.6, 2)
    assert (sample.held, sample.budget, sample.queue, sample.quality_permille) == (1, 4, 3, 910)
    assert (sample.reason, sample.swap_step, sample.conditions["Ready"]) == ("Steady", "Starting", "True")
    assert not sample.is_settled


def test_a_sample_holds_what_the_planner_says_of_its_decision() -> None:
    decision = {
        "from": "full 1",
        "to": "int8 3",
        "binding": ["the budget of 4 accelerators"],
        "alternative": "int4 4: …",
    }
    status = {**MODEL["status"], "lastDecision": decision}
    sample = build_sample(3.0, {**MODEL, "status": status}, [], [])
    assert sample.explanation == Explanation("full 1 → int8 3", ("the budget of 4 accelerators",), "int4 4: …")


def test_a_decision_that_changes_nothing_and_knows_nothing_is_explained_by_nothing() -> None:
    status = {**MODEL["status"], "lastDecision": {"from": "full 1", "to": "full 1", "alternative": None}}
    assert build_sample(3.0, {**MODEL, "status": status}, [], []).explanation == Explanation()


def test_a_model_without_status_is_not_settled_on_anything() -> None:
    sample = build_sample(0.0, {"metadata": {"name": "a"}, "spec": {}}, [], [])
    assert sample.tiers == ()
    assert sample.mix == "nothing ready"
    assert not sample.routers_seen


@pytest.mark.parametrize(
    ("pods", "held"),
    [
        ([pod("engine", gpus="2"), pod("engine", "Pending")], 3),
        ([pod("engine", gone=True)], 1),
        ([pod("engine", "Succeeded"), pod("engine", "Failed")], 0),
        ([pod("router")], 0),
        ([pod("engine", model="b")], 0),
    ],
    ids=["pending pods count", "terminating pods count", "ended pods do not", "routers do not", "others' do not"],
)
def test_held_accelerators(pods: list[Any], held: int) -> None:
    assert held_accelerators(pods, "nvidia.com/gpu", "a") == held


def test_all_models_together_when_none_is_named() -> None:
    assert held_accelerators([pod("engine"), pod("engine", model="b")], "nvidia.com/gpu") == 2


def test_shares_are_averaged_and_counts_added_over_routers() -> None:
    reading = read_routers([METRICS, METRICS.replace("0.6", "0.2")])
    assert reading.shares["full"] == pytest.approx(0.4)
    assert (reading.queue, reading.in_flight["full"]) == (6, 4)


def test_only_running_routers_are_asked() -> None:
    pods = [pod("router"), pod("router", "Pending"), pod("router", gone=True), pod("router", model="b"), pod("engine")]
    assert router_pods(pods, "a") == ["router-0"]


def test_kubernetes_times_are_utc() -> None:
    assert unix_seconds("1970-01-01T00:01:00Z") == 60
