"""Loads that fail: what the operator sees of them, and that its swaps, rollbacks and waits bound what they cost."""

from __future__ import annotations

import functools
import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import PodPhase, SwapRecord
from adaptive_operator.reasons import Reason
from adaptive_operator.simulate.events import EPOCH
from adaptive_operator.simulate.failing_loads import FailingLoads, Failure
from adaptive_operator.simulate.generators import Rate, generate, square_wave, steady, step
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.run import NodeLoss, RunResult, RunSettings, run
from adaptive_operator.simulate.scores import is_attained
from tests.operator.simulate.scenes import make_plant, make_scenario, mixes, seen_pod

ALWAYS = math.inf
SETTINGS = DecideSettings()


# The plant: pods are on a node for 5 s before they load for 20 s.


def test_a_load_that_hangs_is_starting_for_ever_and_holds_its_accelerator():
    plant = make_plant(FailingLoads("full", Failure.HANGS))
    pod = plant.create("full")
    plant.events.run_until(10_000.0)
    assert (seen_pod(plant, pod).phase, seen_pod(plant, pod).load_failure_reason) == (PodPhase.STARTING, None)
    assert plant.held == 1


@pytest.mark.parametrize(
    ("tier", "at", "seconds"), [("int8", 0.0, ALWAYS), ("full", 26.0, ALWAYS), ("full", 0.0, 25.0)]
)
def test_loads_of_other_tiers_and_times_work(tier, at, seconds):
    plant = make_plant(FailingLoads(tier, at=at, seconds=seconds))
    pod = plant.create("full")
    plant.events.run_until(25.0)
    assert pod.is_ready


