"""Ours with perfect foresight: instead of what was scraped, the planner is told the true maximum of the load until what
it starts now would be ready. What it does better than ours is what a better forecast could bring, no more.

The only policy that sees the trace. Everything else (damping, choreography, router) is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from adaptive_operator.observe.observation import ModelMetrics, Sample
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.scenario import Scenario

BIN_SECONDS: Final = 15.0
_WINDOW_BINS: Final = 4  # as long as the window that ours counts arrivals over: a shorter one is higher by chance alone
_PERIOD_SECONDS: Final = 15.0


class Foresight:
    """The load to come, in bins of 15 s, as means of a minute each."""

    def __init__(self, trace: Sequence[TraceRow], horizon_seconds: float) -> None:
        self._starts = max(round(horizon_seconds / BIN_SECONDS), 0) + 1
        counts = [0] * (int(trace[-1].arrival // BIN_SECONDS) + 1 if trace else 1)
        for row in trace:
            counts[int(row.arrival // BIN_SECONDS)] += 1
        windows = (counts[i : i + _WINDOW_BINS] for i in range(len(counts)))
        self._rates = [sum(window) / (BIN_SECONDS * len(window)) for window in windows]

    def rate(self, now: float) -> float:
        """The maximum of the minutes that begin in [now, now + horizon], in requests/s; 0 after the end."""
        first = int(now // BIN_SECONDS)
        return max(self._rates[first : first + self._starts], default=0.0)

    def __call__(self, metrics: ModelMetrics, now: float) -> ModelMetrics:
        """The readings with the load to come in place of the load that was."""
        sample = Sample(self.rate(now), 0.0)
        return replace(metrics, arrivals=sample, recent_arrivals=sample, peak_arrivals=sample)


def make_oracle(scenario: Scenario, trace: Sequence[TraceRow]) -> AdaptivePolicy:
    """The policy for this trace."""
    return make_pool_oracle([(scenario, trace)])


def make_pool_oracle(parts: Sequence[tuple[Scenario, Sequence[TraceRow]]]) -> AdaptivePolicy:
    """The policy for the models of a pool, each with its trace."""
    horizon = max(_start_seconds(scenario) for scenario, _ in parts) + _PERIOD_SECONDS
    return AdaptivePolicy(name="oracle", adjust={s.name: Foresight(trace, horizon) for s, trace in parts})


def _start_seconds(scenario: Scenario) -> float:
    return scenario.scheduling_seconds + max(tier.load_seconds for tier in scenario.tiers)
