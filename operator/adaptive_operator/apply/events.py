"""Kubernetes Events on an AdaptiveModel, aggregated: the same reason and message count up instead of piling up.

The details behind a message are those of the last time.

An Event is never worth a failed pass: what goes wrong here is logged. Knows no decisions.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from adaptive_operator.kube import ConflictError, KubeClient, KubeError, Manifest
from adaptive_operator.names import FIELD_MANAGER, GROUP, KIND, VERSION, short_hash
from adaptive_operator.plan.plan import EmitEvent
from adaptive_operator.plan.text import join_fitting

_LOG = logging.getLogger(__name__)
_REMEMBERED: Final = 2000
_NOTE_BYTES: Final = 1024  # what the API server allows the note of an Event


@dataclass(frozen=True, slots=True)
class EventTarget:
    """The AdaptiveModel that an Event is about."""

    namespace: str
    name: str
    uid: str


class EventRecorder:
    """Writes Events under deterministic names. `instance` says which process reported."""

    def __init__(self, kube: KubeClient, instance: str, wall_clock: Callable[[], float] = time.time) -> None:
        self._kube, self._instance, self._wall_clock = kube, instance, wall_clock
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def emit(self, target: EventTarget, event: EmitEvent) -> None:
        """Create the Event, or count it up when it exists."""
        manifest = self._build(target, event)
        try:
            await self._create_or_count(manifest)
        except KubeError as error:
            _LOG.warning("event %s of %s/%s was not written: %s", event.reason, target.namespace, target.name, error)

    async def _create_or_count(self, manifest: Manifest) -> None:
        key = (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        news = {"lastTimestamp": manifest["lastTimestamp"], "message": manifest["message"]}
        if key not in self._counts:
            try:
                await self._kube.create(manifest)
            except ConflictError:
                # From an earlier life of the operator: the answer says how often it was counted.
                seen = await self._kube.merge("Event", *key, news)
                self._counts[key] = int(seen.get("count") or 1)
            else:
                self._remember(key, 1)
                return
        count = self._counts[key] + 1
        try:
            await self._kube.merge("Event", *key, {**news, "count": count})
        except KubeError:
            del self._counts[key]  # most likely expired: the next time creates it
            raise
        self._remember(key, count)

    def _remember(self, key: tuple[str, str], count: int) -> None:
        self._counts[key] = count
        self._counts.move_to_end(key)
        while len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def _build(self, target: EventTarget, event: EmitEvent) -> Manifest:
        now = datetime.fromtimestamp(self._wall_clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = f"{target.name}.{short_hash(target.uid, event.reason, event.message)}"
        involved: dict[str, Any] = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "namespace": target.namespace,
            "name": target.name,
            "uid": target.uid,
        }
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": target.namespace},
            "involvedObject": involved,
            "reason": str(event.reason),
            "message": join_fitting((event.message, *event.details), _NOTE_BYTES),
            "type": "Warning" if event.warning else "Normal",
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
