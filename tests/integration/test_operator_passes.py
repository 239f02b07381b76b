"""The operator on a real API server: ownership of fields, quiet when converged, restarts at every write, one leader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client

from adaptive_operator.apply.lease import NotLeaderError
from adaptive_operator.names import ANNOTATION_DRAINING
from tests.integration.operator_fixtures import RESOURCE, Cluster, SimulatedCrash, Stage, build_stage

START = {"full": 1, "int4": 1}
SWAPPED = {"int4": 1, "int8": 3}
SWAP_WRITES = 15  # of one swap without a crash at least: each of them is a crash point
HIGH_LOAD = 2.0  # requests/s: full 1 · int4 1 carry 1.3, int8 3 · int4 1 carry 2.3


@pytest.fixture
def stage(context: str, api: client.ApiClient, crd: dict[str, Any], namespace: str) -> Iterator[Stage]:
    with build_stage(context, api, namespace) as built:
        yield built


def is_settled(cluster: Cluster, replicas: dict[str, int]) -> bool:
    status = cluster.model().get("status") or {}
    summary = all(f"{tier} {count}/{count}" in (status.get("tiersSummary") or "") for tier, count in replicas.items())
    return cluster.replicas() == replicas and "swap" not in status and summary


async def test_a_model_comes_up_without_metrics(stage: Stage) -> None:
    stage.prometheus.arrivals = None
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        conditions = {c["type"]: c for c in stage.cluster.model()["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    assert conditions["MetricsAvailable"]["status"] != "True"
    assert "adaptive_router_arrivals_total" in conditions["MetricsAvailable"]["message"]


async def test_the_specification_is_never_written(stage: Stage) -> None:
    before = stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
    after = stage.cluster.model()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == 1
    assert "finalizers" not in after["metadata"]
    assert "annotations" not in after["metadata"]
    ours = [e for e in after["metadata"]["managedFields"] if e["manager"] == "adaptive-operator"]
    assert [(e["operation"], e.get("subresource")) for e in ours] == [("Apply", "status")]
    assert set(ours[0]["fieldsV1"]) == {"f:status"}


async def test_a_field_that_somebody_else_owns_stays(stage: Stage) -> None:
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        labels = {"metadata": {"labels": {"team": "search"}, "annotations": {"cost-centre": "42"}}}
        stage.cluster.core.patch_namespaced_service("assistant", stage.cluster.namespace, labels)
        deployment = {"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}}
        stage.cluster.apps.patch_namespaced_deployment("assistant-router", stage.cluster.namespace, deployment)
        async with stage.operator() as successor:  # a new epoch writes every child again
            await successor.run(2)
    service = stage.cluster.core.read_namespaced_service("assistant", stage.cluster.namespace)
    router = stage.cluster.apps.read_namespaced_deployment("assistant-router", stage.cluster.namespace)
    assert service.metadata.labels["team"] == "search"
    assert service.metadata.annotations["cost-centre"] == "42"
    assert service.metadata.annotations["adaptivellm.dev/epoch"] == "2"
    assert router.spec.template.metadata.annotations["kubectl.kubernetes.io/restartedAt"] == "now"


async def test_an_edit_by_hand_of_what_is_ours_is_undone(stage: Stage) -> None:
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        name = stage.cluster.stateful_sets()[0].metadata.name
        stage.cluster.apps.patch_namespaced_stateful_set_scale(name, stage.cluster.namespace, {"spec": {"replicas": 0}})
        stage.cluster.core.delete_namespaced_service("assistant", stage.cluster.namespace)
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
    assert stage.cluster.core.read_namespaced_service("assistant", stage.cluster.namespace).spec.ports[0].port == 80


async def test_converged_is_quiet(stage: Stage) -> None:
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        for _ in range(3):
            await operator.run()
            stage.elapsed += 5.0
        await asyncio.sleep(1.0)  # the controllers write their own status
        before, writes = stage.cluster.versions(), len(operator.writes)
        for load in (0.10, 0.104, 0.097, 0.10, 0.095):
            stage.prometheus.arrivals = load
            assert await operator.run() == 0
            stage.elapsed += 5.0
    assert stage.cluster.versions() == before
    assert operator.writes[writes:] == []


async def test_a_quarantine_that_ends_leaves_the_status_writable(stage: Stage) -> None:
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        model = stage.cluster.model()
        quarantine = {"quarantinedUntil": {"int8": "2020-01-01T00:00:00Z"}, "quarantineCauses": {"int8": "no node"}}
        status = {**model["status"], "memory": {**model["status"]["memory"], **quarantine}}
        metadata = {"name": "assistant", "namespace": stage.cluster.namespace}
        manifest = {"apiVersion": model["apiVersion"], "kind": model["kind"], "metadata": metadata, "status": status}
        await operator.kube.apply(manifest, force=True, subresource="status")
        await operator.run(2)
    after = stage.cluster.model()["status"]
    conditions = {c["type"]: c["reason"] for c in after["conditions"]}
    assert conditions["Degraded"] == "AsWanted"
    assert not after["memory"].keys() & quarantine.keys()


async def test_a_strangers_service_under_the_models_name_is_left_alone_and_said_so(stage: Stage) -> None:
    body = {"metadata": {"name": "assistant"}, "spec": {"ports": [{"port": 5432}]}}
    stage.cluster.core.create_namespaced_service(stage.cluster.namespace, body)
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await operator.run(3)
    service = stage.cluster.core.read_namespaced_service("assistant", stage.cluster.namespace)
    assert service.spec.ports[0].port == 5432
    assert service.metadata.owner_references is None
    ready = next(c for c in stage.cluster.model()["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "NameTaken")
    assert "Service assistant" in ready["message"]


async def test_a_model_without_a_budget_is_told_what_to_set_and_its_neighbour_is_served(stage: Stage) -> None:
    stage.cluster.create_model("unlimited", accelerators={"resource": "example.com/npu"})
    stage.cluster.create_model()
    async with stage.operator(discovers=False) as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        versions = stage.cluster.model("unlimited")["metadata"]["resourceVersion"]
        await operator.run(2)
    told = stage.cluster.model("unlimited")
    assert told["metadata"]["resourceVersion"] == versions
    conditions = {c["type"]: c for c in told["status"]["conditions"]}
    assert (conditions["Ready"]["status"], conditions["Degraded"]["reason"]) == ("False", "BudgetUnknown")
    for remedy in ("ADAPTIVE_ACCELERATOR_BUDGETS", "accelerators.budgets", "spec.accelerators.budget"):
        assert remedy in conditions["Degraded"]["message"]


@pytest.fixture
def node(api: client.ApiClient, stage: Stage) -> Iterator[str]:
    """A node of this stage alone, Ready, with 3 accelerators."""
    core = client.CoreV1Api(api)
    name = f"node-{stage.cluster.namespace}"
    core.create_node({"metadata": {"name": name, "labels": stage.node_labels}})
    patch_node(core, name, "3")
    yield name
    core.delete_node(name)


def patch_node(core: client.CoreV1Api, name: str, accelerators: str) -> None:
    """Say what a kubelet would."""
    resources = {"nvidia.com/gpu": accelerators, "cpu": "64", "memory": "256Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    status = {"conditions": [ready], "allocatable": resources, "capacity": resources}
    core.patch_node_status(name, {"status": status})


async def test_a_pod_whose_node_went_silent_is_removed_and_replaced(
    stage: Stage, node: str, api: client.ApiClient
) -> None:
    core, namespace = client.CoreV1Api(api), stage.cluster.namespace
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        pod = next(p for p in stage.cluster.pods() if "-int4-" in p.metadata.name)
        await stage.lose_pod(core, pod, node)
        await operator.run(2)
        assert core.read_namespaced_pod(pod.metadata.name, namespace).metadata.uid == pod.metadata.uid
        stage.elapsed += 120.0
        await operator.run()
        await asyncio.to_thread(stage.cluster.await_pods)
    assert f"delete Pod {pod.metadata.name}" in operator.writes
    assert pod.metadata.uid not in {p.metadata.uid for p in stage.cluster.pods()}


def budget_of(stage: Stage) -> tuple[int | None, str]:
    """What the model's status says: the budget, and why nothing is done if so."""
    status = stage.cluster.model().get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    return status.get("acceleratorsBudget"), conditions.get("Degraded", {}).get("reason", "")


