"""Taking steps: preconditions, the fence before every write, and what of it is an error."""

from __future__ import annotations

from typing import Any

import pytest

from adaptive_operator.apply.events import EventRecorder, EventTarget
from adaptive_operator.apply.lease import LeaseHolder, LeaseSettings, NotLeaderError
from adaptive_operator.apply.steps import ModelTarget, OutdatedPlanError, StepTaker
from adaptive_operator.faults import Fault, FaultReason
from adaptive_operator.kube import ConflictError, ForbiddenError
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, EmitEvent, Plan, WriteStatus
from adaptive_operator.reasons import Reason
from stand_ins.fake_kube import FakeKube
from stand_ins.raw_objects import build_model

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "assistant", "namespace": "demo"},
    "spec": {"ports": [80]},
}


class Scene:
    def __init__(self, before_write: Any = lambda _what: None) -> None:
        self.now = 0.0
        self.clock = 1000.0
        self.kube = FakeKube([build_model()])
        settings = LeaseSettings("system", "lock", "me")
        self.lease = LeaseHolder(self.kube, settings, monotonic=lambda: self.now)  # type: ignore[arg-type]
        events = EventRecorder(self.kube, "me", wall_clock=lambda: 1.7e9)  # type: ignore[arg-type]
        self.taker = StepTaker(self.kube, self.lease, events, before_write, lambda: self.clock)  # type: ignore[arg-type]
        self.target = ModelTarget("demo", "assistant", "uid-demo-assistant", "100")

    async def take(self, *steps: Any, epoch: int = 1, fresh_until: float | None = None) -> int:
        if not self.lease.is_leading and self.now == 0.0:
            await self.lease.step()
            self.kube.calls.clear()
        return await self.taker.take_all(Plan("demo/assistant", steps, fresh_until), self.target, epoch)

    def versions(self) -> dict[tuple[str, str, str], str]:
        return {key: raw["metadata"]["resourceVersion"] for key, raw in self.kube.objects.items()}


async def test_what_must_not_exist_yet_is_applied_without_force() -> None:
    scene = Scene()
    assert await scene.take(ApplyObject(SERVICE, None)) == 1
    assert scene.kube.forces == [False]


async def test_what_was_read_is_applied_with_force_under_the_version_that_was_read() -> None:
    scene = Scene()
    await scene.take(ApplyObject(SERVICE, None))
    version = scene.kube.objects["Service", "demo", "assistant"]["metadata"]["resourceVersion"]
    scene.target.versions.clear()
    assert await scene.take(ApplyObject({**SERVICE, "spec": {"ports": [81]}}, version)) == 1
    assert scene.kube.forces[-1] is True


async def test_an_object_that_changed_since_it_was_read_is_not_overwritten() -> None:
    scene = Scene()
    await scene.take(ApplyObject(SERVICE, None))
    scene.target.versions.clear()
    with pytest.raises(ConflictError):
        await scene.take(ApplyObject(SERVICE, "1"))


async def test_applying_what_is_there_changes_nothing() -> None:
    scene = Scene()
    await scene.take(ApplyObject(SERVICE, None))
    before = scene.versions()
    version = before["Service", "demo", "assistant"]
    scene.target.versions.clear()
    assert await scene.take(ApplyObject(SERVICE, version)) == 0
    assert scene.versions() == before


async def test_an_object_written_twice_in_one_pass_is_no_conflict_with_ourselves() -> None:
    scene = Scene()
    changed = {**SERVICE, "spec": {"ports": [82]}}
    assert await scene.take(ApplyObject(SERVICE, None), ApplyObject(changed, None)) == 2


async def test_two_status_writes_in_one_pass_follow_each_other() -> None:
    scene = Scene()
    status = {"apiVersion": "x", "kind": "AdaptiveModel", "metadata": {}, "status": {"tiersSummary": "a"}}
    assert await scene.take(WriteStatus(status), WriteStatus({**status, "status": {"tiersSummary": "b"}})) == 2
    assert scene.kube.objects["AdaptiveModel", "demo", "assistant"]["status"] == {"tiersSummary": "b"}


