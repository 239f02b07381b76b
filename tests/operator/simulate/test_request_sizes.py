"""What prices are worth: the operator's tables and the router's choice together, on requests of unlike sizes."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest

from adaptive_operator.api.routing import RequestSizes
from adaptive_operator.api.tiers import ReplicaBounds
from adaptive_operator.simulate.generators import LengthDistribution, generate, steady
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.run import RunResult, run
from adaptive_operator.simulate.scores import is_attained
from tests.operator.simulate.scenes import make_scenario, mixes

FULL_AND_INT4 = {"full": {"min": 2, "max": 2}, "int8": {"max": 0}, "int4": {"min": 2, "max": 2}}
PROMPTS = LengthDistribution(prompt_median=700.0)  # mean 1155: from 200 to 3,000 tokens


def play(rate: float, sizes: RequestSizes) -> RunResult:
    """Two replicas of full (7.2/s with the usual margin) and two of int4, for six minutes."""
    scenario = make_scenario()
    tiers = tuple(
        item.model_copy(update={"replicas": ReplicaBounds(**FULL_AND_INT4[item.name])}) for item in scenario.spec.tiers
    )
    routing = scenario.spec.routing.model_copy(update={"request_sizes": sizes})
    spec = scenario.spec.model_copy(update={"tiers": tiers, "routing": routing})
    return run(replace(scenario, spec=spec), generate(steady(rate), 360, 1, 1.0, PROMPTS), AdaptivePolicy())


def quality(result: RunResult) -> float:
    return fmean(r.quality for r in result.requests if r.arrival > 60 and is_attained(r, result.scenario))


def attainment(result: RunResult) -> float:
    return fmean(is_attained(r, result.scenario) for r in result.requests if r.arrival > 60)


@pytest.mark.slow
def test_prices_give_more_requests_a_good_answer_and_no_more_a_late_one():
    priced, ignored = play(14.0, RequestSizes.PRICED), play(14.0, RequestSizes.IGNORED)
    assert mixes(priced)[-1] == mixes(ignored)[-1] == {"full": 2, "int4": 2}
    assert quality(priced) >= quality(ignored) + 0.02
    assert attainment(priced) >= attainment(ignored) - 0.002


def test_while_nothing_is_scarce_prices_change_nothing():
    priced, ignored = play(4.0, RequestSizes.PRICED), play(4.0, RequestSizes.IGNORED)
    assert [(r.tier, r.finished_at) for r in priced.requests] == [(r.tier, r.finished_at) for r in ignored.requests]
