"""AcceleratorPools from raw objects: budgets that promise no accelerator twice, and who is told what."""

from __future__ import annotations

from typing import Any

import pytest

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.faults import FaultReason
from adaptive_operator.observe.cluster import Snapshot
from adaptive_operator.observe.declared import Settled, find_groups, parse_declared, settle_budgets
from adaptive_operator.observe.inventory import Advertised, NodeGroup, count_groups, parse_node
from adaptive_operator.observe.observation import PoolShare
from adaptive_operator.observe.pools import Seen, build_pools
from adaptive_operator.reasons import PoolReason
from stand_ins.raw_objects import (
    RESOURCE,
    build_accelerator_pool,
    build_model,
    build_node,
    build_pod,
    build_stateful_set,
)

Raw = dict[str, Any]
A100 = NodeGroup(RESOURCE, (("gpu", "a100"),))


def settle(*pools: Raw, rest: int | None = None, a100: int | None = None, trouble: str | None = None):
    by_resource = {} if rest is None else {RESOURCE: rest}
    advertised = Advertised(by_resource, trouble, {} if a100 is None else {A100: a100})
    return settle_budgets([parse_declared(raw) for raw in pools], advertised)


@pytest.mark.parametrize(
    ("spec", "rest", "expected"),
    [
        pytest.param({}, 8, Settled(8, 0), id="what nodes advertise"),
        pytest.param({"budget": 4}, 8, Settled(4, 0), id="what it names"),
        pytest.param({"budget": 4}, 2, Settled(2, 0), id="lost nodes shrink it"),
        pytest.param({"budget": 4}, None, Settled(4, 0), id="what it names, where nobody can count"),
        pytest.param({"surgeAccelerators": 2}, 8, Settled(6, 2), id="surge comes off what nodes advertise"),
        pytest.param({"budget": 4, "surgeAccelerators": 2}, 8, Settled(4, 2), id="surge beyond a named budget"),
        pytest.param({"budget": 4, "surgeAccelerators": 2}, 5, Settled(4, 1), id="lost nodes take the surge first"),
        pytest.param({"budget": 0}, 8, Settled(0, 0), id="zero is a budget"),
    ],
)
def test_the_budget_of_a_pool(spec: Raw, rest: int | None, expected: Settled) -> None:
    assert settle(build_accelerator_pool(**spec), rest=rest).budgets == {"gpu": expected}


@pytest.mark.parametrize(
    ("spec", "rest", "trouble", "reason", "words"),
    [
        pytest.param({}, None, None, PoolReason.BUDGET_UNKNOWN, "set budget", id="nobody may count"),
        pytest.param({"budget": 4}, None, "HTTP 403", PoolReason.BUDGET_UNKNOWN, "HTTP 403", id="could not be counted"),
        pytest.param({}, 0, None, PoolReason.NO_ACCELERATORS, "uncordon or label a node", id="none is advertised"),
        pytest.param({"budget": "many"}, 8, None, PoolReason.INVALID_SPEC, "spec.budget", id="does not parse"),
    ],
)
def test_a_pool_without_a_budget_says_why_and_what_to_do(
    spec: Raw, rest: int | None, trouble: str | None, reason: PoolReason, words: str
) -> None:
    found = settle(build_accelerator_pool(**spec), rest=rest, trouble=trouble)
    assert found.budgets == {}
    assert (found.troubles["gpu"].reason, words in found.troubles["gpu"].message) == (reason, True)


def test_pools_of_the_same_nodes_are_promised_no_accelerator_twice() -> None:
    named, other = build_accelerator_pool("a", budget=4, surgeAccelerators=1), build_accelerator_pool("b", budget=6)
    rest, last = build_accelerator_pool("c"), build_accelerator_pool("d")
    found = settle(last, rest, other, named, rest=12)
    assert found.budgets == {"a": Settled(4, 1), "b": Settled(6, 0), "c": Settled(1, 0)}
    assert found.troubles["d"].reason is PoolReason.NODES_TAKEN
    assert "AcceleratorPool c" in found.troubles["d"].message
    assert found.taken == {RESOURCE: 12}


