"""An edit of a tier is a swap: with a deadline, with a way back, and with something that serves at every moment."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from adaptive_operator.api.status import AdaptiveModelStatus, Condition
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.decision import Decision
from stand_ins.plant import demo_spec, tier
from tests.operator.decide.world import PERIOD, World

pytestmark = pytest.mark.slow

# With one accelerator free the new replica of int4 starts beside the old one; with all held it has to wait for it.
ROOM: dict[str, Any] = {"tiers": [tier(0), tier(2)]}
NO_ROOM: dict[str, Any] = {"tiers": [tier(0, replicas={"min": 1}), tier(2, replicas={"min": 2})]}
SPECS = {"room for both": ROOM, "no room for both": NO_ROOM}


def edited(spec: AdaptiveModelSpec, name: str, memory: str = "3Gi") -> AdaptiveModelSpec:
    """The spec with another memory limit for the replicas of a tier."""
    replica = {t.name: t.replica.model_copy(update={"memory": memory}) for t in spec.tiers}
    tiers = tuple(t.model_copy(update={"replica": replica[t.name]}) if t.name == name else t for t in spec.tiers)
    return spec.model_copy(update={"tiers": tiers})


def settled(overrides: dict[str, Any]) -> World:
    world = World(lambda at: 0.4)
    world.cluster.spec = demo_spec(**overrides)
    world.run(200)
    assert world.decisions[-1].swap is None
    return world


def passes(world: World, seconds: float) -> Iterator[Decision]:
    """Pass by pass; something always serves."""
    for _ in range(int(seconds / PERIOD)):
        yield world.step()
        world.cluster.run_controllers(PERIOD)
        assert world.cluster.routable(), "nothing serves"


def condition(status: AdaptiveModelStatus | None, kind: str) -> Condition:
    assert status is not None
    return next(item for item in status.conditions if item.type == kind)


def memory_limits(world: World) -> set[str]:
    """Memory limits of the replicas of int4 that serve."""
    sets = {item["metadata"]["name"]: item for item in world.cluster._stateful_sets()}
    serving = {pod.stateful_set for pod in world.cluster.routable() if pod.tier == "int4"}
    return {
        sets[name]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] for name in serving
    }


@pytest.mark.parametrize("room", SPECS)
def test_an_edit_is_recorded_as_a_swap_with_a_deadline_that_ends_when_the_new_replicas_serve_alone(room):
    world = settled(SPECS[room])
    world.edit(edited(world.cluster.spec, "int4"))
    decisions = list(passes(world, 300))
    began = next(d for d in decisions if d.swap is not None)
    assert began.reason == "SpecChanged"
    assert "int4" in began.message
    assert began.swap is not None
    assert began.swap.deadline > began.swap.started_at
    assert decisions[-1].swap is None
    assert memory_limits(world) == {"3Gi"}
    assert world.cluster.removed_undrained == []


@pytest.mark.parametrize("room", SPECS)
def test_an_edit_whose_replicas_never_get_ready_goes_back_to_the_revision_that_worked(room):
    world = settled(SPECS[room])
    asked = {t: n for t, n in world.cluster.asked().items() if n}
    bad = edited(world.cluster.spec, "int4")
    world.cluster.load_rounds[world.revision(bad, "int4")] = None
    world.edit(bad)
    decisions = list(passes(world, 600))
    rolled = next(d for d in decisions if d.reason == "SwapRolledBack")
    assert "0/1 nodes are available" in rolled.message
    assert "goes back to the revision that last worked" in rolled.message
    assert {t: n for t, n in world.cluster.asked().items() if n} == asked
    assert all(world.cluster.is_ready(pod) for pod in world.cluster.pods)
    assert memory_limits(world) == {"1Gi"}
    degraded = condition(world.cluster.status, "Degraded")
    assert degraded.status == "True"
    assert "int4 goes on with its earlier revision" in degraded.message


def test_a_failed_edit_is_tried_again_after_twice_the_wait_each_time():
    world = settled(NO_ROOM)
    bad = edited(world.cluster.spec, "int4")
    world.cluster.load_rounds[world.revision(bad, "int4")] = None
    world.edit(bad)
    rolled = [
        world.cluster.now
        for decision in passes(world, 6000)
        if decision.reason == "SwapRolledBack" and world.decisions[-2].reason != "SwapRolledBack"
    ]
    waits = [after - before for before, after in pairwise(rolled)]
    assert len(waits) == 2
    assert 900 <= waits[0] < 1200
    assert 1800 <= waits[1] < 2100


def test_a_failed_edit_that_starts_at_a_later_try_is_adopted():
    world = settled(NO_ROOM)
    bad = edited(world.cluster.spec, "int4")
    revision = world.revision(bad, "int4")
    world.cluster.load_rounds[revision] = None
    world.edit(bad)
    list(passes(world, 600))
    world.cluster.load_rounds[revision] = 2
    list(passes(world, 900))
    assert memory_limits(world) == {"3Gi"}
    assert condition(world.cluster.status, "Degraded").status == "False"
    assert world.decisions[-1].memory.failed_starts == {}
    assert world.decisions[-1].held_back == {}


@pytest.mark.parametrize("memory", ["1Gi", "2Gi"])
def test_a_failed_edit_is_healed_at_once_by_a_new_edit(memory):
    world = settled(NO_ROOM)
    first = world.cluster.spec
    bad = edited(first, "int4")
    world.cluster.load_rounds[world.revision(bad, "int4")] = None
    world.edit(bad)
    list(passes(world, 400))
    world.edit(edited(first, "int4", memory))
    list(passes(world, 200))
    assert memory_limits(world) == {memory}
    assert condition(world.cluster.status, "Degraded").status == "False"
    assert len(world.cluster._stateful_sets()) == 2


@pytest.mark.parametrize("every", [0, 1, 2])
def test_an_operator_that_dies_in_every_other_pass_goes_back_all_the_same(every):
    world = settled(NO_ROOM)
    bad = edited(world.cluster.spec, "int4")
    world.cluster.load_rounds[world.revision(bad, "int4")] = None
    world.edit(bad)
    for i in range(160):
        world.step(every if i % 2 else None)
        world.cluster.run_controllers(PERIOD)
        assert world.cluster.routable()
    assert memory_limits(world) == {"1Gi"}
    assert all(world.cluster.is_ready(pod) for pod in world.cluster.pods)


def test_a_failed_edit_of_the_only_replica_is_not_tried_again_by_itself():
    only = tier(2, replica={"accelerators": 3, "cpu": "750m", "memory": "1Gi"}, replicas={"max": 1})
    world = settled({"tiers": [only]})
    bad = edited(world.cluster.spec, "int4")
    world.cluster.load_rounds[world.revision(bad, "int4")] = None
    world.edit(bad)
    world.run(6000)
    rolled = [d for d in world.decisions if d.reason == "SwapRolledBack"]
    assert "it waits for the spec to be edited again" in rolled[0].message
    assert memory_limits(world) == {"1Gi"}
    assert world.history().count("SwapRolledBack") == 1
    world.edit(edited(world.cluster.spec, "int4", "2Gi"))
    world.run(300)
    assert memory_limits(world) == {"2Gi"}


def better_int4(spec: AdaptiveModelSpec) -> AdaptiveModelSpec:
    """The spec with another recipe for int4, which promises twice the rate and more quality."""
    card = {"qualityPermille": 990, "capacityMilliRequestsPerSecond": 1300, "loadSeconds": 20}
    raw = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    raw["tiers"] = [
        {**item, "recipe": {"precision": "int8"}, "card": card} if item["name"] == "int4" else item
        for item in raw["tiers"]
    ]
    return AdaptiveModelSpec.model_validate(raw)


def test_a_tier_that_goes_on_with_its_earlier_revision_counts_as_that_revision():
    """2 x int4 carry 2 x 0.65 x 0.9 beside full's 0.72, not the 2 x 1.3 x 0.9 that the failed edit promised."""
    world = settled(NO_ROOM)
    bad = better_int4(world.cluster.spec)
    world.cluster.load_rounds[world.revision(bad, "int4")] = None
    world.edit(bad)
    list(passes(world, 600))
    world.load = lambda at: 1.0
    last = list(passes(world, 60))[-1]
    assert set(last.held_back) == {"int4"}
    assert "capacity 1.89/s" in last.inputs
    assert last.tier_prices["full"] == pytest.approx(0.22, abs=1e-3)
    table, status = world.cluster.table(), world.cluster.status
    assert table is not None
    assert status is not None
    assert [item.quality_permille for item in status.tiers if item.name == "int4"] == [780]
    assert [route["qualityPermille"] for route in table["routes"] if route["tier"] == "int4"] == [780]
