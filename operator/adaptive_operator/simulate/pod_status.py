"""The status of a simulated pod in the kubelet's words, as the operator's parser reads it."""

from __future__ import annotations

import json
from typing import Any, Final

from adaptive_operator.plan.clock import format_time
from adaptive_operator.reasons import ConditionReason
from adaptive_operator.simulate.container import Container, Crash
from adaptive_operator.simulate.events import EPOCH
from adaptive_operator.simulate.failing_loads import Failure
from adaptive_operator.simulate.plant import Pod

Raw = dict[str, Any]

_LAST_WORDS: Final = json.dumps(
    {"reason": ConditionReason.MODEL_CORRUPT, "message": "the weights do not match their manifest"}
)


def pod_status(pod: Pod, now: float) -> Raw:
    """Of an engine's pod: waiting for a node, loading, waiting to be started again after a crash, or Ready."""
    if pod.container is None:
        why = {"reason": "Unschedulable", "message": "0 nodes are available"}
        return {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", **why}]}
    return running_status(pod.ready_at if pod.is_ready else None, pod.container, now)


def running_status(ready_since: float | None, container: Container | None = None, now: float = 0.0) -> Raw:
    """Of a pod on a node: Ready since then (seconds), or never yet. Without a container: one that never crashed."""
    conditions: list[Raw] = [{"type": "PodScheduled", "status": "True"}]
    if ready_since is not None:
        since = format_time(EPOCH + ready_since)
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": since})
    status: Raw = {"name": "engine", "started": ready_since is not None, "restartCount": 0}
    if container is not None and container.last is not None:
        status |= _crashed(container, container.last, now)
    return {"phase": "Running", "conditions": conditions, "containerStatuses": [status]}


def _crashed(container: Container, crash: Crash, now: float) -> Raw:
    """What a container's status has besides once a life of it has ended; the kubelet counts a life when it begins."""
    ended: Raw = {
        "exitCode": 1,
        "reason": "Error",
        "startedAt": format_time(EPOCH + crash.began_at),
        "finishedAt": format_time(EPOCH + crash.ended_at),
    }
    if crash.failure is Failure.REFUSES:
        ended["message"] = _LAST_WORDS
    waits = container.is_waiting(now)
    state: Raw = {"running": {"startedAt": format_time(EPOCH + container.began_at)}}
    if waits:
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}}
    return {"restartCount": container.restarts - waits, "state": state, "lastState": {"terminated": ended}}
