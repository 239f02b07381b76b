"""Several models of one pool on toy clusters: its budget after every single write, crashes and lost nodes included."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.observe.observation import PoolObservation, PoolShare
from adaptive_operator.plan import plan_model
from stand_ins.plant import DEMO_SETTINGS, demo_spec
from stand_ins.solver import solve_once
from tests.operator.decide.world import PERIOD, World
from tests.operator.plan.situations import SETTINGS
from tests.operator.plan.toy_cluster import ToyCluster

pytestmark = pytest.mark.slow

LOADS = st.sampled_from([0.1, 0.6, 1.3, 2.6, 9.0])


@dataclass
class SharedWorld:
    """One world per model, each with a cluster of its own; the accelerators are common."""

    worlds: list[World]
    budget: int
    surge: int = 0
    shares: tuple[PoolShare, ...] = ()
    pool: str = "gpu"  # empty: the models name none
    most: int = 0  # that was ever held
    division: PoolDivision = PoolDivision.WEIGHTED

    def step(self, kill_after: int | None = None) -> None:
        """One pass; the operator dies after so many writes."""
        models = tuple(replace(w.observe(), namespace=f"n{i}", pool=self.pool) for i, w in enumerate(self.worlds))
        now = self.worlds[0].cluster.now
        pool = PoolObservation(now, "nvidia.com/gpu", self.budget, 1, 0.0, models, self.pool, self.surge, self.shares)
        pool = replace(pool, division=self.division)
        left, decisions = kill_after, decide_pool(pool, DEMO_SETTINGS, solve_once).decisions
        for world, model, decision in zip(self.worlds, models, decisions, strict=True):
            world.decisions.append(decision)
            for step in plan_model(model, decision, SETTINGS, now, 1).steps:
                if left == 0:
                    return
                left, before = None if left is None else left - 1, self.held()
                world.cluster.take(step)
                self.check(before)

    def held(self) -> int:
        """By pods that exist, Terminating ones included, and replicas that are asked for."""
        return sum(world.cluster.held() for world in self.worlds)

    def check(self, before: int) -> None:
        """`before`: what was held. Where that is more than there is, because a node was lost, it may only fall."""
        held = self.held()
        self.most = max(self.most, held)
        assert held <= max(self.budget + self.surge, before)
        if not any(world.cluster.status and world.cluster.status.swap for world in self.worlds):
            assert held <= max(self.budget, before), "the surge is for swaps only"

    def lose(self, accelerators: int) -> None:
        """A node goes away with the pods on it, the oldest ones of each model in turn."""
        self.budget = max(self.budget - accelerators, 0)
        for world in self.worlds:
            for pod in list(world.cluster.pods):
                if accelerators > 0:
                    world.cluster.pods.remove(pod)
                    accelerators -= pod.accelerators

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / PERIOD)):
            self.step()
            self.run_controllers()

    def gain(self, accelerators: int) -> None:
        """They are there again."""
        self.budget += accelerators

    def run_controllers(self) -> None:
        before = self.held()
        for world in self.worlds:
            world.cluster.run_controllers(PERIOD)
        self.check(before)


def shared(
    loads: list[list[float]], budget: int, surge: int = 0, shares: tuple[PoolShare, ...] = (), pool: str = "gpu"
) -> SharedWorld:
    """Models whose load takes each value for 100 s."""

    def build(values: list[float]) -> World:
        cluster = ToyCluster(demo_spec(accelerators={}), {"full": 4, "int8": 4, "int4": 4}, end_rounds=2, busy_rounds=1)
        return World(lambda at: values[min(int(at / 100), len(values) - 1)], cluster)

    return SharedWorld([build(values) for values in loads], budget, surge, shares, pool)


def test_models_end_up_with_their_shares_and_each_decision_tells_them():
    world = shared([[9.0], [9.0]], budget=8, shares=(PoolShare("n0", "", weight=3),))
    world.run(600)
    assert [w.cluster.held() for w in world.worlds] == [6, 2]
    told = world.worlds[1].decisions[-1]
    assert any("n0/assistant 6 (weight 3), n1/assistant 2 of 8" in finding.message for finding in told.findings)


def test_accelerators_go_from_one_model_to_the_other_and_back_without_passing_the_budget():
    world = shared([[0.1, 9.0, 9.0, 0.1, 0.1, 0.1], [9.0, 9.0, 0.1, 9.0, 9.0, 9.0]], budget=8)
    held = []
    for _ in range(6):
        world.run(100)
        held.append([w.cluster.held() for w in world.worlds])
    assert held == [[3, 5], [4, 4], [5, 3], [3, 5], [3, 5], [3, 5]]
    assert world.most == 8


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.lists(LOADS, min_size=1, max_size=3), min_size=2, max_size=3),
    st.integers(2, 8),
    st.integers(0, 2),
    st.lists(st.one_of(st.none(), st.integers(0, 12)), max_size=60),
    st.integers(0, 4),
    st.sampled_from(PoolDivision),
)
def test_the_budget_is_never_passed_whatever_the_load_and_wherever_the_operator_dies(
    loads, budget, surge, kills, reserved, division
):
    shares = (PoolShare("n0", "", reserved, 2), PoolShare("n1", "assistant", 1, 3))
    world = shared(loads, budget, surge, shares)
    world.division = division
    for kill_after in kills:
        world.step(kill_after)
        world.run_controllers()
    world.run(100)


@settings(max_examples=6, deadline=None)
@given(
    st.lists(st.lists(LOADS, min_size=1, max_size=3), min_size=2, max_size=3),
    st.sampled_from(["gpu", ""]),
    st.integers(2, 8),
    st.integers(0, 2),
    # Per pass: accelerators that go away with their pods, or come back (negative), and writes until the operator dies.
    st.lists(st.tuples(st.integers(-3, 3), st.one_of(st.none(), st.integers(0, 12))), max_size=60),
    st.sampled_from(PoolDivision),
)
def test_when_nodes_come_and_go_nothing_is_started_beyond_what_is_left_and_in_the_end_no_more_is_held(
    loads, pool, budget, surge, passes, division
):
    world = shared(loads, budget, surge if pool else 0, (), pool)
    world.division = division
    for moved, kill_after in passes:
        world.lose(moved) if moved > 0 else world.gain(min(-moved, budget - world.budget))
        world.step(kill_after)
        world.run_controllers()
    world.run(300)
    assert world.held() <= world.budget + world.surge
