"""A load that repeats itself, simulated over three periods: the third rise is expected before it comes."""

from __future__ import annotations

import math

import pytest

from adaptive_operator.decide.forecast import forecast
from adaptive_operator.simulate.events import EPOCH
from adaptive_operator.simulate.generators import day_and_night, generate
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.run import run
from tests.operator.simulate.scenes import make_scenario
from tests.operator.simulate.test_scrapes import world_with

pytestmark = pytest.mark.slow

PERIOD = 1800.0
LOAD_SECONDS = 200
HORIZON = LOAD_SECONDS + 15.0
# Replicas that are slow, so that few requests are a load.
TIERS = (("full", "bf16", 1000, 0.8, 1), ("int8", "int8", 990, 1.28, 1), ("int4", "int4", 850, 2.0, 1))
OBJECTIVE = {"ttftMilliseconds": 5000, "tpotMilliseconds": 175, "attainmentPercent": 99}


def observed_in_the_third_rise(season_seconds):
    """(seconds of the period, metrics) of each pass of the third period until its plateau."""
    scenario = make_scenario(tiers=TIERS, load_seconds=LOAD_SECONDS, slo=OBJECTIVE)
    policy = AdaptivePolicy(season_seconds=season_seconds, keep_records=True)
    run(scenario, generate(day_and_night(0.3, 3.0, PERIOD), 2 * PERIOD + 900.0, seed=1), policy)
    begin = 2 * PERIOD
    return [(r.at - begin, r.observation.models[0].metrics) for r in policy.records if r.at >= begin]


def first(passes, rate, with_season):
    """When the forecast first reaches a rate, seconds of the period."""
    for at, metrics in passes:
        season = metrics.season if with_season else None
        upper = forecast(metrics.history, EPOCH + 2 * PERIOD + at, HORIZON, season=season).upper
        if upper is not None and upper >= rate:
            return at
    return math.inf


def test_the_third_rise_of_a_day_is_expected_a_minute_earlier_than_without_a_season_at_least():
    passes = observed_in_the_third_rise(PERIOD)
    with_season, without = (first(passes, 2.0, known) for known in (True, False))
    # The load is 2/s from 789 s on.
    assert with_season < 789.0 - 120.0
    assert with_season <= without - 60.0


def test_the_past_has_the_bins_that_were_scraped_and_no_others():
    world = world_with([5, 5, 2])
    (found,) = world.scraper.past(EPOCH - 120.0, EPOCH + 600.0).series.values()
    assert [at - EPOCH for at, _ in found] == [60.0, 120.0, 180.0]
    assert [rate for _, rate in found] == pytest.approx([5.0, 5.0, 2.0], rel=0.1)
    assert world.scraper.past(EPOCH - 600.0, EPOCH).series == {}