def test_pools_with_a_node_selector_take_nothing_from_models_without_a_pool() -> None:
    found = settle(build_accelerator_pool(nodeSelector={"gpu": "a100"}), rest=4, a100=8)
    assert (found.budgets, found.taken) == ({"gpu": Settled(8, 0)}, {})


def test_a_node_counts_for_the_pool_that_names_most_of_its_labels_and_for_no_other() -> None:
    four = {RESOURCE: "4"}
    nodes = [build_node("a", four), build_node("b", four, gpu="a100"), build_node("c", four, gpu="a100", zone="x")]
    groups = find_groups(
        [
            build_accelerator_pool("one", nodeSelector={"gpu": "a100"}),
            build_accelerator_pool("two", nodeSelector={"gpu": "a100", "zone": "x"}),
        ]
    )
    found = count_groups([parse_node(node, {}) for node in nodes], [], [RESOURCE], groups)
    assert [found.count(NodeGroup(RESOURCE)), *(found.count(group) for group in groups.values())] == [4, 4, 4]


def test_what_others_hold_on_a_pools_node_is_not_there_for_the_pool() -> None:
    stray = build_pod("stray-full-aaaaaaaa-0", accelerators=1)
    stray["spec"]["nodeName"] = "b"
    nodes = [parse_node(build_node("b", {RESOURCE: "4"}, gpu="a100"), {})]
    found = count_groups(nodes, [stray], [RESOURCE], {"gpu": A100})
    assert (found.count(A100), found.count(NodeGroup(RESOURCE))) == (3, 1)


def see(
    *models: Raw,
    pools: list[Raw],
    pods: list[Raw] | None = None,
    sets: list[Raw] | None = None,
    trouble: str | None = None,
    budgets: dict[str, int] | None = None,
    advertised: Advertised | None = None,
) -> Seen:
    snapshot = Snapshot(models, pods or [], sets or [], {}, pools, trouble)
    return build_pools(snapshot, budgets or {}, 1767225700.0, advertised or Advertised({RESOURCE: 8}))


def in_pool(name: str = "assistant", pool: str = "gpu", **accelerators: Any) -> Raw:
    return build_model(name, accelerators={"pool": pool, **accelerators})


def labelled(raw: Raw, pool: str = "gpu") -> Raw:
    raw["metadata"]["labels"]["adaptivellm.dev/pool"] = pool
    return raw


def test_models_are_grouped_by_the_pool_that_they_name() -> None:
    shares = [{"namespace": "demo", "model": "a", "reservation": 2}, {"namespace": "demo", "weight": 3}]
    pool = build_accelerator_pool(budget=4, nodeSelector={"gpu": "a100"}, shares=shares, surgeAccelerators=1)
    seen = see(
        in_pool("b"),
        build_model("c"),
        in_pool("a"),
        pools=[pool],
        advertised=Advertised({RESOURCE: 8}, None, {A100: 9}),
    )
    assert [(p.key, [m.observation.key for m in p.models], p.budget, p.surge) for p in seen.pools] == [
        ("gpu", ["demo/a", "demo/b"], 4, 1),
        (RESOURCE, ["demo/c"], 8, 0),
    ]
    assert seen.pools[0].declared is not None
    assert seen.pools[0].declared.shares == (PoolShare("demo", "a", 2, 1), PoolShare("demo", "", 0, 3))
    model = seen.pools[0].models[0].observation
    assert (model.pool, model.node_selector, model.spec.accelerators.resource) == ("gpu", {"gpu": "a100"}, RESOURCE)


def test_a_pool_that_the_plan_divides_keeps_no_reservations_whoever_stored_them() -> None:
    """The API server refuses them; an older custom resource definition does not."""
    shares = [{"namespace": "demo", "model": "a", "reservation": 2, "weight": 3}]
    pools = [build_accelerator_pool(budget=4, division=division, shares=shares) for division in ("Planned", "Weighted")]
    there = Advertised({RESOURCE: 4})
    planned, weighted = (see(in_pool("a"), pools=[pool], advertised=there).pools[0] for pool in pools)
    assert planned.declared is not None
    assert (planned.division, planned.has_plan) == (PoolDivision.PLANNED, True)
    assert planned.declared.shares == (PoolShare("demo", "a", 0, 3),)
    assert (weighted.division, weighted.has_plan) == (PoolDivision.WEIGHTED, False)


