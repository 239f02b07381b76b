"""Hints: a trace that is over before a replica can serve is told, one that is long enough is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.simulate.hints import (
    describe_floor,
    describe_lengths,
    describe_minimums,
    describe_mode,
    describe_objective,
    describe_short,
    describe_start,
    describe_warm_tier,
)
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.scenario import Scenario, build_scenario
from tests.operator.simulate.scenes import TIERS, make_scenario, make_spec


@pytest.mark.parametrize(("tpot", "ttft"), [(1, 2000), (100, 1)], ids=["per token", "to the first token"])
def test_an_objective_that_no_replica_keeps_for_a_single_request_is_told_with_both_times(tpot: int, ttft: int):
    told = describe_objective(make_scenario(slo={"tpotMilliseconds": tpot, "ttftMilliseconds": ttft}))
    assert told.startswith("assistant: alone in a replica of ")
    assert f"where slo.tpotMilliseconds is {tpot}, and " in told
    assert f"where slo.ttftMilliseconds is {ttft}: none is within slo, with any policy; raise what is passed" in told


def test_nothing_is_told_of_an_objective_that_one_tier_keeps():
    assert describe_objective(make_scenario()) == ""


@pytest.mark.parametrize("seconds", [0.0, 24.0])
def test_a_trace_that_ends_before_a_replica_is_ready_is_told_with_both_times(seconds):
    told = describe_short(make_scenario(), [TraceRow(0.0, 1, 1), TraceRow(seconds, 1, 1)])
    assert told.startswith(
        "assistant: no replica is ready before 25 s, and the requests that are judged all come within"
    )
    assert f" {seconds:.0f} s: any policy but oracle:0 fails them; take a longer trace" in told


def test_nothing_is_told_of_a_trace_that_lasts_longer():
    assert describe_short(make_scenario(), [TraceRow(25.0, 1, 1)]) == ""


def test_a_tier_that_does_not_fit_into_the_budget_serves_nothing_however_fast_it_loads():
    scenario = make_scenario(budget=1, tiers=(TIERS[0], ("large", "int8", 990, 6.4, 3)))
    full, large = scenario.tiers
    scenario = replace(scenario, tiers=(full, replace(large, load_seconds=0.0)))
    assert "ready before 25 s" in describe_short(scenario, [TraceRow(6.0, 1, 1)])


def loads_in(seconds):
    scenario = make_scenario()
    return replace(scenario, tiers=tuple(replace(tier, load_seconds=seconds) for tier in scenario.tiers))


def test_that_the_judged_part_begins_before_a_replica_can_be_ready_is_told_with_the_remedy():
    assert describe_start(make_scenario(), [TraceRow(120.0, 1, 1)]) == (
        "assistant: requests are judged from 20 s on, and no replica is ready before 25 s: what comes between waits for"
        " it, with any policy but oracle:0, and may count as a violation; a judged load of at least 150 s leaves it out"
    )


def test_no_remedy_is_told_of_replicas_that_load_for_longer_than_is_ever_left_out():
    told = describe_start(loads_in(700.0), [TraceRow(9000.0, 1, 1)])
    assert "judged from 600 s on, and no replica is ready before 705 s" in told
    assert told.endswith("and may count as a violation")


@pytest.mark.parametrize("seconds", [24.0, 150.0])
def test_nothing_is_told_of_the_start_where_it_is_left_out_or_where_no_replica_is_ready_at_all(seconds):
    assert describe_start(make_scenario(), [TraceRow(seconds, 1, 1)]) == ""


def test_requests_of_another_size_than_the_cards_are_told_with_the_work_and_the_remedy():
    told = describe_lengths(make_scenario(), [TraceRow(0.0, 16, 24), TraceRow(9.0, 18, 26)])
    assert told.startswith("assistant: a request has 17 + 25 tokens on average, 0.")
    assert "times the work of the 1155 + 211 that the cards' rates are of; " in told
    assert "prompt=1155,output=211" in told


def test_nothing_is_told_of_requests_that_are_about_as_large_as_the_cards_say():
    assert describe_lengths(make_scenario(), [TraceRow(0.0, 1000, 200)]) == ""


def test_a_floor_that_no_replica_may_reach_is_told_as_the_operator_tells_it():
    spec = make_spec(quality={"floorPermille": 999})
    document = spec.model_dump(by_alias=True, exclude_none=True)
    document["tiers"][0]["replicas"] = {"max": 0}
    closed = AdaptiveModelSpec.model_validate(document)
    assert describe_floor(build_scenario("assistant", closed, 4)) == (
        "assistant: quality.floorPermille 999 is out of reach: replicas.max of full is 0; the nearest that can be kept"
        " is 990, of int8, and routers refuse what is below the floor; lower quality.floorPermille to 990, or raise"
        " replicas.max"
    )
    assert describe_floor(build_scenario("assistant", spec, 4)) == ""


@pytest.mark.parametrize(
    ("warm", "floor", "told"),
    [
        pytest.param("int4", 995, "assistant: routing.warmTier int4 is below quality.floorPermille 995:", id="below"),
        pytest.param("full", 995, "", id="one that reaches it"),
        pytest.param(None, 995, "", id="none is named: the operator chooses one that reaches it"),
        pytest.param("int4", 850, "", id="the floor is low enough"),
    ],
)
def test_a_warm_tier_below_the_floor_is_told(warm: str | None, floor: int, told: str):
    spec = make_spec(quality={"floorPermille": floor}, routing={"warmTier": warm} if warm else {})
    found = describe_warm_tier(build_scenario("assistant", spec, 4))
    assert found.startswith(told)
    assert bool(found) is bool(told)


@pytest.mark.parametrize("mode", ["DryRun", "Paused"])
def test_that_a_mode_in_which_nothing_is_changed_acts_here_is_told(mode: str):
    told = describe_mode(build_scenario("assistant", make_spec(mode=mode), 4))
    assert told == (
        f"assistant: mode {mode} is simulated as Active; in a cluster the operator changes no replicas of it before"
        " mode is Active"
    )
    assert describe_mode(make_scenario()) == ""


def bounded(name: str, **least: int) -> Scenario:
    """A scenario of four accelerators with these replicas.min; `full` takes one, as int8 and int4 do."""
    document = make_spec().model_dump(by_alias=True, exclude_none=True)
    for tier in document["tiers"]:
        tier["replicas"] = {"min": least.get(tier["name"], 0)}
    return build_scenario(name, AdaptiveModelSpec.model_validate(document), 4)


def test_minimums_beyond_the_budget_are_told_with_both_numbers():
    assert describe_minimums([bounded("assistant", full=20)]) == (
        "assistant: replicas.min takes 20 accelerators, and the budget is 4: minimums are kept as far as they fit;"
        " raise the budget, or lower replicas.min"
    )
    assert describe_minimums([bounded("assistant", full=3, int8=1)]) == ""
    assert describe_minimums([make_scenario()]) == ""


def test_minimums_of_models_that_share_a_budget_count_together():
    told = describe_minimums([bounded("one", full=3), bounded("idle"), bounded("other", int8=2)])
    assert told.startswith("one, other: replicas.min takes 5 accelerators, and the budget is 4:")
