"""Takes the steps of one plan, in order, each under the fence: the Lease is held and its epoch is the plan's.

A step that takes something away is not taken either once the plan's readings have grown too old. A failed step ends the
model's pass; the next pass sees what is there and plans anew. A reply that was lost after its
commit does no harm: names are deterministic, and an apply of what is there already changes nothing.
Knows neither why a step is taken nor what comes after.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from adaptive_operator.apply.events import EventRecorder, EventTarget
from adaptive_operator.apply.lease import LeaseHolder
from adaptive_operator.faults import Fault, overlay_fault
from adaptive_operator.kube import KubeClient, Manifest, NotFoundError
from adaptive_operator.names import GROUP, KIND, POOL_KIND, VERSION
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, EmitEvent, Plan, Step, WriteStatus

_MAX_WRITE_SECONDS: Final = 5.0

BeforeWrite = Callable[[str], None]


def _go_on(_what: str) -> None:
    """The hook of production: nothing happens before a write. Tests pass one that crashes at the k-th."""


class OutdatedPlanError(Exception):
    """The readings behind the plan are too old by now for what the step takes away."""


@dataclass(slots=True)
class ModelTarget:
    """The AdaptiveModel whose plan is applied. Versions move with our own writes within one pass."""

    namespace: str
    name: str
    uid: str
    resource_version: str  # of the AdaptiveModel, as read
    fault: Fault | None = None  # outstanding from the last pass: stays visible in the status until a pass succeeds
    versions: dict[tuple[str, str], tuple[str | None, str]] = field(
        default_factory=dict
    )  # child -> (as read, as written)


@dataclass(frozen=True, slots=True)
class PoolTarget:
    """The AcceleratorPool whose status is written: as it was read."""

    name: str
    uid: str
    resource_version: str


class StepTaker:
    """Carries out plans."""

    def __init__(
        self,
        kube: KubeClient,
        lease: LeaseHolder,
        events: EventRecorder,
        before_write: BeforeWrite = _go_on,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube, self._lease, self._events, self._before_write = kube, lease, events, before_write
        self._wall_clock = wall_clock

    async def take_all(self, plan: Plan, target: ModelTarget, epoch: int) -> int:
        """Take the plan's steps; returns how many changed something on the server.

        Raises NotLeaderError, OutdatedPlanError and KubeError; the steps before the failed one stay taken.
        """
        changed = 0
        for step in plan.steps:
            self._check_freshness(step, plan.fresh_until)
            changed += await self._take(step, target, epoch)
        return changed

    async def _take(self, step: Step, target: ModelTarget, epoch: int) -> bool:
        match step:
            case ApplyObject():
                return await self._apply(step, target, epoch)
            case DeleteObject():
                return await self._delete(step, target, epoch)
            case WriteStatus():
                return await self.write_status(step.status, target, epoch)
            case EmitEvent():
                self._fence(epoch, f"Event {step.reason}")
                await self._events.emit(EventTarget(target.namespace, target.name, target.uid), step)
                return True

    async def _apply(self, step: ApplyObject, target: ModelTarget, epoch: int) -> bool:
        manifest: Manifest = copy.deepcopy(dict(step.manifest))
        key = (manifest["kind"], manifest["metadata"]["name"])
        version = _newest_version(step.resource_version, target.versions.get(key))
        if version is not None:
            manifest["metadata"]["resourceVersion"] = version
        seconds = self._fence(epoch, f"{key[0]} {key[1]}")
        # Without force where nothing may exist yet: a stranger's object of that name is never taken over.
        written = await self._kube.apply(manifest, force=version is not None, timeout_seconds=seconds)
        target.versions[key] = (step.resource_version, written["metadata"]["resourceVersion"])
        return bool(written["metadata"]["resourceVersion"] != version)

    async def _delete(self, step: DeleteObject, target: ModelTarget, epoch: int) -> bool:
        version = _newest_version(step.resource_version, target.versions.get((step.kind, step.name)))
        seconds = self._fence(epoch, f"delete {step.kind} {step.name}")
        try:
            await self._kube.delete(
                step.kind,
                target.namespace,
                step.name,
                uid=step.uid,
                resource_version=version,
                at_once=step.at_once,
                timeout_seconds=seconds,
            )
        except NotFoundError:
            return False  # gone already: as wanted
        return True

    async def write_status(self, status: Any, target: ModelTarget, epoch: int) -> bool:
        """Server-side apply of the status subresource. Accepts the whole object or its `status` alone."""
        body = copy.deepcopy(dict(status["status"] if "apiVersion" in status else status))
        if target.fault is not None:
            body = overlay_fault(body, target.fault)
        metadata = {
            "name": target.name,
            "namespace": target.namespace,
            "resourceVersion": target.resource_version,
        }
        manifest = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "status": body}
        seconds = self._fence(epoch, "status")
        written = await self._kube.apply(manifest, force=True, subresource="status", timeout_seconds=seconds)
        before, target.resource_version = target.resource_version, written["metadata"]["resourceVersion"]
        return bool(before != target.resource_version)

    async def write_pool_status(self, pool: PoolTarget, status: Manifest, epoch: int) -> bool:
        """Server-side apply of an AcceleratorPool's status."""
        metadata = {"name": pool.name, "uid": pool.uid, "resourceVersion": pool.resource_version}
        manifest = {"apiVersion": f"{GROUP}/{VERSION}", "kind": POOL_KIND, "metadata": metadata, "status": dict(status)}
        seconds = self._fence(epoch, f"status of AcceleratorPool {pool.name}")
        written = await self._kube.apply(manifest, force=True, subresource="status", timeout_seconds=seconds)
        return bool(pool.resource_version != written["metadata"]["resourceVersion"])

    def _check_freshness(self, step: Step, fresh_until: float | None) -> None:
        """Raises OutdatedPlanError."""
        if fresh_until is None or not isinstance(step, ApplyObject) or not step.disruptive:
            return
        late = self._wall_clock() - fresh_until
        if late > 0:
            raise OutdatedPlanError(
                f"{step.manifest['kind']} {step.manifest['metadata']['name']} takes a replica away,"
                f" and the readings grew too old {late:.0f} s ago"
            )

    def _fence(self, epoch: int, what: str) -> float:
        """Seconds that the write may take. Raises NotLeaderError."""
        self._before_write(what)
        return min(_MAX_WRITE_SECONDS, self._lease.check(epoch))


def _newest_version(read: str | None, ours: tuple[str | None, str] | None) -> str | None:
    """The version to write against: ours, when this pass has written the object since it was read."""
    return ours[1] if ours is not None and ours[0] == read else read
