"""Hints: a trace that is over before a replica can serve is told, one that is long enough is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.simulate.hints import describe_short
from adaptive_operator.simulate.requests import TraceRow
from tests.operator.simulate.scenes import TIERS, make_scenario


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
