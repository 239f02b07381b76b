"""Who may write: one coordination.k8s.io Lease, whose `leaseTransitions` is the epoch that is stamped on all children.

The epoch rises at every acquisition, also by the same holder. Times are compared on this machine's monotonic clock
only: another holder's lease has lapsed when it was not seen to change for its whole duration, whatever its clock says.
A holder stops acting `duration − renew_deadline` before others may take over, which is the longest a write may take.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adaptive_operator.kube import ConflictError, KubeClient, KubeError, Manifest, NotFoundError

_LOG = logging.getLogger(__name__)


class NotLeaderError(Exception):
    """The lease is not held, or it is held under another epoch than the one the decision was made under."""


@dataclass(frozen=True, slots=True)
class LeaseSettings:
    """The Lease and its times, in seconds."""

    namespace: str
    name: str
    identity: str  # unique per process, or per pod: a container that restarts in its pod takes over at once
    duration_seconds: float = 15.0  # others may take over when it was not renewed for so long

    @property
    def renew_deadline_seconds(self) -> float:
        """Not renewed for so long, the holder stops acting."""
        return self.duration_seconds * 2 / 3

    @property
    def call_seconds(self) -> float:
        """One renewal takes at most so long, so that a second one fits before the deadline."""
        return self.duration_seconds / 4

    @property
    def retry_seconds(self) -> float:
        """Between renewals, and between looks at somebody else's lease."""
        return self.duration_seconds / 6


