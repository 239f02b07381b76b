"""The simulated router: the real one's rules, its queue and its refusals."""

from __future__ import annotations

import pytest

from adaptive_operator.simulate.generators import generate, steady
from adaptive_operator.simulate.policies.static import StaticPolicy
from adaptive_operator.simulate.requests import Outcome, TraceRow
from adaptive_operator.simulate.run import run
from tests.operator.simulate.scenes import make_scenario, quality, served

FULL_AND_INT4 = {"full": 1, "int4": 1}


def rows(rate: float, seconds: float = 300.0, seed: int = 1) -> tuple[TraceRow, ...]:
    """A Poisson stream that begins when everything is loaded."""
    return tuple(
        TraceRow(r.arrival + 30, r.prompt_tokens, r.output_tokens) for r in generate(steady(rate), seconds, seed)
    )


def test_a_little_load_is_served_at_the_best_tier_but_for_bursts():
    result = run(make_scenario(), rows(1.0), StaticPolicy("mix", FULL_AND_INT4))
    assert served(result) == 1.0
    assert quality(result) > 0.99  # three within 0.2 s pass the queue that a replica of 4/s may have inside


def test_load_beyond_the_best_tier_is_shed_to_the_cheaper_one():
    result = run(make_scenario(), rows(5.0), StaticPolicy("mix", FULL_AND_INT4))
    assert served(result) == 1.0
    planned = (0.9 * 4.0 * 1.0 + (5.0 - 0.9 * 4.0) * 0.85) / 5.0  # the best tier up to 0.9 of its capacity
    assert planned - 0.02 < quality(result) <= planned


@pytest.mark.parametrize("rate", [6.0, 10.0, 30.0])
def test_whatever_the_load_the_mean_quality_never_falls_below_the_floor(rate):
    result = run(make_scenario(), rows(rate), StaticPolicy("mix", FULL_AND_INT4))
    started = [r for r in result.requests if r.tier]
    assert sum(r.quality for r in started) / len(started) >= 0.9 - 1e-9


def test_overload_is_refused_after_the_longest_wait_in_the_router():
    scenario = make_scenario(routing={"maxQueueSeconds": 3})
    result = run(scenario, rows(30.0), StaticPolicy("mix", FULL_AND_INT4))
    outcomes = {request.outcome for request in result.requests}
    assert Outcome.REFUSED in outcomes
    assert Outcome.PENDING not in outcomes
    first_tokens = [r.ttft for r in result.requests if r.outcome is Outcome.FINISHED]
    assert max(first_tokens) < 3 + 10  # held at most 3 s, and the engines' own queues are short


def test_before_anything_is_ready_requests_are_held_and_then_refused():
    trace = tuple(TraceRow(t, 100, 10) for t in (2.0, 18.0))
    result = run(make_scenario(), trace, StaticPolicy("mix", FULL_AND_INT4))
    early, late = result.requests
    assert early.outcome is Outcome.REFUSED
    assert late.outcome is Outcome.FINISHED
    assert late.first_token_at > 21.0  # loaded at 20 s, the router follows a second later


def test_every_request_ends_exactly_once():
    done: list[object] = []
    scenario = make_scenario()
    policy = StaticPolicy("mix", FULL_AND_INT4)

    class Counting(StaticPolicy):
        def begin(self, world):
            world.dispatcher.on_done = done.append
            policy.begin(world)

    result = run(scenario, rows(12.0), Counting("mix", FULL_AND_INT4))
    assert len(done) == len(set(map(id, done))) == len(result.requests)
