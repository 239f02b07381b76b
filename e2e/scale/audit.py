"""What the operator wrote, from the API server's audit log. Pure but for `AuditLog`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from e2e.scale.manifests import model_of

_LEASES = "leases"


@dataclass(frozen=True, slots=True)
class Write:
    """One write that the API server carried out or refused. `at`: seconds since the epoch, when it was received."""

    at: float
    verb: str
    resource: str  # plural, with the subresource: adaptivemodels/status
    namespace: str
    name: str
    code: int
    replicas: int | None = None  # asked for, of a StatefulSet

    @property
    def model(self) -> tuple[str, str]:
        """Namespace and name of the model that the object belongs to; an Event's object is not known by its name."""
        return self.namespace, model_of(self.name)


@dataclass(slots=True)
class AuditLog:
    """The log as it grows; only the writes of one user count."""

    path: Path
    user: str
    _offset: int = 0
    _writes: list[Write] = field(default_factory=list)

    def read(self) -> list[Write]:
        """All writes so far, oldest first; a line that is being written is left for the next time."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        if fresh := parse_writes(whole.decode().splitlines(), self.user):
            self._writes = sorted([*self._writes, *fresh], key=lambda write: write.at)
        return self._writes


def parse_writes(lines: Iterable[str], user: str) -> list[Write]:
    """Writes of a user in the order in which they were received."""
    events = (json.loads(line) for line in lines)
    return sorted((_parse(e) for e in events if e["user"]["username"] == user), key=lambda write: write.at)


def _parse(event: Mapping[str, Any]) -> Write:
    reference = event["objectRef"]
    subresource = reference.get("subresource")
    sent = event.get("requestObject") or {}
    return Write(
        at=datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(),
        verb=event["verb"],
        resource=reference["resource"] + (f"/{subresource}" if subresource else ""),
        namespace=reference.get("namespace", ""),
        name=reference.get("name", ""),
        code=int((event.get("responseStatus") or {}).get("code", 0)),
        replicas=(sent.get("spec") or {}).get("replicas"),
    )


def without_lease(writes: Iterable[Write]) -> list[Write]:
    """All but the renewals of the operator's Lease."""
    return [write for write in writes if write.resource != _LEASES]


def between(writes: Iterable[Write], start: float, end: float) -> list[Write]:
    """Those received in the interval."""
    return [write for write in writes if start <= write.at < end]


def count_by_kind(writes: Iterable[Write]) -> dict[str, int]:
    """`{"patch statefulsets": 3}`, most first."""
    return dict(Counter(f"{write.verb} {write.resource}" for write in writes).most_common())


def first_after(writes: Sequence[Write], model: tuple[str, str], start: float) -> float | None:
    """Seconds from `start` to the first write for a model; None: there was none."""
    found = [write.at - start for write in writes if write.model == model and write.at >= start]
    return min(found, default=None)


def first_replica_change(writes: Sequence[Write], model: tuple[str, str], start: float) -> float | None:
    """Seconds from `start` to the first StatefulSet write that asks for other replicas than the one before."""
    asked: dict[str, int | None] = {}
    for write in writes:
        if write.model != model or write.resource != "statefulsets" or write.code >= 300:
            continue
        if write.at >= start and write.replicas != asked.get(write.name):
            return write.at - start
        asked[write.name] = write.replicas
    return None


@dataclass(frozen=True, slots=True)
class ReplicaChanges:
    """How often StatefulSets were asked for other replicas than before. `returns`: for what they had before that."""

    changes: int
    models: int  # that had one
    most: int  # of one model
    returns: int


def count_replica_changes(writes: Iterable[Write], start: float, end: float) -> ReplicaChanges:
    """In an interval; the writes before it tell what was asked for at its start."""
    asked: dict[tuple[str, str], list[int]] = {}
    by_model: Counter[tuple[str, str]] = Counter()
    returns = 0
    for write in writes:
        if write.resource != "statefulsets" or write.replicas is None or write.code >= 300 or write.at >= end:
            continue
        before = asked.setdefault((write.namespace, write.name), [])
        if before and before[-1] != write.replicas and write.at >= start:
            by_model[write.model] += 1
            returns += len(before) > 1 and before[-2] == write.replicas
        if not before or before[-1] != write.replicas:
            before.append(write.replicas)
    return ReplicaChanges(by_model.total(), len(by_model), max(by_model.values(), default=0), returns)