class LeaseHolder:
    """Acquires, renews and releases the Lease."""

    def __init__(
        self,
        kube: KubeClient,
        settings: LeaseSettings,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube, self._settings = kube, settings
        self._on_change: Callable[[bool], None] = lambda _leading: None
        self._monotonic, self._wall_clock = monotonic, wall_clock
        self._epoch: int | None = None
        self._renewed_at = 0.0  # monotonic, when the last successful renewal was *sent*
        self._lease: Manifest | None = None  # as last written by us
        self._seen: tuple[str, float] | None = None  # another holder's resourceVersion, and since when (monotonic)
        self._tried_at = monotonic()
        self._acting_since = 0.0

    def call_on_change(self, callback: Callable[[bool], None]) -> None:
        """Call this when leadership is won (True) or lost (False)."""
        self._on_change = callback

    @property
    def epoch(self) -> int:
        """The epoch to act under. Raises NotLeaderError."""
        if self._epoch is None or self.remaining_seconds() <= 0:
            raise NotLeaderError("the lease is not held")
        return self._epoch

    @property
    def is_leading(self) -> bool:
        """Whether this process may act now."""
        return self._epoch is not None and self.remaining_seconds() > 0

    @property
    def acting_since(self) -> float:
        """When leadership was won, in seconds since the epoch (UTC)."""
        return self._acting_since

    @property
    def tried_at(self) -> float:
        """When the Lease was last asked for, answered or not (monotonic): the sign of life of a standby."""
        return self._tried_at

    def remaining_seconds(self) -> float:
        """How long this process may still act without a renewal."""
        return self._renewed_at + self._settings.renew_deadline_seconds - self._monotonic()

    def check(self, epoch: int) -> float:
        """Seconds that a write may take from now on. Raises NotLeaderError when `epoch` is not ours any more."""
        if self.epoch != epoch:
            raise NotLeaderError(f"epoch {epoch} is over, now {self._epoch}")
        return self._renewed_at + self._settings.duration_seconds - self._monotonic()

    async def run(self) -> None:
        """Hold the lease, or stand by for it, until cancelled."""
        while True:
            try:
                await self.step()
            except KubeError as error:
                _LOG.warning("lease: %s", error)
                self._notice_lapse()
            await asyncio.sleep(self._settings.retry_seconds * random.uniform(0.8, 1.2))  # noqa: S311 jitter

    async def step(self) -> None:
        """One look: renew what is held, acquire what is free. Raises KubeError."""
        self._tried_at = self._monotonic()
        if self._epoch is not None:
            await self._renew()
        else:
            await self._try_acquire()

    async def raise_epoch(self, above: int) -> None:
        """Renew under an epoch greater than `above`: the Lease was deleted or reset, and children carry later epochs.

        Only the present holder can: the write carries the version of the Lease that this process wrote last.
        """
        lease = self._lease
        if lease is None:
            raise NotLeaderError("the lease is not held")
        epoch = max(above, self.epoch) + 1
        spec = {**lease["spec"], "leaseTransitions": epoch, "renewTime": self._now()}
        try:
            await self._write(lambda: self._replace(lease, spec))
        except ConflictError as error:
            raise NotLeaderError("the lease changed while its epoch was raised") from error
        self._epoch = epoch
        _LOG.warning("lease: children carry epoch %d; acting under %d from now on", above, epoch)

    async def release(self) -> None:
        """Hand the lease over at once, so that a successor need not wait for it to lapse."""
        lease, self._epoch = self._lease, None
        if lease is None:
            return
        self._lease = None
        self._on_change(False)
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._now()}
        try:
            await self._replace(lease, spec)
        except KubeError as error:
            _LOG.warning("lease: could not be released, a successor waits until it lapses: %s", error)

    async def _try_acquire(self) -> None:
        try:
            lease = await self._kube.get("Lease", self._settings.namespace, self._settings.name)
        except NotFoundError:
            await self._acquire(None)
            return
        if self._is_free(lease):
            await self._acquire(lease)

    def _is_free(self, lease: Manifest) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._settings.identity):
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._monotonic())
            return False
        duration = float(spec.get("leaseDurationSeconds") or self._settings.duration_seconds)
        return self._monotonic() - self._seen[1] > duration

    async def _acquire(self, lease: Manifest | None) -> None:
        transitions = ((lease or {}).get("spec") or {}).get("leaseTransitions")
        epoch = int(transitions or 0) + 1
        spec = self._build_spec(epoch, self._now())
        try:
            if lease is None:
                await self._write(lambda: self._kube.create(self._build_lease(spec)))
            else:
                await self._write(lambda: self._replace(lease, spec))
        except ConflictError:
            self._seen = None
            return
        self._epoch, self._seen, self._acting_since = epoch, None, self._wall_clock()
        _LOG.info("lease: acquired as %s, epoch %d", self._settings.identity, epoch)
        self._on_change(True)

    async def _renew(self) -> None:
        lease = self._lease or {}
        spec = {**lease["spec"], "renewTime": self._now()}
        try:
            await self._write(lambda: self._replace(lease, spec))
        except (ConflictError, NotFoundError):
            await self._adopt_or_lose()
        except KubeError:
            self._notice_lapse()
            raise

    async def _adopt_or_lose(self) -> None:
        """Our copy is old: a reply was lost after its commit (still ours), or somebody else holds the lease."""
        try:
            lease = await self._kube.get("Lease", self._settings.namespace, self._settings.name)
        except NotFoundError:
            self._lose("it was deleted")
            return
        spec = lease.get("spec") or {}
        if (spec.get("holderIdentity"), spec.get("leaseTransitions")) == (self._settings.identity, self._epoch):
            self._lease = lease
            await self._renew_adopted(lease)
        else:
            self._lose(f"it is held by {spec.get('holderIdentity') or 'nobody'}")

    async def _renew_adopted(self, lease: Manifest) -> None:
        try:
            await self._write(lambda: self._replace(lease, {**lease["spec"], "renewTime": self._now()}))
        except (ConflictError, NotFoundError):
            self._lose("it changes under our hands")

    async def _replace(self, lease: Manifest, spec: Mapping[str, Any]) -> Manifest:
        """The lease's resourceVersion is the precondition: nobody else wrote it since."""
        return await self._kube.replace({**lease, "spec": dict(spec)}, timeout_seconds=self._settings.call_seconds)

    async def _write(self, call: Callable[[], Awaitable[Manifest]]) -> None:
        sent_at = self._monotonic()
        self._lease = await call()
        self._renewed_at = sent_at

    def _notice_lapse(self) -> None:
        if self._epoch is not None and self.remaining_seconds() <= 0:
            self._lose("it could not be renewed in time")

    def _lose(self, cause: str) -> None:
        _LOG.warning("lease: lost, epoch %s: %s", self._epoch, cause)
        self._epoch = self._lease = self._seen = None
        self._on_change(False)

    def _now(self) -> str:
        return datetime.fromtimestamp(self._wall_clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _build_spec(self, epoch: int, now: str) -> dict[str, Any]:
        return {
            "holderIdentity": self._settings.identity,
            "leaseDurationSeconds": max(1, round(self._settings.duration_seconds)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": epoch,
        }

    def _build_lease(self, spec: dict[str, Any]) -> Manifest:
        metadata = {"name": self._settings.name, "namespace": self._settings.namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
