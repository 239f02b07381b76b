"""From a raw pod to what a replica is doing, in the scheduler's and kubelet's own words. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from adaptive_operator.names import LABEL_REVISION, LABEL_TIER
from adaptive_operator.observe.manifests import UNREADABLE, Raw, count_accelerators, labels_of, metadata_of, parse_time
from adaptive_operator.observe.observation import PodObservation, PodPhase
from adaptive_operator.observe.readings import RouterPod

OUT_OF_MEMORY: Final = "OutOfMemory"
RANK_LOST: Final = "RankLost"  # the last word of an engine that had served: it can load, and does so again
# Reasons of a waiting container that do not pass by themselves.
_STUCK: Final = frozenset(
    {
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
# Killed for memory once may be bad luck; twice in a row is the rule.
_OUT_OF_MEMORY_RESTARTS: Final = 2
# From so many restarts on, a last life of less than this says nothing for the replica: it dies in every one. Restarts
# are counted for as long as the pod lives, so many alone say nothing; ten minutes end the kubelet's back-off, too.
_SHORT_LIVES: Final = 5
_SHORT_LIFE_SECONDS: Final = 600.0
_MAX_TROUBLE: Final = 500


def parse_pod(raw: Raw, resource: str) -> PodObservation:
    """One engine pod; `resource` is the accelerator that its model's pool is about."""
    metadata, labels = metadata_of(raw), labels_of(raw)
    ready_since = _ready_since(raw)
    words = _last_words(raw) if ready_since is None else None
    failure = words if words is not None and words[0] != RANK_LOST else None
    name = str(metadata.get("name", ""))
    return PodObservation(
        name=name,
        uid=str(metadata.get("uid", "")),
        tier=labels.get(LABEL_TIER, ""),
        revision=labels.get(LABEL_REVISION, ""),
        stateful_set=stateful_set_of(raw),
        ordinal=ordinal_of(raw),
        accelerators=count_accelerators(raw.get("spec") or {}, resource),
        phase=_phase(raw, ready_since, failure),
        created_at=parse_time(metadata.get("creationTimestamp")) or 0.0,
        ready_since=ready_since,
        trouble=words[1] if words else _trouble(raw, ready_since),
        load_failure_reason=failure[0] if failure else None,
        lost_at=parse_time(metadata.get("deletionTimestamp")) if _is_lost(raw) else None,
        started=any(status.get("started") for status in _container_statuses(raw)),
        has_served=(
            failure is None
            and ready_since is None
            and (words is not None or _was_ready(raw))
            and not _dies_in_every_life(raw)
        ),
        node=str((raw.get("spec") or {}).get("nodeName") or ""),
    )


def parse_router_pod(raw: Raw) -> RouterPod | None:
    """A router pod that is Ready and stays, else None."""
    since = _ready_since(raw)
    if since is None or metadata_of(raw).get("deletionTimestamp"):
        return None
    return RouterPod(str(metadata_of(raw).get("name", "")), since)


def stateful_set_of(raw: Raw) -> str:
    """Name of the StatefulSet that controls the pod, or ""."""
    references = metadata_of(raw).get("ownerReferences") or []
    return next((str(r["name"]) for r in references if r.get("kind") == "StatefulSet"), "")


def has_ended(raw: Raw) -> bool:
    """Whether the pod's containers have ended for good: it holds no accelerator any more."""
    return _pod_phase(raw) in ("Succeeded", "Failed")


def _phase(raw: Raw, ready_since: float | None, failure: tuple[str, str] | None) -> PodPhase:
    if metadata_of(raw).get("deletionTimestamp"):
        return PodPhase.TERMINATING
    if ready_since is not None:
        return PodPhase.READY
    if failure is not None or has_ended(raw) or any(_waiting_reason(s) in _STUCK for s in _container_statuses(raw)):
        return PodPhase.FAILED
    scheduled = _condition(raw, "PodScheduled")
    return PodPhase.STARTING if scheduled is not None and scheduled.get("status") == "True" else PodPhase.PENDING


def _trouble(raw: Raw, ready_since: float | None) -> str | None:
    """What keeps the pod from serving, in the words of whoever noticed."""
    if ready_since is not None:
        return None
    if metadata_of(raw).get("deletionTimestamp"):
        return _leaving_trouble(raw)
    scheduled = _condition(raw, "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return _clip(f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}")
    for status in _container_statuses(raw):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            return _clip(f"{waiting['reason']}: {waiting.get('message', '')}")
    pod_status = raw.get("status") or {}
    if has_ended(raw):
        return _clip(f"{pod_status.get('reason') or _pod_phase(raw)}: {pod_status.get('message', '')}")
    return None


