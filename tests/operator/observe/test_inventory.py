"""Accelerators that nodes advertise: which nodes count, what is held on a node on its way out, when to ask."""

from __future__ import annotations

from typing import Any

import pytest

from adaptive_operator.kube import UnavailableError
from adaptive_operator.observe.inventory import Advertised, NodeInventory, count_advertised, find_unnamed, parse_node
from stand_ins.fake_kube import FakeKube
from stand_ins.raw_objects import RESOURCE, build_model, build_node, build_pod

Raw = dict[str, Any]
FOUR = {RESOURCE: "4", "cpu": "64", "memory": "512Gi"}


def on_node(name: str, pod: Raw) -> Raw:
    pod["spec"]["nodeName"] = name
    return pod


def count(nodes: list[Raw], pods: list[Raw] | None = None, selector: dict[str, str] | None = None) -> int:
    return count_advertised([parse_node(node, selector or {}) for node in nodes], pods or [], RESOURCE)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        pytest.param(build_node("b", FOUR), 8, id="Ready"),
        pytest.param(build_node("b", FOUR, ready="False"), 4, id="not Ready"),
        pytest.param(build_node("b", FOUR, ready="Unknown"), 4, id="silent"),
        pytest.param(build_node("b", FOUR, closed=True), 4, id="cordoned"),
        pytest.param(build_node("b", {"amd.com/gpu": "8"}), 4, id="another vendor's"),
        pytest.param(build_node("b", {RESOURCE: "many"}), 4, id="nonsense"),
        pytest.param({"kind": "Node", "metadata": {"name": "b"}}, 4, id="without a status"),
    ],
)
def test_nodes_that_can_take_a_pod_count(second: Raw, expected: int) -> None:
    assert count([build_node("a", FOUR), second]) == expected


def test_nodes_that_engine_pods_do_not_ask_for_do_not_count() -> None:
    nodes = [build_node("a", FOUR, gpu="a100"), build_node("b", FOUR, gpu="t4"), build_node("c", FOUR)]
    assert count(nodes, selector={"gpu": "a100"}) == 4


@pytest.mark.parametrize(
    "node",
    [
        pytest.param(build_node("b", FOUR, closed=True), id="cordoned"),
        pytest.param(build_node("b", FOUR, ready="Unknown"), id="silent"),
        pytest.param(build_node("b", {RESOURCE: "0"}), id="its device plugin restarts"),
        pytest.param(build_node("elsewhere", {}), id="gone"),
    ],
)
def test_a_node_on_its_way_out_counts_what_is_held_there_so_no_replica_is_forced_out(node: Raw) -> None:
    pods = [
        on_node("b", build_pod("x-0", accelerators=2)),
        on_node("b", build_pod("x-1", accelerators=1, deleted=True)),
    ]
    assert count([build_node("a", FOUR), node], pods) == 7


def test_pods_on_a_healthy_node_are_within_what_it_advertises() -> None:
    assert count([build_node("a", FOUR)], [on_node("a", build_pod())]) == 4


def test_pods_without_a_node_and_pods_that_ended_count_nothing() -> None:
    pods = [build_pod(), on_node("b", build_pod("x-1", phase="Failed"))]
    assert count([build_node("a", FOUR)], pods) == 4


def test_only_resources_for_which_a_model_lacks_a_budget_and_the_operator_too_are_asked_for() -> None:
    models = [
        build_model("own"),
        build_model("default", accelerators={}),
        build_model("npu", accelerators={"resource": "x.example/npu"}),
        build_model("named", accelerators={"resource": "y.example/npu"}),
    ]
    assert find_unnamed(models, {"y.example/npu": 2}) == {RESOURCE, "x.example/npu"}
    assert find_unnamed(models[:1], {}) == {RESOURCE}, "a model's own budget caps that model alone"
    assert find_unnamed([{"spec": {"accelerators": "many"}}], {}) == set()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_nodes_are_listed_once_per_few_seconds_and_again_after_that() -> None:
    clock, kube = Clock(), FakeKube([build_node("a", FOUR)])
    inventory = NodeInventory(kube, monotonic=clock)  # type: ignore[arg-type]
    assert await inventory.read([RESOURCE], []) == Advertised({RESOURCE: 4})
    kube.objects.clear()
    clock.now = 9.0
    assert await inventory.read([RESOURCE], []) == Advertised({RESOURCE: 4})
    clock.now = 10.0
    assert await inventory.read([RESOURCE], []) == Advertised({RESOURCE: 0})
    assert len(kube.calls) == 2


@pytest.mark.parametrize(
    ("is_allowed", "resources"), [(False, [RESOURCE]), (True, [])], ids=["not allowed", "not needed"]
)
async def test_nodes_are_not_read_without_leave_or_need(is_allowed: bool, resources: list[str]) -> None:
    kube = FakeKube([build_node("a", FOUR)])
    assert await NodeInventory(kube, is_allowed).read(resources, []) == Advertised()  # type: ignore[arg-type]
    assert kube.calls == []


async def test_a_failed_read_is_trouble_and_the_next_pass_asks_again() -> None:
    kube = FakeKube([build_node("a", FOUR)])
    kube.fail = lambda *_: UnavailableError("list", "nodes", 503, "away")
    inventory = NodeInventory(kube)  # type: ignore[arg-type]
    assert await inventory.read([RESOURCE], []) == Advertised(trouble="list nodes: away (HTTP 503)")
    kube.fail = lambda *_: None
    assert await inventory.read([RESOURCE], []) == Advertised({RESOURCE: 4})


@pytest.mark.parametrize("is_allowed", [False, True])
async def test_the_labels_that_all_engine_pods_ask_for_are_told_with_or_without_nodes(is_allowed: bool) -> None:
    inventory = NodeInventory(FakeKube([build_node("a", FOUR)]), is_allowed, {"tenant": "ml"})  # type: ignore[arg-type]
    assert (await inventory.read([RESOURCE], [])).engine_labels == {"tenant": "ml"}