async def test_a_status_is_not_written_onto_a_model_that_changed_since() -> None:
    scene = Scene()
    scene.kube.touch("AdaptiveModel", "demo", "assistant")
    with pytest.raises(ConflictError):
        await scene.take(WriteStatus({"tiersSummary": "a"}))


async def test_an_outstanding_fault_stays_in_the_status() -> None:
    scene = Scene()
    scene.target.fault = Fault(FaultReason.FORBIDDEN, "may not patch", 3, "2026-01-01T00:00:00Z")
    degraded = {"type": "Degraded", "status": "False", "reason": "AsWanted", "message": "", "lastTransitionTime": "t"}
    await scene.take(WriteStatus({"conditions": [degraded]}))
    conditions = scene.kube.objects["AdaptiveModel", "demo", "assistant"]["status"]["conditions"]
    assert {c["type"]: (c["status"], c["reason"]) for c in conditions} == {
        "Ready": ("Unknown", "Forbidden"),
        "Degraded": ("True", "Forbidden"),
    }


@pytest.mark.parametrize("present", [True, False], ids=["there", "gone already"])
async def test_deleting_ends_with_the_object_gone(present: bool) -> None:
    scene = Scene()
    if present:
        await scene.take(ApplyObject(SERVICE, None))
    uid = "uid-demo-assistant"
    assert await scene.take(DeleteObject("Service", "assistant", uid, None)) == int(present)
    assert ("Service", "demo", "assistant") not in scene.kube.objects


async def test_another_object_of_the_same_name_is_not_deleted() -> None:
    scene = Scene()
    await scene.take(ApplyObject(SERVICE, None))
    with pytest.raises(ConflictError):
        await scene.take(DeleteObject("Service", "assistant", "uid-of-its-former-life", None))


async def test_a_failed_step_ends_the_pass_and_the_steps_before_stay() -> None:
    scene = Scene()
    other = {**SERVICE, "metadata": {"name": "other", "namespace": "demo"}}
    await scene.lease.step()
    scene.kube.fail = lambda verb, _kind, name: ForbiddenError(verb, "services", 403, "no") if name == "other" else None
    with pytest.raises(ForbiddenError):
        await scene.take(ApplyObject(SERVICE, None), ApplyObject(other, None), WriteStatus({}))
    assert ("Service", "demo", "assistant") in scene.kube.objects
    assert [call[2] for call in scene.kube.writes if call[1] != "Lease"] == ["assistant", "other"]


POD: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "engine-0", "namespace": "demo"}}
SMALLER = ApplyObject(POD, None, disruptive=True)


async def test_nothing_is_taken_away_after_the_readings_grew_too_old_while_other_steps_were_slow() -> None:
    scene = Scene()
    await scene.take(ApplyObject(POD, None))

    def answer_slowly(_verb: str, kind: str, _name: str) -> None:
        scene.clock += 30.0 if kind == "ConfigMap" else 0.0

    scene.kube.fail = answer_slowly
    table = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "table", "namespace": "demo"}}
    before = scene.versions()
    with pytest.raises(OutdatedPlanError, match=r"2 s ago"):
        await scene.take(ApplyObject(table, None), SMALLER, WriteStatus({"tiersSummary": "a"}), fresh_until=1028.0)
    assert scene.versions().keys() - before.keys() == {("ConfigMap", "demo", "table")}
    assert scene.versions()["Pod", "demo", "engine-0"] == before["Pod", "demo", "engine-0"]
    assert "status" not in scene.kube.objects["AdaptiveModel", "demo", "assistant"]


@pytest.mark.parametrize("fresh_until", [None, 1000.0], ids=["rests on no reading", "at the last moment"])
async def test_what_rests_on_fresh_readings_or_on_none_is_taken_away(fresh_until: float | None) -> None:
    scene = Scene()
    assert await scene.take(SMALLER, fresh_until=fresh_until) == 1


async def test_what_disrupts_nothing_goes_on_whatever_the_age_of_the_readings() -> None:
    scene = Scene()
    assert await scene.take(ApplyObject(SERVICE, None), WriteStatus({"tiersSummary": "a"}), fresh_until=1.0) == 2