def _is_lost(raw: Raw) -> bool:
    """Whether the pod is on its way out because its node went silent: the node cannot say that the pod ended."""
    evicted = _condition(raw, "DisruptionTarget") or {}
    return _pod_status(raw, "reason") == "NodeLost" or (
        (evicted.get("status"), evicted.get("reason")) == ("True", "DeletionByTaintManager")
    )


def _leaving_trouble(raw: Raw) -> str | None:
    """Why a pod on its way out has not gone yet."""
    if not _is_lost(raw):
        return None
    node = (raw.get("spec") or {}).get("nodeName", "")
    return _clip(
        f"its node {node} does not answer or was tainted; the pod holds its accelerators until the node says that it"
        " has ended, or until the operator removes it a minute after its time to end is over"
    )


def _last_words(raw: Raw) -> tuple[str, str] | None:
    """Reason and message that the engine left when it ended: why it could not load, or RANK_LOST."""
    for status in _container_statuses(raw):
        for key in ("state", "lastState"):
            ended = (status.get(key) or {}).get("terminated") or {}
            if failure := _parse_termination(ended.get("message")):
                return failure
            if ended.get("reason") == "OOMKilled" and int(status.get("restartCount") or 0) >= _OUT_OF_MEMORY_RESTARTS:
                return OUT_OF_MEMORY, f"the container was killed for memory {status['restartCount']} times"
    return None


def _parse_termination(message: Any) -> tuple[str, str] | None:
    """The last line that is a JSON object with a reason: {"reason": "ModelNotFound", "message": "…"}."""
    for line in reversed(str(message or "").splitlines()):
        try:
            document = json.loads(line)
        except UNREADABLE:
            continue
        if isinstance(document, dict) and isinstance(document.get("reason"), str):
            return document["reason"][:64], _clip(f"{document['reason']}: {document.get('message', '')}")
    return None


def _ready_since(raw: Raw) -> float | None:
    ready = _condition(raw, "Ready")
    if ready is None or ready.get("status") != "True":
        return None
    return parse_time(ready.get("lastTransitionTime")) or 0.0


def _was_ready(raw: Raw) -> bool:
    """Whether the pod was Ready in the last life of a container that ended: it became unready after that life began.

    Whatever ended it may have left no words. A pod is first unready before a container starts, and stays so while none
    becomes ready.
    """
    unready_since = parse_time((_condition(raw, "Ready") or {}).get("lastTransitionTime"))
    last = max((began for began, _ in _lives(raw)), default=None)
    return last is not None and unready_since is not None and unready_since > last


def _dies_in_every_life(raw: Raw) -> bool:
    """Whether a container ended many times, the last one soon after it began (or nobody says when)."""
    restarts = max((int(status.get("restartCount") or 0) for status in _container_statuses(raw)), default=0)
    began, ended = max(_lives(raw), default=(0.0, 0.0))
    return restarts >= _SHORT_LIVES and ended - began < _SHORT_LIFE_SECONDS


def _lives(raw: Raw) -> Iterator[tuple[float, float]]:
    """When each life of a container that ended began, and when it ended (Unix seconds; 0 where nobody says)."""
    for status in _container_statuses(raw):
        for key in ("state", "lastState"):
            ended = (status.get(key) or {}).get("terminated") or {}
            began = parse_time(ended.get("startedAt"))
            if began is not None:
                yield began, parse_time(ended.get("finishedAt")) or 0.0


def _condition(raw: Raw, kind: str) -> Raw | None:
    conditions = (raw.get("status") or {}).get("conditions") or []
    return next((c for c in conditions if c.get("type") == kind), None)


def _container_statuses(raw: Raw) -> Iterator[Raw]:
    status = raw.get("status") or {}
    yield from status.get("containerStatuses") or []
    yield from status.get("initContainerStatuses") or []


def _waiting_reason(status: Raw) -> str:
    return str(((status.get("state") or {}).get("waiting") or {}).get("reason", ""))


def _pod_phase(raw: Raw) -> str:
    return _pod_status(raw, "phase")


def _pod_status(raw: Raw, field: str) -> str:
    return str((raw.get("status") or {}).get(field, ""))


def ordinal_of(raw: Raw) -> int:
    """The pod's number in its StatefulSet, from its name; 0 when it has none."""
    suffix = str(metadata_of(raw).get("name", "")).rpartition("-")[2]
    return int(suffix) if suffix.isascii() and suffix.isdigit() else 0


def _clip(text: str) -> str:
    """One line, bounded: it goes into conditions and Events."""
    line = " ".join(text.split()).removesuffix(":")
    return line if len(line) <= _MAX_TROUBLE else line[: _MAX_TROUBLE - 1] + "…"
