"""The plan of one model as a whole: order, modes, names that are taken, epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from adaptive_operator import names
from adaptive_operator.api.status import AdaptiveModelStatus, Condition
from adaptive_operator.observe.observation import ChildObservation, ModelObservation
from adaptive_operator.plan import PlanSettings, plan_model
from adaptive_operator.plan.plan import ApplyObject, DeleteObject, EmitEvent, Plan, WriteStatus
from adaptive_operator.reasons import ConditionReason, Reason
from tests.operator.plan.situations import (
    NOW,
    READY,
    SETTINGS,
    demo_tiers,
    make_decision,
    make_model,
    make_spec,
    make_swap,
    make_tier,
    with_set,
)
from tests.operator.plan.test_simulation import settle
from tests.operator.plan.toy_cluster import ToyCluster

DECISION = make_decision({"full": 1, "int8": 0, "int4": 1}, {"full": 0.7, "int4": 0.3})


def running_cluster(**spec: Any) -> ToyCluster:
    cluster = ToyCluster(make_spec(**spec))
    settle(cluster, DECISION)
    return cluster


def kinds_of(plan: Plan) -> list[str]:
    return [step.manifest["kind"] if isinstance(step, ApplyObject) else type(step).__name__ for step in plan.steps]


def condition(plan: Plan, kind: str) -> Condition:
    step = next(step for step in plan.steps if isinstance(step, WriteStatus))
    status = AdaptiveModelStatus.model_validate(step.status["status"])
    return next(item for item in status.conditions if item.type == kind)


def with_child(
    model: ModelObservation, kind: str, name: str, owner_uid: str | None, labels: Mapping[str, str] | None = None
) -> ModelObservation:
    others = tuple(child for child in model.children if (child.kind, child.name) != (kind, name))
    child = ChildObservation(kind, name, "uid", "7", 0, owner_uid, labels or {})
    return replace(model, children=(*others, child))


def test_the_status_comes_first_the_router_after_its_table_and_events_last() -> None:
    plan = plan_model(make_model(), replace(DECISION, reason=Reason.STARTING_UP), SETTINGS, NOW, 1)
    assert kinds_of(plan) == [
        "WriteStatus",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        *["Service"] * 4,
        *["StatefulSet"] * 2,
        "ConfigMap",
        "Deployment",
        "EmitEvent",
    ]


def test_of_replicas_that_start_together_the_largest_is_asked_for_first() -> None:
    """As `decide/room.py` has placed them: the scheduler puts a small one that comes first where most is free."""
    tiers = [make_tier(name, "int8", size, 900) for name, size in (("small", 1), ("large", 4), ("middle", 2))]
    model = with_set(make_model(make_spec(tiers, accelerators={"budget": 8})), "small", [READY])
    plan = plan_model(model, make_decision({"small": 2, "large": 1, "middle": 1}, granted=8), SETTINGS, NOW, 1)
    applied = [step.manifest for step in plan.steps if isinstance(step, ApplyObject)]
    sets = [item["metadata"]["labels"][names.LABEL_TIER] for item in applied if item["kind"] == "StatefulSet"]
    assert sets == ["large", "middle", "small"]


def test_a_swap_is_on_record_before_its_first_effect_and_carries_the_epoch() -> None:
    cluster = running_cluster()
    target = {"full": 0, "int8": 3, "int4": 1}
    swap = make_swap({"full": 1, "int4": 1}, target)
    plan = plan_model(cluster.observe(), make_decision(target, swap=swap), SETTINGS, cluster.now, 1)
    assert isinstance(plan.steps[0], WriteStatus)
    assert plan.steps[0].status["status"]["swap"]["epoch"] == 1
    assert any(isinstance(step, ApplyObject) for step in plan.steps[1:])


def test_a_converged_model_has_nothing_to_write() -> None:
    cluster = running_cluster()
    for later in (0, 60, 86_400):
        assert plan_model(cluster.observe(), DECISION, SETTINGS, cluster.now + later, 1).steps == ()


def test_a_new_leader_stamps_every_child_once_and_changes_no_pod() -> None:
    cluster = running_cluster()
    pods = {pod.uid for pod in cluster.pods}
    plan = plan_model(cluster.observe(), DECISION, SETTINGS, cluster.now, 2)
    assert len(plan.steps) == len(cluster.objects)
    settle(cluster, DECISION, epoch=2)
    epochs = {item["metadata"]["annotations"][names.ANNOTATION_EPOCH] for item in cluster.objects.values()}
    assert epochs == {"2"}
    assert {pod.uid for pod in cluster.pods} == pods


def test_a_stale_leader_writes_no_child_and_says_so() -> None:
    cluster = running_cluster()
    settle(cluster, DECISION, epoch=5)
    other = make_decision({"full": 0, "int8": 3, "int4": 1})
    plan = plan_model(cluster.observe(), other, SETTINGS, cluster.now, 4)
    assert not [step for step in plan.steps if isinstance(step, ApplyObject | DeleteObject)]
    assert condition(plan, "Degraded").reason == ConditionReason.NEWER_EPOCH


def test_a_child_that_was_edited_or_deleted_by_hand_is_put_right() -> None:
    cluster = running_cluster()
    del cluster.objects["Service", "assistant"]
    cluster.objects["Deployment", "assistant-router"]["spec"]["replicas"] = 0
    plan = plan_model(cluster.observe(), DECISION, SETTINGS, cluster.now, 1)
    written = {step.manifest["kind"]: step.resource_version for step in plan.steps if isinstance(step, ApplyObject)}
    assert written == {
        "Service": None,
        "Deployment": cluster.objects["Deployment", "assistant-router"]["metadata"]["resourceVersion"],
    }


@pytest.mark.parametrize("owner", [None, "uid-of-another-model"])
@pytest.mark.parametrize(
    ("kind", "name"), [("Service", "assistant"), ("ConfigMap", "assistant-routing"), ("Deployment", "assistant-router")]
)
def test_a_name_that_is_taken_is_never_written_over(kind: str, name: str, owner: str | None) -> None:
    plan = plan_model(with_child(make_model(), kind, name, owner), DECISION, SETTINGS, NOW, 1)
    assert set(kinds_of(plan)) == {"WriteStatus", "EmitEvent"}
    ready = condition(plan, "Ready")
    assert (ready.status, ready.reason) == ("False", "NameTaken")
    assert f"{kind} {name}" in ready.message
    assert "Delete or rename it" in ready.message
    assert [step.reason for step in plan.steps if isinstance(step, EmitEvent)] == [ConditionReason.NAME_TAKEN]


def test_what_a_deleted_namesake_left_is_waited_for_and_not_blamed_on_the_user() -> None:
    model = with_child(make_model(), "Service", "assistant", "uid-before", {names.LABEL_MODEL: "assistant"})
    plan = plan_model(model, DECISION, SETTINGS, NOW, 1)
    assert set(kinds_of(plan)) == {"WriteStatus", "EmitEvent"}
    ready = condition(plan, "Ready")
    assert ready.reason == "NameTaken"
    assert "garbage collector" in ready.message
    assert "Delete or rename it" not in ready.message
    mixed = with_child(model, "ConfigMap", "assistant-routing", None)
    assert "Delete or rename it" in condition(plan_model(mixed, DECISION, SETTINGS, NOW, 1), "Ready").message


def test_a_dry_run_tells_its_decision_in_status_and_event_and_writes_nothing_else() -> None:
    model = make_model(make_spec(mode="DryRun"))
    plan = plan_model(model, replace(DECISION, reason=Reason.STARTING_UP, message="m"), SETTINGS, NOW, 1)
    assert kinds_of(plan) == ["WriteStatus", "EmitEvent"]
    assert plan.steps[1] == EmitEvent(
        Reason.STARTING_UP, "dry run: none → full 1 · int4 1: m", details=("seen: demand 1.00/s (age 1 s)",)
    )


def test_a_paused_model_keeps_its_children_even_under_a_new_leader() -> None:
    cluster = running_cluster()
    cluster.spec = make_spec(mode="Paused")
    plan = plan_model(cluster.observe(), make_decision({"full": 2}, reason=Reason.PAUSED), SETTINGS, cluster.now, 2)
    assert set(kinds_of(plan)) <= {"WriteStatus", "EmitEvent"}


def test_the_service_of_a_removed_tier_goes_after_its_pods() -> None:
    cluster = running_cluster()
    cluster.spec = make_spec(demo_tiers()[:2])
    decision = make_decision({"full": 1, "int8": 0})
    deleted: list[str] = []
    for _ in range(8):
        plan = plan_model(cluster.observe(), decision, SETTINGS, cluster.now, 1)
        for step in plan.steps:
            if isinstance(step, DeleteObject):
                deleted.append(step.kind)
                assert not [pod for pod in cluster.pods if pod.tier == "int4"]
            cluster.take(step)
        cluster.run_controllers()
    assert deleted == ["StatefulSet", "Service"]


def test_a_disruption_budget_comes_with_the_second_router_and_goes_with_it() -> None:
    cluster = running_cluster(routing={"routerReplicas": 2})
    assert ("PodDisruptionBudget", "assistant-router") in cluster.objects
    cluster.spec = make_spec()
    settle(cluster, DECISION)
    assert ("PodDisruptionBudget", "assistant-router") not in cluster.objects


def levels_of_sets(cluster: ToyCluster) -> dict[str, str]:
    """The annotation with the levels, by tier."""
    sets = [item.manifest["metadata"] for item in cluster.observe().stateful_sets]
    return {item["labels"][names.LABEL_TIER]: item["annotations"][names.ANNOTATION_LEVELS] for item in sets}


def edited_tiers(edit: Mapping[str, Any]) -> list[dict[str, Any]]:
    full, int8, int4 = demo_tiers()
    return [full, int8, {**int4, **edit}]


CARD = {"qualityPermille": 790, "capacityMilliRequestsPerSecond": 650}
OTHER_IMAGE = replace(SETTINGS, engine_image="registry.example/engine:2")


@pytest.mark.parametrize(
    ("edit", "settings", "expected"),
    [
        pytest.param({}, SETTINGS, '[["",780,650]]', id="as-the-card-says"),
        pytest.param({"card": CARD}, SETTINGS, '[["",790,650]]', id="an-edited-card-is-followed"),
        pytest.param({"card": CARD}, OTHER_IMAGE, '[["",790,650]]', id="also-by-replicas-of-an-older-image"),
        pytest.param(
            {"card": {**CARD, "qualityPermille": 998}, "recipe": {"precision": "int8"}},
            SETTINGS,
            '[["",780,650]]',
            id="an-earlier-recipe-keeps-what-was-said-of-it",
        ),
    ],
)
def test_a_stateful_set_says_what_its_replicas_serve(
    edit: dict[str, Any], settings: PlanSettings, expected: str
) -> None:
    cluster = running_cluster()
    cluster.spec = make_spec(edited_tiers(edit))
    before = {item.name for item in cluster.observe().stateful_sets}
    for step in plan_model(cluster.observe(), DECISION, settings, cluster.now, 1).steps:
        if isinstance(step, ApplyObject) and step.manifest["metadata"]["name"] in before | {"assistant-routing"}:
            cluster.take(step)
    assert levels_of_sets(cluster)["int4"] == expected