STEPS = [
    ApplyObject(SERVICE, None),
    DeleteObject("Service", "assistant", "uid", None),
    WriteStatus({}),
    EmitEvent(Reason.STEADY, "m"),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
async def test_no_write_leaves_a_process_that_does_not_lead(step: Any) -> None:
    scene = Scene()
    await scene.take()
    scene.now += 11.0
    with pytest.raises(NotLeaderError):
        await scene.take(step)
    assert scene.kube.writes == []


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
async def test_no_write_goes_out_under_an_epoch_that_is_over(step: Any) -> None:
    scene = Scene()
    await scene.take()
    with pytest.raises(NotLeaderError):
        await scene.take(step, epoch=0)
    assert scene.kube.writes == []


async def test_the_hook_sees_every_write_before_it_happens() -> None:
    seen: list[str] = []
    scene = Scene(seen.append)
    await scene.take(*STEPS[:1], *STEPS[2:])
    assert seen == ["Service assistant", "status", "Event Steady"]


async def test_the_same_event_counts_up_and_another_message_is_another_event() -> None:
    kube = FakeKube()
    recorder = EventRecorder(kube, "me", wall_clock=lambda: 1.7e9)  # type: ignore[arg-type]
    target = EventTarget("demo", "assistant", "uid")
    for message in ("a", "a", "b", "a"):
        await recorder.emit(target, EmitEvent(Reason.ADDED_REPLICA, message, warning=True))
    events = [raw for key, raw in kube.objects.items() if key[0] == "Event"]
    assert sorted((e["message"], e["count"], e["type"]) for e in events) == [("a", 3, "Warning"), ("b", 1, "Warning")]
    assert events[0]["involvedObject"]["uid"] == "uid"


async def test_an_event_that_counts_up_is_told_with_the_newest_details() -> None:
    kube = FakeKube()
    recorder = EventRecorder(kube, "me")  # type: ignore[arg-type]
    for rate in (1, 2):
        event = EmitEvent(Reason.ADDED_REPLICA, "a", details=(f"seen: demand {rate}/s", "binding: the budget"))
        await recorder.emit(EventTarget("demo", "assistant", "uid"), event)
    told = [(raw["message"], raw["count"]) for raw in kube.objects.values()]
    assert told == [("a | seen: demand 2/s | binding: the budget", 2)]


async def test_an_event_is_never_longer_than_the_api_server_allows_in_bytes() -> None:
    kube = FakeKube()
    event = EmitEvent(Reason.ADDED_REPLICA, "full 1 · int4 1 → int8 3", details=("seen: " + "·" * 600, "binding: x"))
    await EventRecorder(kube, "me").emit(EventTarget("demo", "assistant", "uid"), event)  # type: ignore[arg-type]
    [raw] = kube.objects.values()
    assert 1020 < len(raw["message"].encode()) <= 1024
    assert raw["message"].startswith("full 1 · int4 1 → int8 3 | seen: ·")
    assert raw["message"].endswith("·…")


async def test_an_event_of_an_earlier_life_goes_on_counting() -> None:
    kube, event = FakeKube(), EmitEvent(Reason.ADDED_REPLICA, "a")
    target = EventTarget("demo", "assistant", "uid")
    for _ in range(2):
        await EventRecorder(kube, "me").emit(target, event)  # type: ignore[arg-type]
    assert [raw["count"] for raw in kube.objects.values()] == [2]


async def test_an_event_that_expired_is_made_again_and_none_is_worth_an_error() -> None:
    kube = FakeKube()
    recorder = EventRecorder(kube, "me")  # type: ignore[arg-type]
    target, event = EventTarget("demo", "assistant", "uid"), EmitEvent(Reason.ADDED_REPLICA, "a")
    await recorder.emit(target, event)
    kube.objects.clear()
    await recorder.emit(target, event)
    assert kube.objects == {}
    await recorder.emit(target, event)
    assert [raw["count"] for raw in kube.objects.values()] == [1]
