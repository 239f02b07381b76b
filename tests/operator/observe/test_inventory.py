"""Accelerators that nodes advertise: which nodes count, what is held on a node on its way out, when to ask."""

from __future__ import annotations

from typing import Any

import pytest

from adaptive_operator.kube import UnavailableError
from adaptive_operator.names import LABEL_POOL
from adaptive_operator.observe.inventory import (
    Advertised,
    NodeGroup,
    NodeInventory,
    count_groups,
    find_counted,
    find_rooms,
    parse_node,
)
from adaptive_operator.observe.observation import NodeRoom
from stand_ins.fake_kube import FakeKube
from stand_ins.raw_objects import RESOURCE, build_model, build_node, build_pod, build_tier

Raw = dict[str, Any]
FOUR = {RESOURCE: "4", "cpu": "64", "memory": "512Gi"}


def on_node(name: str, pod: Raw) -> Raw:
    pod["spec"]["nodeName"] = name
    return pod


def count(nodes: list[Raw], pods: list[Raw] | None = None, selector: dict[str, str] | None = None) -> int:
    return sum(
        room.capacity for room in find_rooms([parse_node(n, selector or {}) for n in nodes], pods or [], RESOURCE)
    )


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


def test_nodes_are_counted_where_the_operator_names_no_budget_or_a_replica_takes_several_accelerators() -> None:
    models = [
        build_model("own"),
        build_model("default", accelerators={}),
        build_model("npu", accelerators={"resource": "x.example/npu"}),
        build_model("named", accelerators={"resource": "y.example/npu"}, tiers=[build_tier("int4")]),
    ]
    assert find_counted(models, {"y.example/npu": 2}) == {RESOURCE, "x.example/npu"}
    assert find_counted(models[:1], {}) == {RESOURCE}, "a model's own budget caps that model alone"
    assert find_counted([{"spec": {"accelerators": "many"}}], {}) == set()


def test_resources_of_replicas_that_take_several_accelerators_are_counted_though_the_operator_names_a_budget() -> None:
    one = [{"name": "int4", "replica": {"accelerators": 1}}]
    models = [build_model(), build_model("npu", accelerators={"resource": "x.example/npu"}, tiers=one)]
    assert find_counted(models, {RESOURCE: 8, "x.example/npu": 2}) == {RESOURCE}, "full takes two"


@pytest.mark.parametrize("tiers", [None, "full", ["full"], [{"replica": 2}], [{"replica": {"accelerators": "2"}}]])
def test_nonsense_in_place_of_tiers_is_of_no_size(tiers: Any) -> None:
    assert find_counted([build_model(tiers=tiers)], {RESOURCE: 8}) == set()


def test_each_node_tells_what_pods_may_hold_there_and_what_is_free() -> None:
    pods = [on_node("a", build_pod("x-0", accelerators=2)), on_node("b", build_pod("x-1", accelerators=1)), build_pod()]
    nodes = [parse_node(build_node(name, FOUR, closed=name == "b"), {}) for name in ("b", "a", "c")]
    stranger = on_node("c", build_pod("y-0", accelerators=3))
    found = find_rooms([*nodes, parse_node(build_node("d", {}), {})], pods, RESOURCE, [stranger])
    assert found == [NodeRoom("a", 4, 2), NodeRoom("b", 1, 0, is_open=False), NodeRoom("c", 1, 1)]


def test_pools_on_the_same_nodes_see_what_is_free_beside_all_of_them() -> None:
    nodes = [parse_node(build_node(name, FOUR, gpu="a100"), {}) for name in ("a", "b")]
    a100 = NodeGroup.of(RESOURCE, {"gpu": "a100"})
    pod = build_pod("x-0", accelerators=2)
    pod["metadata"]["labels"][LABEL_POOL] = "one"
    found = count_groups(nodes, [on_node("a", pod)], [RESOURCE], {"one": a100, "two": a100})
    assert found.rooms[a100] == (NodeRoom("a", 4, 2), NodeRoom("b", 4, 4))
    assert found.count(a100) == 8


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_nodes_are_listed_once_per_few_seconds_and_again_after_that() -> None:
    clock, kube = Clock(), FakeKube([build_node("a", FOUR)])
    inventory = NodeInventory(kube, monotonic=clock)  # type: ignore[arg-type]
    assert (await inventory.read([RESOURCE], [])).by_resource == {RESOURCE: 4}
    kube.objects.clear()
    clock.now = 9.0
    assert (await inventory.read([RESOURCE], [])).by_resource == {RESOURCE: 4}
    clock.now = 10.0
    assert (await inventory.read([RESOURCE], [])).by_resource == {RESOURCE: 0}
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
    assert (await inventory.read([RESOURCE], [])).by_resource == {RESOURCE: 4}


@pytest.mark.parametrize(("seconds", "known"), [(11.0, True), (120.0, True), (121.0, False)])
async def test_nodes_that_cannot_be_read_again_have_the_room_that_they_had_for_a_while(
    seconds: float, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With the pods of now. What nobody counts is no budget: that is not remembered."""
    clock, kube = Clock(), FakeKube([build_node("a", FOUR), build_node("b", FOUR)])
    inventory = NodeInventory(kube, monotonic=clock, remembered_seconds=120.0)  # type: ignore[arg-type]
    await inventory.read([RESOURCE], [])
    kube.fail = lambda *_: UnavailableError("list", "nodes", 503, "away")
    clock.now = seconds
    pods = [on_node("b", build_pod("x-0", accelerators=3))]
    for _ in range(2):
        found = await inventory.read([RESOURCE], pods)
    assert (found.by_resource, found.trouble) == ({}, "list nodes: away (HTTP 503)")
    rooms = {NodeGroup(RESOURCE): (NodeRoom("a", 4, 4), NodeRoom("b", 4, 1))}
    assert found.rooms == (rooms if known else {})
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once"


@pytest.mark.parametrize("is_allowed", [False, True])
async def test_the_labels_that_all_engine_pods_ask_for_are_told_with_or_without_nodes(is_allowed: bool) -> None:
    inventory = NodeInventory(FakeKube([build_node("a", FOUR)]), is_allowed, {"tenant": "ml"})  # type: ignore[arg-type]
    assert (await inventory.read([RESOURCE], [])).engine_labels == {"tenant": "ml"}
