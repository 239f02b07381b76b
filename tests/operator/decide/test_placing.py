"""Models of a pool whose nodes are divided: nobody starts what no node holds, and those that start share the room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.optimize.problem import Limit
from adaptive_operator.decide.placing import find_without_room, places_held, room_by_size, with_room
from adaptive_operator.decide.planned import build_problem
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.proposal import Proposal
from adaptive_operator.decide.situation import build_situation
from adaptive_operator.observe.observation import (
    ModelObservation,
    NodeRoom,
    PodPhase,
    PolicyMemory,
    PoolObservation,
    SwapRecord,
)
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SETTINGS, DEMO_TIERS, Model, Plant, Pod, demo_spec, metrics, observe_one, tier

NOW = 10_000.0
GPU = "nvidia.com/gpu"


def spec(**overrides):
    return demo_spec(
        **{"accelerators": {}, "quality": {"floorPermille": 0}, "routing": {"warmTier": "int4"}} | overrides
    )


def seen(name: str, mix: Mapping[str, int], demand: float, *nodes: str) -> ModelObservation:
    model = observe_one(spec(), mix, metrics(demand), name=name)
    return replace(model, pods=tuple(replace(pod, node=node) for pod, node in zip(model.pods, nodes, strict=True)))


def pool(nodes: Mapping[str, int], *models: ModelObservation) -> PoolObservation:
    held = dict.fromkeys(nodes, 0)
    for model in models:
        for pod in model.pods:
            held[pod.node] += pod.accelerators
    rooms = tuple(NodeRoom(name, most, most - held[name]) for name, most in sorted(nodes.items()))
    return PoolObservation(NOW, GPU, sum(nodes.values()), 1, 0.0, models, nodes=rooms)


def run(nodes: Mapping[str, int], *models: Model, seconds: float = 600.0, **pool_of) -> Plant:
    plant = Plant(list(models), budget=sum(nodes.values()), nodes=nodes, **pool_of)
    plant.run(seconds)
    return plant


POOLS = {
    "no pool": {},
    "weighted": {"pool": "gpus"},
    "planned": {"pool": "gpus", "division": PoolDivision.PLANNED},
}


@pytest.mark.slow
@pytest.mark.parametrize("pool_of", POOLS.values(), ids=POOLS)
@pytest.mark.parametrize("demand", [0.3, 1.5], ids=["quality would start it", "load would start it"])
def test_a_replica_that_no_node_holds_is_never_started(demand: float, pool_of: dict):
    """Four nodes of one accelerator each: full takes two. Before, it waited for a node until it was rolled back."""
    models = [Model(name, spec(), lambda now: demand) for name in ("a", "b")]
    run(dict.fromkeys("wxyz", 1), *models, **pool_of)
    for model in models:
        assert Reason.SWAP_ROLLED_BACK.value not in model.reasons()
        assert not any(decision.replicas.get("full") for _, decision in model.decisions)
        assert model.mix().get("int8", 0) + model.mix().get("int4", 0) >= 1


def test_on_one_node_the_same_accelerators_hold_it():
    model = Model("a", spec(), lambda now: 0.3)
    run({"w": 4}, model)
    assert model.mix().get("full") == 1


def test_one_of_several_that_start_together_has_the_room_and_the_others_do_without():
    """Three nodes with 2, 1 and 1 free: one full fits, whoever wants it."""
    models = [Model(name, spec(), lambda now: 0.3) for name in ("a", "b")]
    plant = run({"w": 4, "x": 1, "y": 1}, *models, seconds=1_200)
    assert sorted(model.mix().get("full", 0) for model in models) in ([0, 1], [1, 1])
    assert all(Reason.SWAP_ROLLED_BACK.value not in model.reasons() for model in models)
    assert all(pod.node for model in plant.models for pod in model.pods)


def test_those_that_start_in_one_pass_share_what_is_free_on_nodes():
    """Both agreed on full before, one node has room for one."""
    loads = {"a": 0.9, "b": 0.9}
    start = [seen(name, {"int4": 1}, load, name) for name, load in loads.items()]
    nodes = {"a": 1, "b": 1, "c": 3, "d": 1}
    decisions = decide_pool(pool(nodes, *start), DEMO_SETTINGS).decisions
    started = {d.key: {t: n for t, n in d.replicas.items() if n} for d in decisions}
    assert sum(mix.get("full", 0) for mix in started.values()) <= 1


FULL = [DEMO_TIERS[0]]


@pytest.mark.parametrize("asked", [False, True], ids=["not asked for yet", "its pod is not made yet"])
def test_a_model_starts_nothing_in_the_place_of_a_replica_that_another_one_is_about_to_have(asked: bool):
    """Node y has room for one full: the swap of a to it is on record, and b needs one, too."""
    a = seen("a", {"int4": 1}, 0.3, "w")
    b = observe_one(spec(tiers=FULL, routing={"warmTier": "full"}), {"full": 1}, metrics(1.3), name="b")
    b = replace(b, pods=tuple(replace(pod, node="x") for pod in b.pods))
    nodes = {"w": 1, "x": 2, "y": 2, "z": 1, "v": 1}
    assert decide_pool(pool(nodes, a, b), DEMO_SETTINGS).decisions[1].replicas["full"] == 2
    swap = SwapRecord("1", "AddedReplica", {"int4": 1}, {"full": 1, "int4": 1}, "Starting", NOW - 5, NOW + 300, 1)
    made = replace(a.stateful_sets[0], name="a-full", tier="full", replicas=1, accelerators=2)
    a = replace(a, swap=swap, stateful_sets=(*a.stateful_sets, made) if asked else a.stateful_sets)
    assert decide_pool(pool(nodes, a, b), DEMO_SETTINGS).decisions[1].replicas["full"] == 1


@pytest.mark.parametrize("pool_of", [POOLS["no pool"], POOLS["planned"]], ids=["no pool", "planned"])
def test_a_neighbour_still_gives_a_large_replica_for_requests_that_are_refused(pool_of: dict):
    """All is held: that no node has room now is no reason to ask nobody."""
    lacking = Model("a", spec(tiers=FULL, routing={"warmTier": "full"}), lambda now: 1.3)
    calm = Model("b", spec(), lambda now: 0.3)
    lacking.pods = [Pod("full", 0, NOW - 900, node="v")]
    calm.pods = [Pod("full", 0, NOW - 900, node="y"), Pod("int4", 0, NOW - 900, node="z")]
    for model in (lacking, calm):
        model.memory = PolicyMemory(wanted=model.mix(), generation=1, last_change_at=NOW - 900)
    run({"v": 2, "y": 2, "z": 1}, lacking, calm, **pool_of)
    assert lacking.mix() == {"full": 2}
    assert calm.mix() == {"int4": 1}


def test_where_the_budget_is_more_than_nodes_have_a_replica_may_wait_for_a_node_to_be_added():
    model = observe_one(spec(tiers=FULL, routing={"warmTier": "full"}), {"full": 1}, metrics(1.3))
    model = replace(model, pods=tuple(replace(pod, node="w") for pod in model.pods))
    observation = pool({"w": 2, "x": 1}, model)
    assert decide_pool(observation, DEMO_SETTINGS).decisions[0].replicas == {"full": 1}
    named = decide_pool(replace(observation, budget=8), DEMO_SETTINGS).decisions[0]
    assert named.replicas["full"] > 1


def test_small_replicas_that_start_in_the_same_pass_take_room_as_well():
    small = observe_one(spec(tiers=[DEMO_TIERS[2]]), {"int4": 1}, metrics(1.0), name="a")
    small = replace(small, pods=tuple(replace(pod, node="w") for pod in small.pods))
    large = seen("b", {"int4": 1}, 0.3, "w")
    models = situations(pool({"w": 2, "x": 2}, small, large))
    acting = {s.model.key: s for s in models}
    asked = {key: Proposal(Reason.ADDED_REPLICA, "", {"int4": 2}, s.memory) for key, s in acting.items()}
    asked["demo/b"] = replace(asked["demo/b"], replicas={"full": 1, "int4": 1})
    assert set(find_without_room(acting, asked)) == {"demo/b"}, "int4 of a takes one of the two that are free on x"


def test_the_explanation_names_the_room_that_is_missing():
    model = seen("a", {"int4": 1}, 0.3, "w")
    decision = decide_pool(pool(dict.fromkeys("wxyz", 1), model), DEMO_SETTINGS).decisions[0]
    assert "room on one node for 2 accelerators" in decision.binding


def large(asked: int | None = None) -> AdaptiveModelSpec:
    """Full, of two accelerators, with a minimum or as the warm tier; and int4."""
    first = DEMO_TIERS[0] if asked is None else tier(0, replicas={"min": asked})
    return spec(tiers=[first, DEMO_TIERS[2]], routing={"warmTier": "full" if asked is None else "int4"})


LEASTS = {
    "a minimum": (1, {"int4": 1}, "replicas.min 1 of full"),
    "the warm tier": (None, {"int4": 1}, "the warm tier full"),
    "a minimum of a model that starts": (1, {}, "replicas.min 1 of full"),
}


@pytest.mark.parametrize(("asked", "runs", "told"), LEASTS.values(), ids=LEASTS)
def test_a_minimum_that_no_node_holds_is_asked_for_and_told_with_the_remedy(
    asked: int | None, runs: dict[str, int], told: str
):
    """Whatever makes room, it is the first to have it."""
    model = observe_one(large(asked), runs, metrics(0.3))
    model = replace(model, pods=tuple(replace(pod, node="w") for pod in model.pods))
    decision = decide_pool(pool(dict.fromkeys("wxyz", 1), model), DEMO_SETTINGS).decisions[0]
    assert decision.replicas["full"] == 1
    remedy = "declare tiers[].replica.accelerators that divide what a node has, move pods off a node, or lower it"
    assert limits(decision) == [f"{told} waits: no node has room for 2 accelerators: {remedy}"]
    for nodes in ({"w": 2, "x": 2}, {"w": 4}):
        assert limits(decide_pool(pool(nodes, model), DEMO_SETTINGS).decisions[0]) == []


def test_a_minimum_that_is_kept_does_not_wait_because_another_tiers_replica_of_that_size_does():
    int8 = {**DEMO_TIERS[1], "replica": {**DEMO_TIERS[1]["replica"], "accelerators": 2}}
    own = spec(tiers=[tier(0, replicas={"min": 1}), int8, tier(2)], routing={"warmTier": "int4"})
    wanted = {"full": 1, "int8": 1, "int4": 1}
    model = observe_one(own, wanted, metrics(0.3), name="a", memory=PolicyMemory(wanted=wanted, generation=1))
    at = {"full": "w", "int8": "", "int4": "x"}
    model = replace(
        model,
        pods=tuple(
            replace(pod, node=at[pod.tier], phase=pod.phase if at[pod.tier] else PodPhase.PENDING) for pod in model.pods
        ),
    )
    nodes = (NodeRoom("w", 3, 1), NodeRoom("x", 2, 1), NodeRoom("y", 1, 0))
    seen = PoolObservation(NOW, GPU, 6, 1, 0.0, (model,), nodes=nodes)
    assert limits(decide_pool(seen, DEMO_SETTINGS).decisions[0]) == []


def limits(decision: Decision) -> list[str]:
    return [finding.message for finding in decision.findings if finding.reason is Reason.CAPACITY_LIMITED]


def test_a_minimum_is_told_to_wait_for_a_node_until_one_has_room():
    """The pod waits, and its swap ends by a rollback. A node that comes free is taken by the next try."""
    waiting, held = Model("a", large(1), lambda now: 0.3), Model("b", spec(tiers=[DEMO_TIERS[2]]), lambda now: 0.3)
    waiting.pods, held.pods = [Pod("int4", 0, NOW - 900, node="v")], [Pod("int4", 0, NOW - 900, node="w")]
    for model in (waiting, held):
        model.memory = PolicyMemory(wanted=model.mix(), generation=1, last_change_at=NOW - 900)
    plant = run({"v": 2, "w": 2}, waiting, held, seconds=100)
    assert all(limits(decision) for _, decision in waiting.decisions)
    plant.nodes = {"v": 2, "w": 4}
    plant.budget = 6
    plant.run(60)
    assert waiting.mix() == {"full": 1, "int4": 1}
    assert limits(waiting.decisions[-1][1]) == []


def test_a_load_that_only_a_larger_replica_would_carry_is_told_that_no_node_has_room():
    tiers = [{**DEMO_TIERS[0], "replica": {"accelerators": 2, "cpu": "1", "memory": "1Gi"}}]
    large = demo_spec(accelerators={}, quality={"floorPermille": 0}, tiers=tiers)
    model = observe_one(large, {"full": 1}, metrics(3.0))
    model = replace(model, pods=tuple(replace(pod, node="w") for pod in model.pods))
    decision = decide_pool(pool({"w": 3, "x": 1}, model), DEMO_SETTINGS).decisions[0]
    assert decision.reason is Reason.CAPACITY_LIMITED
    assert "and they lie on different ones: declare tiers[].replica.accelerators" in decision.message
    together = decide_pool(pool({"w": 2, "x": 2}, model), DEMO_SETTINGS).decisions[0]
    assert together.replicas == {"full": 2}


def situations(observation: PoolObservation):
    built = [build_situation(m, NOW, 0.0, observation.budget, DEMO_SETTINGS) for m in observation.models]
    return with_room(built, observation)


def test_the_program_counts_room_for_larger_replicas_as_a_limit_of_its_own():
    observation = pool({"w": 3, "x": 3}, seen("a", {"int4": 1}, 0.3, "w"), seen("b", {"int4": 1}, 0.3, "x"))
    models = situations(observation)
    room = room_by_size(models, [], observation.nodes)
    assert room == {2: 4}
    problem = build_problem(models, GPU, 6, {}, None, room)
    assert problem.limits == (Limit(GPU, 6), Limit(GPU, 4, least_replica=2))
    highs = {tier.name: tier.high for tier in problem.models[0].tiers}
    assert highs == {"full": 2, "int8": None, "int4": None}, "one on each node, once int4 is gone from it"


def test_what_others_keep_of_the_nodes_is_taken_off_and_what_runs_stays_possible():
    observation = pool({"w": 3, "x": 3}, seen("a", {"full": 1}, 0.3, "w"), seen("b", {"full": 1}, 0.3, "x"))
    models = situations(observation)
    assert room_by_size(models[:1], models[1:], observation.nodes) == {2: 2}
    limits = build_problem(models, GPU, 6, {}, None, {2: 0}).limits
    assert limits[1] == Limit(GPU, 4, least_replica=2), "both that run"


def test_what_others_of_the_same_size_hold_counts_as_room_that_they_could_give():
    observation = pool({"w": 2, "x": 2}, seen("a", {"full": 1}, 0.3, "w"), seen("b", {"full": 1}, 0.3, "x"))
    models = situations(observation)
    assert places_held(models) == {2: 2}
    problem = build_problem(models, GPU, 4, {}, None, {2: 4})
    assert problem.limits == (Limit(GPU, 4),), "no narrower than the budget"
    assert {tier.name: tier.high for tier in problem.models[0].tiers}["full"] == 2


def test_models_whose_replicas_take_one_accelerator_each_know_no_nodes():
    small = observe_one(
        spec(tiers=[spec().tiers[2].model_dump(by_alias=True, exclude_none=True)]), {"int4": 1}, metrics(0.3)
    )
    observation = pool({"w": 1, "x": 1})
    assert (
        with_room([build_situation(small, NOW, 0.0, 2, DEMO_SETTINGS)], replace(observation, models=(small,)))[0].room
        is None
    )