def test_a_model_knows_what_an_accelerator_of_its_pool_costs() -> None:
    seen = see(in_pool("a"), build_model("c"), pools=[build_accelerator_pool(budget=4, pricePerAcceleratorHourMilli=7)])
    prices = {m.observation.name: m.observation.pool_price_milli for pool in seen.pools for m in pool.models}
    assert prices["a"] == 7
    assert prices.get("c") is None


def test_a_pool_without_a_selector_takes_its_budget_from_the_models_that_name_none() -> None:
    seen = see(build_model("a"), pools=[build_accelerator_pool(budget=3, surgeAccelerators=1)])
    assert [(p.key, p.budget) for p in seen.pools] == [("gpu", 3), (RESOURCE, 4)]


def test_the_operators_budget_is_for_both() -> None:
    seen = see(build_model("a"), pools=[build_accelerator_pool(budget=3)], budgets={RESOURCE: 5})
    assert [(p.key, p.budget) for p in seen.pools] == [("gpu", 3), (RESOURCE, 2)]


def test_a_model_takes_the_resource_of_its_pool() -> None:
    pool = build_accelerator_pool("npu", resource="x.example/npu", budget=2)
    seen = see(in_pool(pool="npu"), pools=[pool], advertised=Advertised())
    assert seen.pools[0].models[0].observation.spec.accelerators.resource == "x.example/npu"
    assert seen.blocked == ()


def fault_of(seen: Seen) -> tuple[str, str]:
    (blocked,) = seen.blocked
    assert blocked.fault.blocks
    return blocked.fault.reason, blocked.fault.message


def test_an_unknown_pool_is_named_with_the_remedy_and_the_neighbour_goes_on() -> None:
    seen = see(in_pool(pool="gpv"), build_model("b"), pools=[build_accelerator_pool(budget=2)])
    reason, message = fault_of(seen)
    assert reason == FaultReason.UNKNOWN_POOL
    for part in ("AcceleratorPool gpv", "does not exist", "replicas stay as they are", "Create it", "correct the name"):
        assert part in message
    assert [m.observation.name for p in seen.pools for m in p.models] == ["b"]


def test_where_pools_cannot_be_read_a_model_that_names_one_says_so_and_the_others_go_on() -> None:
    seen = see(in_pool(), build_model("b"), pools=[], trouble="this operator sees its namespaces only")
    reason, message = fault_of(seen)
    assert reason == FaultReason.UNKNOWN_POOL
    assert "cannot be read: this operator sees its namespaces only" in message
    assert "leave spec.accelerators.pool out" in message
    assert [m.observation.name for p in seen.pools for m in p.models] == ["b"]


def test_a_resource_that_contradicts_the_pool_is_explained() -> None:
    reason, message = fault_of(see(in_pool(resource="amd.com/gpu"), pools=[build_accelerator_pool(budget=2)]))
    assert reason == FaultReason.POOL_MISMATCH
    assert "spec.accelerators.resource is amd.com/gpu, and AcceleratorPool gpu has nvidia.com/gpu" in message
    assert "leave resource out" in message


def test_a_resource_that_says_the_same_as_the_pool_is_fine() -> None:
    assert see(in_pool(resource=RESOURCE), pools=[build_accelerator_pool(budget=2)]).blocked == ()


def test_replicas_of_another_resource_than_the_pools_stay_and_the_model_says_so() -> None:
    pool = build_accelerator_pool(resource="amd.com/gpu", budget=2)
    reason, message = fault_of(see(in_pool(), pools=[pool], sets=[build_stateful_set()]))
    assert reason == FaultReason.POOL_MISMATCH
    assert "StatefulSet assistant-full-aaaaaaaa holds nvidia.com/gpu" in message


