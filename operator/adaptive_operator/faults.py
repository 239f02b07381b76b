"""What kept a model's pass from finishing, as its user reads it: the `Degraded` condition with cause and remedy. Pure.

Used where no decision could be made or carried out; everything else a user should know comes from `plan/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from adaptive_operator.kube import ForbiddenError, KubeError, RejectedError
from adaptive_operator.reasons import ConditionType

_MAX_MESSAGE = 2048


class FaultReason(StrEnum):
    """Why a model's pass could not finish."""

    INVALID_SPEC = "InvalidSpec"  # the stored object does not parse: older or newer than this operator
    BUDGET_UNKNOWN = "BudgetUnknown"  # nobody says how many accelerators there are, and the nodes do not tell
    NO_ACCELERATORS = "NoAccelerators"  # the budget is what nodes advertise, and none advertises any
    UNKNOWN_POOL = "UnknownPool"  # spec.accelerators.pool names none that there is, or that can be read
    POOL_NOT_READY = "PoolNotReady"  # the pool's budget is not known
    POOL_MISMATCH = "PoolMismatch"  # the pool has another resource than the model names or holds
    FORBIDDEN = "Forbidden"  # RBAC, quota or admission refused a write
    REJECTED = "Rejected"  # the API server finds an object invalid
    INTERNAL_ERROR = "InternalError"  # a defect of the operator; other models are not affected


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; equal faults are reported once."""

    reason: FaultReason
    message: str
    generation: int  # of the spec it was seen with
    since: str  # RFC 3339, UTC
    blocks: bool = False  # nothing at all can be done for the model: a model that never served is not ready


def build_fault(error: Exception, generation: int, now: float) -> Fault | None:
    """The fault behind an error, or None when there is nothing to tell the user (the next pass tries again)."""
    if isinstance(error, ForbiddenError):
        reason = FaultReason.FORBIDDEN
        text = f"may not {error.verb} {error.resource}: {error.message}; grant it (RBAC), or lift the quota or policy"
    elif isinstance(error, RejectedError):
        reason, text = FaultReason.REJECTED, f"{error.verb} {error.resource} was refused: {error.message}"
    elif isinstance(error, KubeError):
        return None
    else:
        reason = FaultReason.INTERNAL_ERROR
        text = f"the operator failed on this model ({type(error).__name__}); what runs is left as it is; see its log"
    return Fault(reason, text[:_MAX_MESSAGE], generation, format_time(now))


def unreadable_text(error: Exception) -> str:
    """For an object, or one of its children, that makes the reader fail."""
    kind = type(error).__name__
    return (
        f"the operator cannot read this model or one of its objects ({kind}); what runs is left as it is; see its log"
    )


def overlay_fault(status: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
    """The status with the fault in it; all else stays, since server-side apply drops what is left out."""
    conditions = [_replace_degraded(c, fault) for c in status.get("conditions") or []]
    types = {c["type"] for c in conditions}
    if ConditionType.DEGRADED not in types:
        conditions.append(_build_condition(ConditionType.DEGRADED, "True", fault, fault.since))
    if ConditionType.READY not in types:
        ready = "False" if fault.blocks else "Unknown"
        conditions.insert(0, _build_condition(ConditionType.READY, ready, fault, fault.since))
    told = {"reasonSummary": str(fault.reason), "messageSummary": fault.message}
    return {**status, "conditions": conditions, **told}


def _replace_degraded(condition: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
    if condition["type"] != ConditionType.DEGRADED:
        return dict(condition)
    # A transition is a change of status, not of reason.
    since = condition["lastTransitionTime"] if condition["status"] == "True" else fault.since
    return _build_condition(ConditionType.DEGRADED, "True", fault, since)


def _build_condition(kind: ConditionType, status: str, fault: Fault, since: str) -> dict[str, Any]:
    return {
        "type": str(kind),
        "status": status,
        "reason": str(fault.reason),
        "message": fault.message,
        "lastTransitionTime": since,
        "observedGeneration": fault.generation,
    }


def format_time(seconds: float) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_told(status: Mapping[str, Any], fault: Fault) -> bool:
    """Whether the status as read tells of this very fault already."""
    return status.get("reasonSummary") == str(fault.reason) and any(
        c.get("type") == ConditionType.DEGRADED
        and (c.get("status"), c.get("reason"), c.get("message")) == ("True", str(fault.reason), fault.message)
        and c.get("observedGeneration") == fault.generation
        for c in status.get("conditions") or []
    )
