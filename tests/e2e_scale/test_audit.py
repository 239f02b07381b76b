"""From the API server's audit log to what the operator wrote, and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.scale.audit import (
    AuditLog,
    ReplicaChanges,
    between,
    count_by_kind,
    count_replica_changes,
    first_after,
    first_replica_change,
    parse_writes,
    without_lease,
)

USER = "system:serviceaccount:adaptive-system:adaptive-llm"
MODEL = ("team-000", "m-0001")


def line(second: int, resource: str, name: str, replicas: int | None = None, **changes: Any) -> str:
    reference = {"resource": resource.partition("/")[0], "namespace": "team-000", "name": name}
    if "/" in resource:
        reference["subresource"] = resource.partition("/")[2]
    event: dict[str, Any] = {
        "user": {"username": USER},
        "verb": "patch",
        "objectRef": reference,
        "requestReceivedTimestamp": f"2026-01-01T00:00:{second:02d}.250000Z",
        "responseStatus": {"code": 200},
    }
    if replicas is not None:
        event["requestObject"] = {"spec": {"replicas": replicas}}
    return json.dumps({**event, **changes})


ZERO = parse_writes([line(0, "pods", "x")], USER)[0].at - 0.25


def writes(*lines: str) -> Any:
    return parse_writes(lines, USER)


def test_only_the_users_writes_count_in_the_order_of_their_arrival() -> None:
    found = writes(
        line(5, "services", "m-0001"),
        line(3, "adaptivemodels/status", "m-0001"),
        line(4, "pods", "x", user={"username": "kubernetes-admin"}),
    )
    assert [write.resource for write in found] == ["adaptivemodels/status", "services"]
    assert found[0].at - ZERO == pytest.approx(3.25)


def test_lease_renewals_are_no_writes_that_count() -> None:
    found = without_lease(writes(line(1, "leases", "adaptive-llm"), line(2, "events", "", verb="create")))
    assert count_by_kind(found) == {"create events": 1}


def test_an_interval_takes_its_begin_and_leaves_its_end() -> None:
    found = writes(*(line(second, "services", "m-0001") for second in range(5)))
    assert len(between(found, ZERO + 1.25, ZERO + 3.25)) == 2


def test_the_first_write_for_a_model_is_found_by_the_names_of_its_objects() -> None:
    found = writes(
        line(1, "adaptivemodels/status", "m-0001"),
        line(5, "statefulsets", "m-0011-full-abc"),
        line(7, "statefulsets", "m-0001-full-abc", 3),
    )
    assert first_after(found, MODEL, ZERO + 2) == pytest.approx(5.25)
    assert first_after(found, MODEL, ZERO + 8) is None


def test_a_stateful_set_write_with_the_same_replicas_is_no_change() -> None:
    found = writes(
        line(1, "statefulsets", "m-0001-full", 8),
        line(2, "statefulsets", "m-0001-int4", 1),
        line(11, "statefulsets", "m-0001-full", 8),
        line(12, "statefulsets", "m-0001-full", 9, responseStatus={"code": 409}),
        line(14, "statefulsets", "m-0001-int4", 2),
    )
    assert first_replica_change(found, MODEL, ZERO + 10) == pytest.approx(4.25)


def test_without_a_change_there_is_no_time() -> None:
    found = writes(line(1, "statefulsets", "m-0001-full", 8), line(11, "statefulsets", "m-0001-full", 8))
    assert first_replica_change(found, MODEL, ZERO + 10) is None


def test_the_log_is_read_on_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    second = line(2, "services", "m-0001")
    path.write_text(line(1, "services", "m-0001") + "\n" + second[:20])
    log = AuditLog(path, USER)
    assert len(log.read()) == 1
    with path.open("a") as file:
        file.write(second[20:] + "\n")
    assert [write.at - ZERO for write in log.read()] == pytest.approx([1.25, 2.25])
    assert len(log.read()) == 2


def test_replica_changes_count_what_was_asked_anew_and_what_came_back() -> None:
    found = writes(
        line(0, "statefulsets", "m-0001-full-1a2b3c", 1),
        line(1, "statefulsets", "m-0001-full-1a2b3c", 2),
        line(2, "statefulsets", "m-0001-full-1a2b3c", 2),
        line(3, "statefulsets", "m-0001-full-1a2b3c", 1),
        line(4, "statefulsets", "m-0002-int4-1a2b3c", 4),
        line(5, "statefulsets", "m-0002-int4-1a2b3c", 5),
        line(6, "statefulsets", "m-0002-int4-1a2b3c", 9, responseStatus={"code": 409}),
        line(7, "statefulsets", "m-0002-int4-1a2b3c"),
    )
    assert count_replica_changes(found, ZERO, ZERO + 60) == ReplicaChanges(changes=3, models=2, most=2, returns=1)
    assert count_replica_changes(found, ZERO + 3, ZERO + 5) == ReplicaChanges(changes=1, models=1, most=1, returns=1)
    assert count_replica_changes(found, ZERO + 6, ZERO + 60) == ReplicaChanges(0, 0, 0, 0)
