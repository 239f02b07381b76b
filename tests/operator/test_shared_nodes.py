"""Pools on the same nodes: what is to come of one of them has its place before another one starts anything there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.declared import parse_declared
from adaptive_operator.observe.models import SeenModel
from adaptive_operator.observe.observation import ModelObservation, NodeRoom, PolicyMemory, PoolObservation
from adaptive_operator.observe.pools import Pool
from adaptive_operator.shared_nodes import SharedNodes
from stand_ins.plant import demo_spec, metrics, observe_one
from stand_ins.raw_objects import RESOURCE, build_accelerator_pool

NODES = (NodeRoom("a", 4, 3), NodeRoom("b", 4, 2), NodeRoom("c", 4, 0, is_open=False))


def wants(name: str, wanted: Mapping[str, int], mode: Mode = Mode.ACTIVE) -> ModelObservation:
    """A model of which one int4 runs on node a."""
    spec = demo_spec(accelerators={}, mode=mode)
    memory = PolicyMemory(wanted=wanted, generation=1)
    model = observe_one(spec, {"int4": 1}, metrics(0.3), name=name, memory=memory)
    return replace(model, pods=tuple(replace(pod, node="a") for pod in model.pods))


def pool_of(name: str, *models: ModelObservation, selector: str = "a100") -> Pool:
    declared = parse_declared(build_accelerator_pool(name, nodeSelector={"gpu": selector}))
    seen = tuple(SeenModel(model, "1", {}, ()) for model in models)
    return Pool(RESOURCE, 4, seen, declared=declared, nodes=NODES)


def free(shared: SharedNodes, pool: Pool) -> tuple[int, ...]:
    return tuple(node.free for node in shared.left_to(pool))


def decided(model: ModelObservation, replicas: Mapping[str, int]) -> Mapping[str, Decision]:
    observation = PoolObservation(0.0, RESOURCE, 4, 1, 0.0, (model,))
    decision = decide_pool(observation, DecideSettings()).decisions[0]
    return {model.key: replace(decision, replicas=replicas)}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({"int4": 1}, (3, 2, 0), id="all that is wanted is there"),
        pytest.param({"int4": 1, "full": 1}, (1, 2, 0), id="one that is to come goes where most is free"),
        pytest.param({"int4": 3, "full": 1}, (0, 1, 0), id="the largest first"),
        pytest.param({"int4": 0}, (3, 2, 0), id="what is to go makes no room yet"),
    ],
)
def test_what_a_neighbour_wants_and_has_not_is_not_free(wanted: dict[str, int], expected: tuple[int, ...]) -> None:
    mine, theirs = pool_of("mine"), pool_of("theirs", wants("b", wanted))
    assert free(SharedNodes([mine, theirs]), mine) == expected


def test_what_was_decided_of_a_neighbour_in_this_pass_counts_at_once() -> None:
    model = wants("b", {"int4": 1})
    mine, theirs = pool_of("mine"), pool_of("theirs", model)
    shared = SharedNodes([mine, theirs])
    shared.note([model], decided(model, {"int4": 1, "full": 1}))
    assert free(shared, mine) == (1, 2, 0)
    assert free(shared, theirs) == (3, 2, 0), "its own it knows"


def test_a_dry_run_starts_nothing() -> None:
    model = wants("b", {"int4": 1}, Mode.DRY_RUN)
    mine, theirs = pool_of("mine"), pool_of("theirs", model)
    shared = SharedNodes([mine, theirs])
    shared.note([model], decided(model, {"int4": 1, "full": 1}))
    assert free(shared, mine) == (3, 2, 0)


def test_a_pool_on_other_nodes_is_no_neighbour() -> None:
    mine, theirs = pool_of("mine"), pool_of("theirs", wants("b", {"full": 1}), selector="h100")
    shared = SharedNodes([mine, theirs])
    assert shared.neighbours(mine) == []
    assert free(shared, mine) == (3, 2, 0)
