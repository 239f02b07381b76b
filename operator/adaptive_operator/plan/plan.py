"""How to get there: ordered, idempotent steps. Pure data, the output of `plan/` and the input of `apply/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adaptive_operator.reasons import ConditionReason, Reason

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ApplyObject:
    """Server-side apply of one child. `resource_version` is the one read, or None when it must not exist yet."""

    manifest: Manifest
    resource_version: str | None
    disruptive: bool = False  # takes a replica away that may serve, or begins to: not after the plan's `fresh_until`


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """Delete one child, only if it still is what was read."""

    kind: str
    name: str
    uid: str
    resource_version: str | None
    at_once: bool = False  # without waiting for the node to say that a pod has ended


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Write the status subresource. Comes before the first effect of a swap, so that a restart can resume."""

    status: Manifest


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """A Kubernetes Event on the AdaptiveModel; the same Reason as in status, metric and log.

    The same reason and message are the same Event, which is counted up and told with the newest details.
    """

    reason: Reason | ConditionReason
    message: str
    warning: bool = False
    details: tuple[str, ...] = ()  # what stands behind the message, the most important first


Step = ApplyObject | DeleteObject | WriteStatus | EmitEvent


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps for one model, to be taken in order; a failed step ends the pass, the next pass plans anew."""

    key: str
    steps: tuple[Step, ...]
    fresh_until: float | None = None  # Unix seconds, for disruptive steps; None: they rest on no reading