def test_a_part_of_the_loads_fails_by_chance_and_the_same_ones_for_the_same_seed():
    def drawn(seed: int) -> list[bool]:
        return [FailingLoads("full", part=0.3, seed=seed).fails("full", f"pod-{i}", 0, 0.0) for i in range(2000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 0.27 < sum(drawn(1)) / 2000 < 0.33


# The operator on top of it. The objective is one that every tier keeps easily: what is missed is the swap's doing.

EASY = {"ttftMilliseconds": 2000, "tpotMilliseconds": 80, "attainmentPercent": 95}
SECONDS = 7200.0


def play(rate: Rate, seconds: float, *failing: FailingLoads) -> tuple[RunResult, AdaptivePolicy]:
    policy = AdaptivePolicy(keep_records=True)
    trace = generate(rate, seconds, seed=1)
    return run(make_scenario(budget=3, slo=EASY), trace, policy, RunSettings(failing_loads=failing)), policy


# Beside full 1, int8 1 there is room for another full, which the load allows; it never starts.
ROOM = (steady(5.0), FailingLoads("full", Failure.HANGS, at=100.0))
# All that the floor allows is needed, and another tier has to go before int8, which never starts, can be tried.
NO_ROOM = (step(2.0, 9.0, 300.0), FailingLoads("int8", Failure.CRASHES))
SCENES = {"room for both": ROOM, "no room for both": NO_ROOM}


@functools.cache
def two_hours(name: str) -> tuple[RunResult, AdaptivePolicy]:
    rate, failing = SCENES[name]
    return play(rate, SECONDS, failing)


def swaps(policy: AdaptivePolicy) -> list[SwapRecord]:
    """Each swap, by its begin, with the time that it had at first."""
    found: dict[str, SwapRecord] = {}
    for record in policy.records:
        swap = record.decision.decisions[0].swap
        if swap is not None:
            found.setdefault(swap.id, swap)
    return list(found.values())


def failed_swaps(policy: AdaptivePolicy) -> list[tuple[SwapRecord, SwapRecord]]:
    """Each swap that was rolled back, with its rollback."""
    return [pair for pair in pairwise(swaps(policy)) if pair[1].reason == Reason.SWAP_ROLLED_BACK.value]


def served_quality(result: RunResult, begin: float, end: float) -> float:
    """Mean quality of what arrived in this time (seconds); what did not keep the objective counts as zero."""
    inside = [request for request in result.requests if begin <= request.arrival < end]
    return sum(request.quality * is_attained(request, result.scenario) for request in inside) / len(inside)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_a_tier_that_never_starts_is_tried_no_more_often_than_the_doubled_waits_allow_with(name):
    _, policy = two_hours(name)
    failed = failed_swaps(policy)
    waits = [later.started_at - rollback.started_at for (_, rollback), (later, _) in pairwise(failed)]
    assert len(failed) == 4  # 0, 900, 2,700 and 6,300 s after the first, each a start deadline later
    assert all(wait >= least for wait, least in zip(waits, (900, 1800, 3600), strict=True))
    failing = SCENES[name][1]
    tried = {
        pod.uid
        for record in policy.records
        for pod in record.observation.models[0].pods
        if pod.tier == failing.tier and pod.created_at >= EPOCH + failing.at
    }
    assert len(tried) == 4  # no try makes a second pod


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_a_swap_whose_replica_does_not_start_is_rolled_back_by_its_deadline_with(name):
    _, policy = two_hours(name)
    for swap, rollback in failed_swaps(policy):
        assert swap.started_at + 120 <= rollback.started_at <= swap.deadline + SETTINGS.planner_period_seconds


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_what_is_served_is_as_good_as_before_once_deadline_and_rollback_are_over_with(name):
    result, policy = two_hours(name)
    for swap, rollback in failed_swaps(policy)[1:]:  # the first one begins with the run, or in its warm-up
        begin = swap.started_at - EPOCH
        end = begin + (swap.deadline - swap.started_at) + (rollback.deadline - rollback.started_at)
        before = served_quality(result, begin - 120, begin)
        assert before > 0.9
        for window in range(int(end), int(min(end + 600, SECONDS - 60)), 60):
            assert served_quality(result, window, window + 60) >= before - 0.03


@pytest.mark.slow
def test_where_there_is_room_a_load_that_fails_costs_no_request_its_objective():
    result, policy = two_hours("room for both")
    for swap, rollback in failed_swaps(policy):
        assert served_quality(result, swap.started_at - EPOCH, rollback.deadline - EPOCH) > 0.98


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_pods_that_fail_to_load_count_against_the_budget_with(name):
    result, policy = two_hours(name)  # raises BudgetError beyond it
    assert result.most_held_in_pool == 3
    assert max(held_accelerators(record.observation.models[0]) for record in policy.records) == 3


@pytest.mark.slow
@pytest.mark.parametrize("failure", Failure)
def test_once_loads_work_again_the_tier_is_reached_at_the_next_try(failure):
    result, policy = play(steady(5.0), 3600.0, FailingLoads("full", failure, at=100.0, seconds=1900.0))
    assert len(failed_swaps(policy)) == 2
    assert mixes(result)[-1] == {"full": 2, "int8": 1}
    assert result.samples[-1].ready["full"] == 2
    assert policy.records[-1].decision.decisions[0].memory.failed_starts == {}


@pytest.mark.slow
def test_words_of_the_engine_end_a_swap_at_once_and_silence_at_its_deadline():
    waited = {}
    for failure in (Failure.REFUSES, Failure.HANGS):
        _, policy = play(steady(5.0), 500.0, FailingLoads("full", failure, at=100.0))
        ((swap, rollback),) = failed_swaps(policy)
        waited[failure] = rollback.started_at - swap.started_at
    assert waited[Failure.REFUSES] <= 30  # a node, the load and a nudge
    assert 120 < waited[Failure.HANGS] <= 120 + SETTINGS.planner_period_seconds


@pytest.mark.slow
def test_the_same_chance_gives_the_same_run():
    failing = FailingLoads("int8", Failure.CRASHES, part=0.5, seed=3)
    one, other = (play(step(2.0, 9.0, 100.0), 500.0, failing)[0] for _ in range(2))
    assert one.changes == other.changes
    assert [(r.outcome, r.finished_at) for r in one.requests] == [(r.outcome, r.finished_at) for r in other.requests]


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    budget=st.integers(2, 5),
    peak=st.floats(1.0, 30.0),
    half_period=st.sampled_from([60.0, 120.0]),
    failing=st.lists(
        st.builds(
            FailingLoads,
            tier=st.sampled_from(["full", "int8", "int4"]),
            failure=st.sampled_from(Failure),
            part=st.sampled_from([0.3, 0.7, 1.0]),
            at=st.floats(0.0, 200.0),
            seconds=st.sampled_from([60.0, 200.0, ALWAYS]),
            seed=st.integers(0, 100),
        ),
        min_size=1,
        max_size=3,
    ),
    losses=st.lists(st.builds(NodeLoss, st.floats(10.0, 350.0), st.integers(1, 2), st.just(100.0)), max_size=1),
)
def test_whatever_fails_to_load_the_budget_and_the_floor_hold(seed, budget, peak, half_period, failing, losses):
    trace = generate(square_wave(1.0, peak, half_period), 450.0, seed)
    scaling = {"dwellSeconds": 60, "holdSeconds": 60, "drainDeadlineSeconds": 30, "startDeadlineSeconds": 40}
    scenario = make_scenario(budget=budget, load_seconds=10, scaling=scaling)
    policy = AdaptivePolicy(keep_records=True)
    # Raises BudgetError beyond the budget.
    result = run(scenario, trace, policy, RunSettings(failing_loads=tuple(failing), losses=tuple(losses)))
    started = [r for r in result.requests if r.tier]
    assert not started or sum(r.quality for r in started) / len(started) >= scenario.floor - 1e-9
    for record in policy.records:
        assert held_accelerators(record.observation.models[0]) <= budget
