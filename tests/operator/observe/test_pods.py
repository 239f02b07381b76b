"""Raw pods as observations: where a replica stands, and the words of whoever stopped it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adaptive_operator.observe.observation import PodPhase
from adaptive_operator.observe.pods import parse_pod, parse_router_pod
from stand_ins.raw_objects import NOT_READY, READY, RESOURCE, build_pod


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"name": "engine", "state": {"waiting": {"reason": reason, "message": message}}}


def ended(message: str, key: str = "lastState", reason: str = "Error", restarts: int = 1) -> dict[str, Any]:
    return {"name": "engine", "restartCount": restarts, key: {"terminated": {"reason": reason, "message": message}}}


UNSCHEDULABLE = {
    "PodScheduled": {"status": "False", "reason": "Unschedulable", "message": "0/1 nodes: Insufficient gpu."}
}
NOT_FOUND = json.dumps({"reason": "ModelNotFound", "message": "no file x"})


@pytest.mark.parametrize(
    ("pod", "phase", "trouble"),
    [
        (build_pod(conditions={}, phase="Pending"), PodPhase.PENDING, None),
        (
            build_pod(conditions=UNSCHEDULABLE, phase="Pending"),
            PodPhase.PENDING,
            "Unschedulable: 0/1 nodes: Insufficient gpu.",
        ),
        (build_pod(conditions=NOT_READY), PodPhase.STARTING, None),
        (build_pod(conditions=READY), PodPhase.READY, None),
        (build_pod(conditions=READY, deleted=True), PodPhase.TERMINATING, None),
        (
            build_pod(conditions=NOT_READY, containers=[waiting("ImagePullBackOff", "Back-off pulling x")]),
            PodPhase.FAILED,
            "ImagePullBackOff: Back-off pulling x",
        ),
        (build_pod(conditions=NOT_READY, containers=[waiting("ContainerCreating")]), PodPhase.STARTING, None),
        (
            build_pod(conditions=NOT_READY, containers=[waiting("CrashLoopBackOff")]),
            PodPhase.FAILED,
            "CrashLoopBackOff",
        ),
        (build_pod(conditions={}, phase="Failed"), PodPhase.FAILED, "Failed"),
    ],
    ids=lambda value: None,
)
def test_where_a_replica_stands(pod: dict[str, Any], phase: PodPhase, trouble: str | None) -> None:
    parsed = parse_pod(pod, RESOURCE)
    assert (parsed.phase, parsed.trouble) == (phase, trouble)


EVICTED = {"DisruptionTarget": {"status": "True", "reason": "DeletionByTaintManager", "message": "Taint manager"}}
DRAINED = {"DisruptionTarget": {"status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API"}}


@pytest.mark.parametrize(
    ("conditions", "reason", "is_told"),
    [
        pytest.param(NOT_READY | EVICTED, "", True, id="evicted because its node went silent"),
        pytest.param(NOT_READY, "NodeLost", True, id="node lost"),
        pytest.param(NOT_READY | DRAINED, "", False, id="drained by an administrator"),
        pytest.param(NOT_READY, "", False, id="scaled down"),
    ],
)
def test_a_pod_that_cannot_end_because_its_node_is_lost_holds_its_accelerators_and_says_so(
    conditions: dict[str, Any], reason: str, is_told: bool
) -> None:
    pod = build_pod(conditions=conditions, deleted=True)
    pod["spec"]["nodeName"] = "node-7"
    pod["status"]["reason"] = reason
    parsed = parse_pod(pod, RESOURCE)
    assert (parsed.phase, parsed.accelerators) == (PodPhase.TERMINATING, 2)
    assert (parsed.trouble is not None) == (parsed.lost_at is not None) == is_told
    if is_told:
        assert "its node node-7 does not answer" in str(parsed.trouble)
        assert "holds its accelerators" in str(parsed.trouble)


@pytest.mark.parametrize("key", ["state", "lastState"])
def test_the_engines_last_words_name_the_cause_also_between_restarts(key: str) -> None:
    parsed = parse_pod(build_pod(conditions=NOT_READY, containers=[ended(f"log line\n{NOT_FOUND}\n", key)]), RESOURCE)
    assert parsed.phase is PodPhase.FAILED
    assert parsed.load_failure_reason == "ModelNotFound"
    assert parsed.trouble == "ModelNotFound: no file x"


def test_a_ready_pod_has_no_load_failure_although_it_failed_before() -> None:
    parsed = parse_pod(build_pod(conditions=READY, containers=[ended(NOT_FOUND)]), RESOURCE)
    assert (parsed.phase, parsed.load_failure_reason, parsed.trouble) == (PodPhase.READY, None, None)


@pytest.mark.parametrize(
    "message", ["", "no json", "[1]", '"text"', '{"message": "no reason"}', '{"reason": 5}', "{", "[" * 4000]
)
def test_other_last_words_are_no_load_failure(message: str) -> None:
    parsed = parse_pod(build_pod(conditions=NOT_READY, containers=[ended(message)]), RESOURCE)
    assert (parsed.phase, parsed.load_failure_reason) == (PodPhase.STARTING, None)


RANK_LOST = json.dumps({"reason": "RankLost", "message": "rank 1 was killed"})


@pytest.mark.parametrize("key", ["state", "lastState"])
def test_a_replica_that_lost_a_rank_restarts_and_is_no_load_failure(key: str) -> None:
    parsed = parse_pod(build_pod(conditions=NOT_READY, containers=[ended(f"log\n{RANK_LOST}\n", key)]), RESOURCE)
    assert (parsed.phase, parsed.load_failure_reason) == (PodPhase.STARTING, None)
    assert parsed.trouble == "RankLost: rank 1 was killed"
    assert parsed.has_served


def test_a_replica_that_cannot_load_after_it_lost_a_rank_is_a_load_failure() -> None:
    container = ended(RANK_LOST) | ended(NOT_FOUND, "state")
    parsed = parse_pod(build_pod(conditions=NOT_READY, containers=[container]), RESOURCE)
    assert (parsed.phase, parsed.load_failure_reason) == (PodPhase.FAILED, "ModelNotFound")
    assert not parsed.has_served


def test_a_replica_that_loses_a_rank_again_and_again_says_why_it_waits() -> None:
    container = waiting("CrashLoopBackOff", "back-off 5m0s") | {"restartCount": 3} | ended(RANK_LOST)
    parsed = parse_pod(build_pod(conditions=NOT_READY, containers=[container]), RESOURCE)
    assert (parsed.phase, parsed.load_failure_reason) == (PodPhase.FAILED, None)
    assert parsed.trouble == "RankLost: rank 1 was killed"
    assert parsed.has_served


@pytest.mark.parametrize(
    ("unready_at", "has_served"),
    [
        pytest.param("2026-01-01T10:00:00Z", False, id="never ready"),
        pytest.param("2026-01-01T10:00:10Z", False, id="unready since the second in which its last life began"),
        pytest.param("2026-01-01T10:30:00Z", True, id="ready in its last life"),
        pytest.param(None, False, id="nobody says since when"),
    ],
)
@pytest.mark.parametrize("crash_loop", [True, False], ids=["waits", "loads again"])
def test_a_replica_whose_last_life_was_ready_has_served_whatever_ended_it(
    unready_at: str | None, has_served: bool, crash_loop: bool
) -> None:
    """A lasting CUDA error, a crash of the driver: no last words."""
    container = ended("log line", reason="Error")
    container["lastState"]["terminated"] |= {"startedAt": "2026-01-01T10:00:10Z", "finishedAt": "2026-01-01T10:30:00Z"}
    container |= waiting("CrashLoopBackOff") if crash_loop else {"state": {"running": {}}}
    conditions = {**NOT_READY, "Ready": {"status": "False", "lastTransitionTime": unready_at}}
    parsed = parse_pod(build_pod(conditions=conditions, containers=[container]), RESOURCE)
    assert parsed.phase is (PodPhase.FAILED if crash_loop else PodPhase.STARTING)
    assert parsed.has_served is has_served


@pytest.mark.parametrize(
    ("restarts", "finished_at", "has_served"),
    [
        pytest.param(4, "2026-01-01T10:01:00Z", True, id="a few short lives may be bad luck"),
        pytest.param(5, "2026-01-01T10:01:00Z", False, id="one short life after the other"),
        pytest.param(5, "2026-01-01T10:30:10Z", True, id="many restarts over months, the last life a long one"),
        pytest.param(5, None, False, id="nobody says how long the last life was"),
    ],
)
@pytest.mark.parametrize("words", [RANK_LOST, "log line"], ids=["says why", "no words"])
def test_a_replica_that_serves_a_moment_in_each_of_its_lives_does_not_count_as_one_that_served(
    restarts: int, finished_at: str | None, has_served: bool, words: str
) -> None:
    container = ended(words, restarts=restarts) | waiting("CrashLoopBackOff")
    container["lastState"]["terminated"] |= {"startedAt": "2026-01-01T10:00:10Z", "finishedAt": finished_at}
    conditions = {**NOT_READY, "Ready": {"status": "False", "lastTransitionTime": "2026-01-01T10:00:50Z"}}
    parsed = parse_pod(build_pod(conditions=conditions, containers=[container]), RESOURCE)
    assert (parsed.phase, parsed.load_failure_reason) == (PodPhase.FAILED, None)
    assert parsed.has_served is has_served


@pytest.mark.parametrize(("restarts", "reason"), [(1, None), (2, "OutOfMemory")])
def test_killed_for_memory_twice_is_a_load_failure(restarts: int, reason: str | None) -> None:
    pod = build_pod(conditions=NOT_READY, containers=[ended("", reason="OOMKilled", restarts=restarts)])
    assert parse_pod(pod, RESOURCE).load_failure_reason == reason


def test_identity_place_and_weight_come_along() -> None:
    parsed = parse_pod(build_pod("assistant-full-aaaaaaaa-12", conditions=READY), RESOURCE)
    assert (parsed.stateful_set, parsed.ordinal, parsed.accelerators) == ("assistant-full-aaaaaaaa", 12, 2)
    assert parsed.ready_since == parsed.created_at == 1767225600.0
    assert parse_pod(build_pod(), "other.example/npu").accelerators == 0


def test_a_long_message_is_one_bounded_line() -> None:
    parsed = parse_pod(build_pod(conditions=NOT_READY, containers=[waiting("ErrImagePull", "a\nb " * 1000)]), RESOURCE)
    assert parsed.trouble is not None
    assert len(parsed.trouble) == 500
    assert "\n" not in parsed.trouble


def test_started_follows_the_startup_probe() -> None:
    assert parse_pod(build_pod(containers=[{"started": True}]), RESOURCE).started
    assert not parse_pod(build_pod(containers=[{"started": False}]), RESOURCE).started


def test_only_a_router_that_is_ready_and_stays_counts() -> None:
    assert parse_router_pod(build_pod("router-x", component="router", conditions=READY)) is not None
    assert parse_router_pod(build_pod("router-x", component="router", conditions=NOT_READY)) is None
    assert parse_router_pod(build_pod("router-x", component="router", conditions=READY, deleted=True)) is None


def test_a_pod_without_anything_is_pending() -> None:
    assert parse_pod({}, RESOURCE).phase is PodPhase.PENDING