def test_the_models_of_a_pool_that_is_not_ready_keep_what_they_have_and_say_why() -> None:
    seen = see(in_pool(), build_model("b"), pools=[build_accelerator_pool()], advertised=Advertised({RESOURCE: 0}))
    told = {b.name: (b.fault.reason, b.fault.message) for b in seen.blocked}
    assert told["assistant"][0] == FaultReason.POOL_NOT_READY
    assert "AcceleratorPool gpu. NoAccelerators: no node" in told["assistant"][1]
    assert [(p.key, [m.observation.name for m in p.models]) for p in seen.unready] == [("gpu", ["assistant"])]


def test_a_pool_without_models_is_seen_too() -> None:
    seen = see(pools=[build_accelerator_pool(budget=2)])
    assert [(p.key, p.models, p.budget) for p in seen.pools] == [("gpu", (), 2)]


def test_what_a_deleted_model_still_holds_counts_in_the_pool_that_it_was_in() -> None:
    pods = [labelled(build_pod("gone-full-aaaaaaaa-0", "gone", deleted=True)), build_pod("lost-x-0", "lost")]
    seen = see(in_pool(), build_model("b"), pools=[build_accelerator_pool(budget=4)], pods=pods)
    assert [(p.key, p.budget, p.held_by_others) for p in seen.pools] == [("gpu", 2, 2), (RESOURCE, 2, 2)]


def test_what_holds_from_a_pool_that_was_deleted_counts_where_its_nodes_now_are() -> None:
    pods = [labelled(build_pod("gone-full-aaaaaaaa-0", "gone"), "former")]
    seen = see(build_model("b"), pools=[build_accelerator_pool(budget=4)], pods=pods)
    assert [(p.key, p.held_by_others) for p in seen.pools] == [("gpu", 0), (RESOURCE, 2)]


def of_big(raw: Raw, **selector: str) -> Raw:
    """From pool `big`, on nodes with these labels."""
    spec = raw["spec"]["template"]["spec"] if raw["kind"] == "StatefulSet" else raw["spec"]
    spec["nodeSelector"] = selector
    return labelled(raw, "big")


BIG = build_accelerator_pool("big", nodeSelector={"gpu": "a100"}, budget=8)
FOUR = {RESOURCE: 4}
OWN = {"resource": RESOURCE}
GONE = {"deleted": ([], None), "unreadable": ([], "list acceleratorpools (HTTP 403)"), "there": ([BIG], None)}


def without_a_pool(seen: Seen) -> tuple[int, int]:
    """Budget, and what others hold of it, of the models that name no pool."""
    [pool] = [pool for pool in seen.pools if not pool.name]
    return pool.budget, pool.held_by_others


@pytest.mark.parametrize("case", GONE)
def test_what_holds_on_the_nodes_of_a_pool_that_is_gone_takes_nothing_of_a_budget_that_is_named(case: str) -> None:
    pools, trouble = GONE[case]
    sets = [of_big(build_stateful_set("large", replicas=4), gpu="a100"), build_stateful_set("small", replicas=1)]
    models = (in_pool("large", "big"), build_model("small", accelerators=OWN))
    advertised = Advertised({}, None, {A100: 8})
    seen = see(*models, pools=pools, sets=sets, trouble=trouble, budgets=FOUR, advertised=advertised)
    assert without_a_pool(seen) == (4, 0)


def test_nor_of_a_budget_that_only_models_name() -> None:
    sets = [of_big(build_stateful_set("large", replicas=4), gpu="a100")]
    models = (in_pool("large", "big"), build_model("small", accelerators={**OWN, "budget": 4}))
    assert without_a_pool(see(*models, pools=[], sets=sets, advertised=Advertised())) == (4, 0)


def test_nor_do_its_pods_whose_stateful_set_is_gone() -> None:
    pods = [of_big(build_pod("large-full-aaaaaaaa-0", "large"), gpu="a100")]
    seen = see(build_model("small", accelerators=OWN), pools=[], pods=pods, budgets=FOUR)
    assert without_a_pool(seen) == (4, 0)