async def test_a_model_without_a_budget_runs_on_what_the_nodes_advertise(
    stage: Stage, node: str, api: client.ApiClient
) -> None:
    core = client.CoreV1Api(api)
    core.patch_node(node, {"spec": {"unschedulable": True}})
    stage.cluster.create_model(accelerators={"resource": RESOURCE})
    async with stage.operator() as operator:
        await operator.run(2)
        assert budget_of(stage) == (None, "NoAccelerators")
        assert stage.cluster.replicas() == {}
        core.patch_node(node, {"spec": {"unschedulable": False}})
        stage.elapsed += 15.0
        await stage.play(operator, lambda: is_settled(stage.cluster, START), budget=3)
        assert budget_of(stage) == (3, "AsWanted")
        patch_node(core, node, "5")
        stage.elapsed += 15.0
        await operator.run(2)
    assert budget_of(stage) == (5, "AsWanted")


async def test_events_are_aggregated_on_the_model(stage: Stage) -> None:
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
    events = stage.cluster.core.list_namespaced_event(
        stage.cluster.namespace, field_selector="involvedObject.kind=AdaptiveModel"
    ).items
    assert "StartingUp" in {e.reason for e in events}
    assert len({(e.reason, e.message.partition(" | ")[0]) for e in events}) == len(events)


async def swap_under_load(stage: Stage, crash_before: int | None) -> list[str]:
    """From full 1 · int4 1 to int8 3 · int4 1; the operator dies before the given write and another one goes on."""
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        stage.prometheus.arrivals = HIGH_LOAD
        operator.writes.clear()
        operator.crash_before = crash_before
        try:
            await stage.play(operator, lambda: is_settled(stage.cluster, SWAPPED))
        except SimulatedCrash:
            assert stage.cluster.held() <= 4
            assert stage.cluster.ready_engines() >= 1
        else:
            assert crash_before is None, f"the swap took fewer than {crash_before} writes: {operator.writes}"
            return operator.writes
    stage.elapsed += 5.0
    async with stage.operator() as successor:
        await stage.play(successor, lambda: is_settled(stage.cluster, SWAPPED))
        assert successor.lease.epoch == 2
    return []


