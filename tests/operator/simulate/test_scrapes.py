"""What Prometheus would answer: rates over windows, ages, and faults."""

from __future__ import annotations

import math

import pytest

from adaptive_operator.observe.prometheus import Failed, Rows
from adaptive_operator.observe.queries import ModelScope, QueryName, Windows, build_queries
from adaptive_operator.simulate.events import EPOCH
from adaptive_operator.simulate.requests import Request
from adaptive_operator.simulate.scrapes import NAMESPACE, Fault
from adaptive_operator.simulate.world import World
from tests.operator.simulate.scenes import make_scenario

QUERIES = {q.name: q for q in build_queries([ModelScope(NAMESPACE, "assistant", 60)], Windows(15.0))}


def world_with(rates, fault_at=lambda now: None):
    """A world in which the router counts `rates[i]` requests/s during the i-th minute."""
    world = World(make_scenario(), fault_at=fault_at)
    world.scraper.start()
    for minute, rate in enumerate(rates):
        for second in range(60):
            world.events.run_until(minute * 60 + second + 0.5)
            world.dispatcher.counters.arrivals += rate
    world.events.run_until(len(rates) * 60.0)
    return world


def value(world, name):
    answer = world.scraper.answer([QUERIES[name]])[QUERIES[name]]
    assert isinstance(answer, Rows)
    return next(iter(answer.values.values()), None)


def test_rates_are_those_of_the_window_and_the_peak_that_of_the_hold():
    world = world_with([5, 5, 2])
    assert value(world, QueryName.ARRIVALS) == pytest.approx(2.0)
    assert value(world, QueryName.RECENT_ARRIVALS) == pytest.approx(2.0)
    assert value(world, QueryName.PEAK_ARRIVALS) == pytest.approx(5.0)
    assert value(world, QueryName.ROUTER_AGE) == 0.0


def history(world):
    answer = world.scraper.answer([QUERIES[QueryName.ARRIVAL_HISTORY]])[QUERIES[QueryName.ARRIVAL_HISTORY]]
    assert isinstance(answer, Rows)
    return [(at - EPOCH, rate) for at, rate in next(iter(answer.series.values()), ())]


def test_the_history_has_a_rate_for_every_bin_that_was_scraped():
    found = history(world_with([4, 4, 1]))
    assert [at for at, _ in found] == [15.0 * i for i in range(1, 13)]
    assert found[0][1] == pytest.approx(4.0, rel=0.05)
    assert found[-1][1] == pytest.approx(1.0)


def test_the_history_has_gaps_while_nothing_is_scraped_and_no_numbers_while_they_are_broken():
    assert [at for at, _ in history(world_with([5, 5], lambda now: Fault.STALE if now >= 60 else None))] == [15, 30, 45]
    assert all(math.isnan(rate) for _, rate in history(world_with([5, 5], lambda now: Fault.NAN)))


def test_a_rate_needs_two_scrapes():
    world = World(make_scenario())
    world.scraper.start()
    assert value(world, QueryName.ARRIVALS) is None


def test_a_pod_is_seen_with_its_work_once_it_is_ready():
    world = world_with([1])
    world.plant.create("full", "assistant-full-0")
    world.events.run_until(75.0)
    assert value(world, QueryName.POD_WORK) is None
    world.events.run_until(90.0)
    assert value(world, QueryName.POD_WORK) == 0.0


def test_stale_metrics_keep_their_values_and_grow_old():
    world = world_with([5, 1], lambda now: Fault.STALE if now >= 60 else None)
    assert value(world, QueryName.ROUTER_AGE) == pytest.approx(120 - 45)


def test_metrics_that_are_gone_or_nan_say_so():
    gone = world_with([5], lambda now: Fault.GONE)
    assert isinstance(gone.scraper.answer(QUERIES.values())[QUERIES[QueryName.ARRIVALS]], Failed)
    broken = world_with([5], lambda now: Fault.NAN)
    assert math.isnan(value(broken, QueryName.ARRIVALS))


def tier_values(world, name):
    answer = world.scraper.answer([QUERIES[name]])[QUERIES[name]]
    assert isinstance(answer, Rows)
    return {key[2:]: value for key, value in answer.values.items()}


def test_answers_of_tiers_are_counted_over_two_minutes_and_their_time_per_token_by_its_least_median():
    world = World(make_scenario())
    world.scraper.start()
    counters = world.dispatcher.counters
    for second in range(240):
        world.events.run_until(second + 0.5)
        counters.answers["full", ""] += 1 if second < 120 else 3
        counters.tpot.append(("full", 0.02 if second < 120 else 0.05))
    world.events.run_until(240.0)
    assert tier_values(world, QueryName.TIER_ANSWERS)["full", ""] == pytest.approx(3.0)
    assert tier_values(world, QueryName.TIER_ANSWERS)["int4", ""] == 0.0
    assert tier_values(world, QueryName.TIER_TPOT)["full",] == 0.02  # 2 minutes ago it was fast
    assert tier_values(world, QueryName.TIER_TPOT_P95) == {("full",): 0.05}


def test_a_moment_without_tokens_is_one_without_late_ones():
    world = World(make_scenario())
    world.scraper.start()
    for second in range(120, 180):
        world.events.run_until(second + 0.5)
        world.dispatcher.counters.tpot.append(("full", 0.05))
    world.events.run_until(180.0)
    assert tier_values(world, QueryName.TIER_TPOT)["full",] == 0.0


def test_the_least_that_waits_in_the_engines_of_a_tier_is_known_where_it_has_some():
    world = World(make_scenario())
    world.plant.on_first_token = lambda request: None
    pod = world.plant.create("full")
    world.events.run_until(60.0)
    world.scraper.start()
    assert tier_values(world, QueryName.TIER_WAITING) == {("full",): 0.0}
    for _ in range(100):
        pod.replica.submit(Request(60.0, 100, 100_000))
    world.events.run_until(75.0)
    assert pod.replica.waiting > 0
    assert tier_values(world, QueryName.TIER_WAITING) == {("full",): 0.0}
    world.events.run_until(210.0)
    assert tier_values(world, QueryName.TIER_WAITING) == {("full",): float(pod.replica.waiting)}
