"""Faults as their users read them."""

from __future__ import annotations

import pytest

from adaptive_operator.faults import Fault, FaultReason, build_fault, is_told, overlay_fault
from adaptive_operator.kube import ConflictError, ForbiddenError, RejectedError, UnavailableError

FAULT = Fault(FaultReason.FORBIDDEN, "may not patch", 3, "2026-01-01T00:00:00Z")
SINCE = "2025-12-31T00:00:00Z"


def degraded(status: str, reason: str = "AsWanted") -> dict[str, object]:
    return {"type": "Degraded", "status": status, "reason": reason, "message": "", "lastTransitionTime": SINCE}


def test_a_403_names_verb_and_resource() -> None:
    fault = build_fault(ForbiddenError("patch", 'statefulsets "x" in namespace demo', 403, "no rule"), 3, 0.0)
    assert fault is not None
    assert fault.reason is FaultReason.FORBIDDEN
    assert fault.message.startswith('may not patch statefulsets "x" in namespace demo: no rule')


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RejectedError("patch", "services", 422, "bad port"), FaultReason.REJECTED),
        (ValueError("secret detail"), FaultReason.INTERNAL_ERROR),
    ],
    ids=["refused", "defect"],
)
def test_other_errors_have_their_reason(error: Exception, reason: FaultReason) -> None:
    fault = build_fault(error, 1, 0.0)
    assert fault is not None
    assert fault.reason is reason
    assert "secret detail" not in fault.message


@pytest.mark.parametrize("kind", [ConflictError, UnavailableError])
def test_what_passes_by_itself_is_not_told(kind: type[ConflictError]) -> None:
    assert build_fault(kind("patch", "services", 503, "later"), 1, 0.0) is None


def test_all_else_in_the_status_stays() -> None:
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "lastTransitionTime": SINCE}
    status = {"memory": {"agreedCount": 2}, "conditions": [ready, degraded("False")]}
    told = overlay_fault(status, FAULT)
    assert told["memory"] == {"agreedCount": 2}
    assert told["conditions"][0] == ready
    assert told["conditions"][1]["lastTransitionTime"] == FAULT.since


def test_the_transition_time_moves_only_with_the_status() -> None:
    told = overlay_fault({"conditions": [degraded("True", "NameTaken")]}, FAULT)
    assert [c["lastTransitionTime"] for c in told["conditions"] if c["type"] == "Degraded"] == [SINCE]


def test_a_blocked_model_that_never_served_is_not_ready() -> None:
    blocked = Fault(FaultReason.INVALID_SPEC, "m", 1, SINCE, blocks=True)
    assert overlay_fault({}, blocked)["conditions"][0]["status"] == "False"


def test_a_fault_is_told_once() -> None:
    status = overlay_fault({}, FAULT)
    assert is_told(status, FAULT)
    assert not is_told({}, FAULT)
    assert not is_told(status, Fault(FAULT.reason, "another", 3, SINCE))
    assert not is_told(status, Fault(FAULT.reason, FAULT.message, 4, SINCE))


def test_the_short_view_tells_the_fault_and_what_was_decided_last_stays() -> None:
    decided = {"reason": "Steady", "message": "full 1 is what is wanted"}
    status = {"lastDecision": decided, "reasonSummary": "Steady", "messageSummary": decided["message"]}
    told = overlay_fault(status, FAULT)
    assert (told["reasonSummary"], told["messageSummary"]) == ("Forbidden", "may not patch")
    assert told["lastDecision"] == decided


def test_a_fault_that_the_short_view_does_not_tell_is_told_again() -> None:
    """By an operator that did not know the short view, or over a decision."""
    status = {key: value for key, value in overlay_fault({}, FAULT).items() if key == "conditions"}
    assert not is_told(status, FAULT)
