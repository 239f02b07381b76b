"""What a user should know of a simulation that can be run, but would say little. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.scenario import Scenario


def describe_short(scenario: Scenario, trace: Sequence[TraceRow]) -> str:
    """That the trace is over before any replica can serve; empty for one that is long enough."""
    fitting = [tier.load_seconds for tier in scenario.tiers if tier.accelerators <= scenario.budget]
    ready = min(fitting) + scenario.scheduling_seconds
    seconds = trace[-1].arrival
    if seconds >= ready:
        return ""
    return (
        f"{scenario.name}: no replica is ready before {ready:.0f} s, and the requests that are judged all come within"
        f" {seconds:.0f} s: any policy but oracle:0 fails them; take a longer trace or more --minutes"
    )