async def test_a_swap_under_load_keeps_the_budget_and_is_recorded_before_its_first_effect(stage: Stage) -> None:
    writes = await swap_under_load(stage, crash_before=None)
    # A pass that sees a controller half way writes the status once more.
    assert SWAP_WRITES <= len(writes) <= SWAP_WRITES + 2
    assert writes[0] == "status"
    assert any(write.startswith("StatefulSet assistant-int8") for write in writes)
    history = [entry["reason"] for entry in stage.cluster.model()["status"]["history"]]
    assert "SwappedToCheaperTier" in history


async def test_while_the_api_server_is_so_slow_that_readings_grow_too_old_replicas_come_and_none_goes(
    stage: Stage,
) -> None:
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        stage.prometheus.arrivals = HIGH_LOAD
        steps, metrics = operator.reconciler.steps, operator.reconciler.metrics
        steps._wall_clock = lambda: stage.now() + 121.0  # what each pass wrote before took two minutes
        for _ in range(5):
            await operator.run()
            await asyncio.to_thread(stage.cluster.await_pods)
            await asyncio.to_thread(stage.cluster.set_ready)
            stage.elapsed += 5.0
        assert stage.cluster.replicas() == {**START, "int8": 1}
        annotations = [item.metadata.annotations for item in stage.cluster.stateful_sets()]
        assert not any(found.get(ANNOTATION_DRAINING) for found in annotations)
        assert (metrics.registry.get_sample_value("adaptive_operator_outdated_plans_total") or 0.0) > 0
        steps._wall_clock = stage.now
        await stage.play(operator, lambda: is_settled(stage.cluster, SWAPPED))


@pytest.mark.parametrize("crash_before", range(1, SWAP_WRITES + 1))
async def test_an_operator_that_dies_before_any_write_of_a_swap_is_resumed(stage: Stage, crash_before: int) -> None:
    await swap_under_load(stage, crash_before)
    assert stage.cluster.replicas() == SWAPPED


async def test_of_two_operators_one_acts_and_the_stale_ones_write_is_refused(stage: Stage) -> None:
    stage.cluster.create_model()
    async with stage.operator("first", 3.0) as first, stage.operator("second", 3.0) as second:
        await first.run()
        with pytest.raises(NotLeaderError):
            await second.run()
        epoch = first.lease.epoch
        deadline = time.monotonic() + 10.0
        while not second.lease.is_leading and time.monotonic() < deadline:  # the first one hangs, as if stopped
            await asyncio.sleep(0.3)
            await second.lease.step()
        assert second.lease.epoch == epoch + 1
        assert await second.reconciler.run_pass() > 0
        writes = len(first.writes)
        with pytest.raises(NotLeaderError):
            await first.reconciler.run_pass()
        with pytest.raises(NotLeaderError):
            first.lease.check(epoch)
        assert len(first.writes) == writes
        await first.lease.step()
        assert not first.lease.is_leading
    stamps = {s.metadata.annotations["adaptivellm.dev/epoch"] for s in stage.cluster.stateful_sets()}
    assert stamps == {str(epoch + 1)}


async def test_a_stale_leader_that_does_not_know_it_yet_is_refused_by_the_version_it_read(stage: Stage) -> None:
    stage.cluster.create_model()
    async with stage.operator("first") as first, stage.operator("second") as second:
        await first.run()
        snapshot = await first.reconciler.cluster.read()
        await first.lease.release()
        await second.run(2)
        before = stage.cluster.versions()
        first.lease.is_leading  # noqa: B018 it was released; now pretend that the clock stood still
        first.lease._epoch, first.lease._renewed_at = 1, time.monotonic()

        async def read_old() -> object:
            return snapshot

        first.reconciler.cluster.read = read_old  # type: ignore[method-assign,assignment]
        stage.prometheus.arrivals = HIGH_LOAD
        assert await first.reconciler.run_pass() == 0
    assert stage.cluster.versions() == before


@pytest.mark.timeout(150)  # the garbage collector takes up to 30 s to notice a definition that was installed just now
async def test_a_deleted_model_leaves_nothing_and_its_namesake_starts_clean(stage: Stage) -> None:
    stage.cluster.create_model()
    async with stage.operator() as operator:
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
        old = stage.cluster.model()["metadata"]["uid"]
        stage.cluster.custom.delete_namespaced_custom_object(
            "adaptivellm.dev", "v1alpha1", stage.cluster.namespace, "adaptivemodels", "assistant"
        )
        stage.cluster.create_model()
        await stage.outlast_leftovers(operator, old)
        await stage.play(operator, lambda: is_settled(stage.cluster, START))
    owners = {ref.uid for s in stage.cluster.stateful_sets() for ref in s.metadata.owner_references}
    assert owners == {stage.cluster.model()["metadata"]["uid"]}
    assert old not in owners