def test_where_nodes_are_counted_it_is_on_them_so_it_counts() -> None:
    held = [
        {**of_big(build_pod(f"large-full-aaaaaaaa-{i}", "large"), gpu="a100"), "status": {"phase": "Running"}}
        for i in range(4)
    ]
    for pod in held:
        pod["spec"]["nodeName"] = "b"
    nodes = [parse_node(build_node("a", {RESOURCE: "4"}), {}), parse_node(build_node("b", {RESOURCE: "8"}), {})]
    advertised = count_groups(nodes, held, [RESOURCE], {})
    sets = [of_big(build_stateful_set("large", replicas=4), gpu="a100"), build_stateful_set("small", replicas=2)]
    models = (in_pool("large", "big"), build_model("small", accelerators=OWN))
    seen = see(*models, pools=[], sets=sets, pods=held, advertised=advertised)
    assert without_a_pool(seen) == (4, 8)
    assert sum(without_a_pool(seen)) <= 12, "never more than nodes advertise"


def test_replicas_that_wait_for_the_lost_nodes_of_a_pool_that_is_gone_make_nobody_else_shrink() -> None:
    sets = [of_big(build_stateful_set("large", replicas=4), gpu="a100"), build_stateful_set("small", replicas=1)]
    models = (in_pool("large", "big"), build_model("small", accelerators=OWN))
    seen = see(*models, pools=[], sets=sets, advertised=Advertised({RESOURCE: 4}))
    assert without_a_pool(seen)[0] == 2, "keeps what it holds, and gets no more"


@pytest.mark.parametrize("everyone", [{}, {"tenant": "ml"}], ids=["no labels", "labels that all engine pods ask for"])
@pytest.mark.parametrize(("budget", "expected"), [(12, 4), (9, 2)], ids=["room", "no room: keeps what it holds"])
def test_what_a_pool_without_a_selector_left_behind_is_of_the_named_budget(
    everyone: dict[str, str], budget: int, expected: int
) -> None:
    sets = [of_big(build_stateful_set("large", replicas=4), **everyone), build_stateful_set("small", replicas=1)]
    models = (in_pool("large", "big"), build_model("small", accelerators=OWN))
    advertised = Advertised(engine_labels=everyone)
    seen = see(*models, pools=[], sets=sets, budgets={RESOURCE: budget}, advertised=advertised)
    assert without_a_pool(seen) == (expected, 8)


def test_what_a_pool_in_trouble_without_a_selector_holds_is_not_handed_out_again() -> None:
    """The nodes cannot be asked for a moment: its models keep what they have, of the same named budget."""
    sets = [labelled(build_stateful_set("large", replicas=4)), build_stateful_set("small", replicas=1)]
    models = (in_pool("large"), build_model("small", accelerators=OWN))
    pools, unknown = [build_accelerator_pool(budget=8)], Advertised(trouble="list nodes (HTTP 503)")
    seen = see(*models, pools=pools, sets=sets, budgets={RESOURCE: 12}, advertised=unknown)
    assert [pool.key for pool in seen.unready] == ["gpu"]
    assert without_a_pool(seen) == (4, 8)


def test_a_model_that_left_a_pool_which_is_gone_answers_for_what_it_holds_itself() -> None:
    sets = [of_big(build_stateful_set("large", replicas=4), gpu="a100")]
    seen = see(build_model("large", accelerators=OWN), pools=[], sets=sets, budgets=FOUR)
    assert without_a_pool(seen) == (4, 0)


def test_a_model_that_moved_counts_in_its_new_pool_and_what_it_still_holds_in_the_old_one() -> None:
    pools = [build_accelerator_pool("new", budget=4), build_accelerator_pool("old", budget=4)]
    old = labelled(build_stateful_set(replicas=1), "old")
    seen = see(in_pool(pool="new"), pools=pools, sets=[old])
    assert [(p.key, p.budget, p.held_by_others) for p in seen.pools] == [("new", 4, 0), ("old", 2, 2)]
