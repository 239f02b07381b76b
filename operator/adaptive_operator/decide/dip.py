"""What an exchange of replicas in a full budget takes: seconds per step, and the life that it has to pay for. Pure.

One step: a replica gets nothing new and answers what it has, its accelerators come free, its successor loads.
"""

from __future__ import annotations

import math
from typing import Final

from adaptive_operator.decide.optimize.problem import plan_life
from adaptive_operator.decide.situation import Situation
from adaptive_operator.decide.swaps import load_seconds
from adaptive_operator.observe.curve_cards import reference_request

# The longest of the dozens of answers that a replica is at, in mean ones: 4.7 of 64 whose lengths are spread
# exponentially, and 4.7 between the mean and the 99th percentile of Azure's conversation trace.
_LONGEST_ANSWER: Final = 5.0


def step_and_life(situation: Situation) -> tuple[float, float]:
    """Seconds that one step of an exchange takes (the slowest tier's), and that a plan is assumed to live.

    Example: 60 s to load, answers of 211 tokens at 35 ms, a scrape every 15 s: 60 + 37 + 15 s, and 300 s.
    """
    load = slowest_load_seconds(situation)
    return load + drain_seconds(situation), plan_life(load)


def slowest_load_seconds(situation: Situation) -> float:
    """Load time of the tier that takes longest."""
    return max((load_seconds(situation, tier) for tier in situation.tiers), default=0.0)


def drain_seconds(situation: Situation) -> float:
    """From when a replica gets nothing new until a scrape shows that it has answered all; at most the deadline.

    Its longest answer, at the objective's time per token, or at the measured one (95th percentile, the slowest tier's)
    where that is shorter.
    """
    spec, readings = situation.model.spec, situation.model.metrics.tiers.values()
    tokens = reference_request(tier.card for tier in spec.tiers).output_tokens
    measured = [tier.tpot_p95_seconds for tier in readings if tier.tpot_p95_seconds is not None]
    per_token = min(spec.slo.tpot_milliseconds / 1000, max(measured, default=math.inf))
    longest = _LONGEST_ANSWER * tokens * per_token
    return min(float(spec.scaling.drain_deadline_seconds), longest + situation.settings.scrape_interval_seconds)
