"""Pools from raw objects: who shares a budget, what counts as held, and who is set aside and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from adaptive_operator.faults import FaultReason
from adaptive_operator.levels import Level
from adaptive_operator.observe.cluster import Snapshot
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.inventory import Advertised
from adaptive_operator.observe.manifests import parse_quantity
from adaptive_operator.observe.pools import Seen, build_pools, find_budget
from stand_ins.raw_objects import READY, build_model, build_owner, build_pod, build_stateful_set, build_tier

Raw = dict[str, Any]


def see(
    models: Sequence[Raw],
    pods: Sequence[Raw] = (),
    sets: Sequence[Raw] = (),
    budgets: dict[str, int] | None = None,
    advertised: Advertised | None = None,
    **children: Sequence[Raw],
) -> Seen:
    return build_pools(Snapshot(models, pods, sets, children), budgets or {}, 1767225700.0, advertised or Advertised())


def test_a_rate_that_a_card_leaves_to_its_curve_is_in_the_spec_that_is_decided_by() -> None:
    times = {"stepMicroseconds": 7000, "decodeMicrosecondsPerSequence": 30, "prefillMicrosecondsPerToken": 50}
    bare = {"engine": "emulated", "curve": times, "card": {"qualityPermille": 900}}
    tiers = [build_tier("full", quality=1000), {**build_tier("emu"), **bare}]

    model = see([build_model(tiers=tiers)]).pools[0].models[0].observation

    assert model.rates_from_curves == ("emu",)
    cards = [tier.card for tier in model.spec.tiers]
    assert all(card is not None and card.capacity_milli_requests_per_second for card in cards)


def test_models_of_one_resource_share_a_pool_sorted_by_key() -> None:
    seen = see(
        [build_model("b"), build_model("a"), build_model("c", accelerators={"resource": "x.example/npu", "budget": 1})]
    )
    assert [(p.resource, [m.observation.key for m in p.models]) for p in seen.pools] == [
        ("nvidia.com/gpu", ["demo/a", "demo/b"]),
        ("x.example/npu", ["demo/c"]),
    ]


@pytest.mark.parametrize(
    ("asked", "budgets", "advertised", "expected"),
    [
        pytest.param([4, None, 6], {}, {}, 6, id="largest of the models, where nobody can count"),
        pytest.param([1, None], {}, {"g": 8}, 8, id="a model's budget takes nothing from its neighbours"),
        pytest.param([4, 6], {"g": 5}, {"g": 8}, 5, id="the operator decides"),
        pytest.param([None], {"g": 0}, {"g": 8}, 0, id="zero is a budget"),
        pytest.param([None, None], {}, {"g": 8}, 8, id="what nodes advertise, where nobody says"),
        pytest.param([100], {}, {"g": 4}, 4, id="a model's budget makes no accelerators"),
        pytest.param([12], {}, {"g": 0}, 12, id="nodes that appear on demand"),
        pytest.param([None], {}, {"g": 0}, None, id="nodes advertise none"),
        pytest.param([None, None], {}, {}, None, id="nobody says and nobody was asked"),
        pytest.param([None], {"other": 3}, {"other": 8}, None, id="another resource"),
    ],
)
def test_the_budget_of_a_pool(
    asked: list[int | None], budgets: dict[str, int], advertised: dict[str, int], expected: int | None
) -> None:
    assert find_budget("g", asked, budgets, advertised) == expected


@pytest.mark.parametrize(
    ("advertised", "reason", "words"),
    [
        pytest.param(Advertised(), FaultReason.BUDGET_UNKNOWN, "accelerators.discover", id="may not ask the nodes"),
        pytest.param(
            Advertised(trouble="list nodes: no rule (HTTP 403)"),
            FaultReason.BUDGET_UNKNOWN,
            "list nodes: no rule (HTTP 403)",
            id="could not read the nodes",
        ),
        pytest.param(
            Advertised({"nvidia.com/gpu": 0}),
            FaultReason.NO_ACCELERATORS,
            "no node that is Ready, schedulable and open to engine pods advertises nvidia.com/gpu",
            id="nodes advertise none",
        ),
    ],
)
def test_a_model_without_any_budget_is_set_aside_and_told_why_and_what_to_set(
    advertised: Advertised, reason: FaultReason, words: str
) -> None:
    seen = see([build_model(accelerators={"resource": "nvidia.com/gpu"})], advertised=advertised)
    assert seen.pools == ()
    fault = seen.blocked[0].fault
    assert (fault.reason, fault.blocks) == (reason, True)
    for part in (words, "spec.accelerators.budget", "accelerators.budgets", "ADAPTIVE_ACCELERATOR_BUDGETS"):
        assert part in fault.message


def test_a_model_without_a_budget_gets_what_nodes_advertise_less_what_strangers_hold() -> None:
    model = build_model(accelerators={})
    strangers = [build_pod("lost-x-0", "nobody", accelerators=1)]
    seen = see([model], strangers, advertised=Advertised({"nvidia.com/gpu": 4}))
    assert (seen.pools[0].budget, seen.pools[0].held_by_others, seen.pools[0].total) == (3, 1, 4)


def test_a_model_that_does_not_parse_is_set_aside_with_the_field_and_its_neighbour_goes_on() -> None:
    broken = build_model("broken", tiers=[{"name": "full", "recipe": {"precision": "fp7"}, "replica": {}}])
    seen = see([broken, build_model("fine")])
    assert [m.observation.name for m in seen.pools[0].models] == ["fine"]
    assert seen.blocked[0].fault.reason is FaultReason.INVALID_SPEC
    assert "spec.tiers.0.recipe.precision" in seen.blocked[0].fault.message
    assert seen.blocked[0].fault.generation == 3


def test_what_a_broken_or_deleted_model_still_holds_is_not_handed_out() -> None:
    deleted = build_model("gone")
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    pods = [build_pod("gone-full-aaaaaaaa-0", "gone", deleted=True), build_pod("lost-x-0", "nobody", accelerators=1)]
    seen = see([deleted, build_model()], pods, budgets={"nvidia.com/gpu": 8})
    assert (seen.pools[0].budget, seen.pools[0].held_by_others) == (5, 3)


def test_replicas_of_a_stranger_that_do_not_exist_yet_count_too() -> None:
    seen = see([build_model()], sets=[build_stateful_set("gone", replicas=3)], budgets={"nvidia.com/gpu": 8})
    assert (seen.pools[0].budget, seen.pools[0].held_by_others) == (2, 6)


def test_own_holdings_are_no_strangers() -> None:
    pods = [build_pod(conditions=READY), build_pod("assistant-full-aaaaaaaa-1", deleted=True)]
    seen = see([build_model()], pods, [build_stateful_set(replicas=1)])
    assert held_accelerators(seen.pools[0].models[0].observation) == 4
    assert (seen.pools[0].budget, seen.pools[0].held_by_others) == (4, 0)


def test_replicas_whose_limit_was_edited_away_count_what_their_pods_were_made_with(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bare = build_stateful_set(replicas=2, accelerators=0)
    seen = see([build_model()], [build_pod(conditions=READY)], [bare, build_stateful_set("gone", replicas=1)])
    [model] = seen.pools[0].models
    assert [item.accelerators for item in model.observation.stateful_sets] == [2]
    assert (held_accelerators(model.observation), seen.pools[0].held_by_others) == (4, 2)
    assert "StatefulSet demo/assistant-full-aaaaaaaa asks for no nvidia.com/gpu" in caplog.text


def test_a_namesakes_stateful_set_is_foreign_and_its_accelerators_stay_counted() -> None:
    foreign = build_stateful_set(replicas=2, owner="uid-of-the-former-life")
    seen = see([build_model()], [build_pod()], [foreign])
    model = seen.pools[0].models[0].observation
    assert model.stateful_sets == ()
    assert [(c.kind, c.owner_uid) for c in model.children] == [("StatefulSet", "uid-of-the-former-life")]
    assert held_accelerators(model) + seen.pools[0].held_by_others == 4


def test_a_pod_whose_containers_have_ended_holds_nothing() -> None:
    seen = see([build_model()], [build_pod(phase="Failed")])
    assert seen.pools[0].models[0].observation.pods == ()
    assert seen.pools[0].held_by_others == 0


def test_a_stateful_set_is_read_with_its_stamps() -> None:
    stamps = {"adaptivellm.dev/draining": "uid-1=1700000000", "adaptivellm.dev/levels": '[["int8",998,600]]'}
    model = see([build_model()], sets=[build_stateful_set(**stamps)]).pools[0].models[0].observation
    item = model.stateful_sets[0]
    assert (item.tier, item.revision, item.tier_inputs, item.image) == ("full", "aaaaaaaa", "inputs", "engine:1")
    assert (item.replicas, item.accelerators, item.epoch) == (1, 2, 5)
    assert item.draining == {"uid-1": 1700000000.0}
    assert item.levels == (Level("int8", 998, 0.6),)


def test_an_epoch_edited_by_hand_reads_as_zero_and_the_highest_epoch_is_found() -> None:
    odd = build_stateful_set(tier="int4", **{"adaptivellm.dev/epoch": "seven"})
    seen = see([build_model()], sets=[odd, build_stateful_set()])
    assert {s.epoch for s in seen.pools[0].models[0].observation.stateful_sets} == {0, 5}
    assert seen.highest_epoch == 5


@pytest.mark.parametrize("text", ["2147483647", "9" * 5000])
def test_an_absurd_epoch_raises_the_lease_for_nobody(text: str) -> None:
    odd = build_stateful_set(tier="int4", **{"adaptivellm.dev/epoch": text})
    assert see([build_model()], sets=[odd, build_stateful_set()]).highest_epoch == 5


def test_the_epoch_of_a_strangers_object_counts_for_nobody() -> None:
    stranger = build_stateful_set(tier="int4", **{"adaptivellm.dev/epoch": "77"})
    stranger["metadata"]["ownerReferences"] = []
    assert see([build_model()], sets=[stranger, build_stateful_set()]).highest_epoch == 5


def test_the_epoch_of_a_swap_counts_too() -> None:
    swap = {
        "id": "s",
        "reason": "r",
        "from": {},
        "to": {},
        "step": "Starting",
        "startedAt": "",
        "deadline": "",
        "epoch": 9,
    }
    model = build_model() | {"status": {"swap": swap}}
    assert see([model]).highest_epoch == 9


def test_status_gives_back_memory_and_swap() -> None:
    status = {
        "memory": {"lastAddAt": "2026-01-01T00:00:10Z", "quarantinedUntil": {"full": "2026-01-01T00:01:00Z"}},
        "swap": {
            "id": "s1",
            "reason": "AddedReplica",
            "from": {"full": 1},
            "to": {"full": 2},
            "step": "Starting",
            "startedAt": "2026-01-01T00:00:00Z",
            "deadline": "2026-01-01T00:02:00Z",
            "epoch": 2,
        },
    }
    model = see([build_model() | {"status": status}]).pools[0].models[0].observation
    assert model.memory.last_add_at == 1767225610.0
    assert model.memory.quarantined_until == {"full": 1767225660.0}
    assert model.swap is not None
    assert (dict(model.swap.target), model.swap.deadline) == ({"full": 2}, 1767225720.0)


def test_a_status_that_cannot_be_read_is_as_good_as_none() -> None:
    model = see([build_model() | {"status": {"conditions": "many"}}]).pools[0].models[0].observation
    assert (model.status, model.swap) == (None, None)


def child(kind: str, name: str, owner: str | None, labels: dict[str, str] | None = None, **body: Any) -> Raw:
    owners = [build_owner(owner)] if owner else []
    metadata = {"name": name, "namespace": "demo", "uid": f"uid-{name}", "resourceVersion": "1"}
    return {"kind": kind, "metadata": {**metadata, "ownerReferences": owners, "labels": labels or {}}, **body}


def test_a_strangers_object_under_our_name_is_seen_without_an_owner() -> None:
    seen = see([build_model()], Service=[child("Service", "assistant", None)])
    assert [(c.name, c.owner_uid) for c in seen.pools[0].models[0].observation.children] == [("assistant", None)]


def test_our_child_without_its_label_is_still_ours() -> None:
    seen = see([build_model()], Service=[child("Service", "assistant", "uid-demo-assistant")])
    children = seen.pools[0].models[0].observation.children
    assert [c.owner_uid for c in children] == ["uid-demo-assistant"]


@pytest.mark.parametrize(
    ("owner", "table", "generation"),
    [
        ("uid-demo-assistant", {"generation": 12}, 12),
        ("somebody", {"generation": 12}, 0),
        ("uid-demo-assistant", [], 0),
    ],
    ids=["ours", "a stranger's", "unreadable"],
)
def test_the_routing_table_is_read_from_our_own_config_map_only(owner: str, table: Any, generation: int) -> None:
    config = child("ConfigMap", "assistant-routing", owner, data={"table.json": json.dumps(table)})
    model = see([build_model()], ConfigMap=[config]).pools[0].models[0].observation
    assert model.routing_generation == generation
    assert (model.routing_table is not None) == (owner == "uid-demo-assistant")


def test_ready_routers_are_counted_from_pods() -> None:
    pods = [
        build_pod("assistant-router-1", component="router", conditions=READY),
        build_pod("assistant-router-2", component="router"),
    ]
    model = see([build_model()], pods).pools[0].models[0].observation
    assert (model.routers_ready, model.routers_ready_since) == (1, 1767225600.0)


@pytest.mark.parametrize("generation", ["1e999", "[" * 100_000, '"x"', "null"])
def test_a_spoilt_table_is_no_reason_to_give_up_its_model_or_another(generation: str) -> None:
    owner = build_owner("uid-demo-assistant")
    table = f'{{"generation": {generation}}}'
    config = child("ConfigMap", "assistant-routing", owner, data={"table.json": table})
    seen = see([build_model(), build_model("other")], ConfigMap=[config])
    assert [m.observation.name for m in seen.pools[0].models] == ["assistant", "other"]
    assert seen.blocked == ()


def test_an_object_that_makes_the_reader_fail_blocks_its_own_model_only() -> None:
    odd = build_stateful_set("odd")
    odd["metadata"]["annotations"] = 5
    seen = see([build_model("odd"), build_model("other")], sets=[odd])
    assert [(m.name, m.fault.reason) for m in seen.blocked] == [("odd", FaultReason.INTERNAL_ERROR)]
    assert [m.observation.name for m in seen.pools[0].models] == ["other"]


def test_two_thousand_million_replicas_are_counted_not_enumerated() -> None:
    many = build_stateful_set(replicas=2_000_000_000)
    seen = see([build_model()], [build_pod(conditions=READY)], [many])
    [model] = seen.pools[0].models
    assert held_accelerators(model.observation) == 4_000_000_000


def test_a_thousand_accelerators_are_written_as_1k() -> None:
    assert parse_quantity("1k") == 1000
    assert [parse_quantity(text) for text in ("4", 4, "0", None, "500m", "abc", "k")] == [4, 4, 0, 0, 0, 0, 0]
