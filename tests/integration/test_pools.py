"""AcceleratorPools on a real API server: the budget at every pass, who gets what, and models whose pool is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client

from adaptive_operator.names import GROUP, POOL_PLURAL, VERSION
from tests.integration.operator_fixtures import RESOURCE, Stage, build_stage

BUDGET = 6
HIGH_LOAD = 20.0  # requests/s: far more than six accelerators carry


@pytest.fixture
def stage(
    context: str, api: client.ApiClient, crd: dict[str, Any], pool_crd: dict[str, Any], namespace: str
) -> Iterator[Stage]:
    with build_stage(context, api, namespace) as built:
        yield built


class Pools:
    """AcceleratorPools called like the test's namespace."""

    def __init__(self, api: client.ApiClient, name: str) -> None:
        self._custom, self.name = client.CustomObjectsApi(api), name

    def create(self, **spec: Any) -> None:
        kind = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "AcceleratorPool", "metadata": {"name": self.name}}
        self._custom.create_cluster_custom_object(GROUP, VERSION, POOL_PLURAL, {**kind, "spec": spec})

    def patch(self, **spec: Any) -> None:
        self._custom.patch_cluster_custom_object(GROUP, VERSION, POOL_PLURAL, self.name, {"spec": spec})

    def read(self) -> dict[str, Any]:
        return self._custom.get_cluster_custom_object(GROUP, VERSION, POOL_PLURAL, self.name)

    def delete(self) -> None:
        self._custom.delete_cluster_custom_object(GROUP, VERSION, POOL_PLURAL, self.name)

    def held(self) -> dict[str, int]:
        return {m["name"]: m["accelerators"] for m in (self.read().get("status") or {}).get("models", [])}


@pytest.fixture
def pools(api: client.ApiClient, stage: Stage) -> Iterator[Pools]:
    found = Pools(api, stage.cluster.namespace)
    yield found
    for item in client.CustomObjectsApi(api).list_cluster_custom_object(GROUP, VERSION, POOL_PLURAL)["items"]:
        if item["metadata"]["name"] == found.name:
            found.delete()


def create_models(stage: Stage, *names: str) -> None:
    for name in names:
        stage.cluster.create_model(name, accelerators={"pool": stage.cluster.namespace})


async def test_models_of_a_pool_hold_by_weight_and_its_status_says_so(stage: Stage, pools: Pools) -> None:
    share = {"namespace": stage.cluster.namespace, "model": "a", "weight": 2}
    pools.create(budget=BUDGET, shares=[share])
    create_models(stage, "a", "b")
    stage.prometheus.arrivals = HIGH_LOAD
    async with stage.operator(everywhere=True, discovers=False) as operator:
        await stage.play(operator, lambda: pools.held() == {"a": 4, "b": 2}, BUDGET)
        await operator.run(2)
        before = pools.read()["metadata"]["resourceVersion"]
        assert await operator.run(3) == 0
    pool = pools.read()
    assert pool["metadata"]["resourceVersion"] == before, "a status is written on change only"
    status = pool["status"]
    assert (status["budget"], status["held"], status["modelsTotal"]) == (BUDGET, BUDGET, 2)
    assert [(c["type"], c["status"], c["reason"]) for c in status["conditions"]] == [("Ready", "True", "Sharing")]
    assert {(m["name"], m["weight"], m["reason"]) for m in status["models"]} == {
        ("a", 2, "Weighted"),
        ("b", 1, "Weighted"),
    }


async def test_a_lowered_budget_is_reached_and_never_passed_again(stage: Stage, pools: Pools) -> None:
    pools.create(budget=BUDGET)
    create_models(stage, "a", "b")
    stage.prometheus.arrivals = HIGH_LOAD
    async with stage.operator(everywhere=True, discovers=False) as operator:
        await stage.play(operator, lambda: stage.cluster.held() == BUDGET, BUDGET)
        pools.patch(budget=3)
        await stage.play(operator, lambda: stage.cluster.held() == 3, BUDGET)
        for _ in range(5):
            await stage.play(operator, lambda: True, 3)
    assert pools.read()["status"]["heldSummary"] == "3/3"


async def test_a_node_selector_reaches_the_pods_and_is_edited_like_a_tier(stage: Stage, pools: Pools) -> None:
    pools.create(budget=4, nodeSelector={"gpu": "old"})
    create_models(stage, "assistant")

    def selectors() -> set[str]:
        return {pod.spec.node_selector["gpu"] for pod in stage.cluster.pods() if pod.spec.node_selector}

    async with stage.operator(everywhere=True, discovers=False) as operator:
        await stage.play(operator, lambda: selectors() == {"old"} and stage.cluster.ready_engines() == 2)
        pools.patch(nodeSelector={"gpu": "new"})
        await stage.play(operator, lambda: selectors() == {"new"} and stage.cluster.ready_engines() == 2)
    labels = {pod.metadata.labels.get("adaptivellm.dev/pool") for pod in stage.cluster.pods() if pod.spec.node_selector}
    assert labels == {pools.name}


async def test_a_model_whose_pool_goes_keeps_its_replicas_and_says_so_and_its_neighbour_goes_on(
    stage: Stage, pools: Pools
) -> None:
    pools.create(budget=4)
    create_models(stage, "lost")
    async with stage.operator(everywhere=True, discovers=False) as operator:
        await stage.play(operator, lambda: stage.cluster.ready_engines() == 2)
        before = stage.cluster.replicas()
        pools.delete()
        stage.cluster.create_model("assistant", accelerators={"resource": RESOURCE, "budget": 4})
        await stage.play(operator, lambda: "status" in stage.cluster.model(), 8)
        conditions = {c["type"]: c for c in stage.cluster.model("lost")["status"]["conditions"]}
    assert conditions["Degraded"]["reason"] == "UnknownPool"
    assert pools.name in conditions["Degraded"]["message"]
    lost = {s.metadata.name: s.spec.replicas for s in stage.cluster.stateful_sets() if "lost" in s.metadata.name}
    assert sum(lost.values()) == sum(before.values())
    assert "UnknownPool" not in {c["reason"] for c in stage.cluster.model()["status"]["conditions"]}
