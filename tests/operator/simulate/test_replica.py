"""The engine model against hand-computed cases: single requests, M/M/1, M/D/1, and the closed form of saturation."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.simulate.curve import Lengths, StepCurve, linear_points, saturation
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.replica import Replica
from adaptive_operator.simulate.requests import Outcome, Request
from tests.operator.simulate.queues import NOTHING, batch_means, make_curve, serve

# One request at a time, 0.1 ms per prompt token, answers of one token: a plain queue with one server.
ONE_SERVER = StepCurve(0.0, 0.0001, ((1, 0.001),), 1_000_000, 1)
MU = 1.0  # requests/s, with 10,000 prompt tokens in the mean


def poisson(rng: random.Random, rate: float, count: int) -> list[float]:
    times, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(rate)
        times.append(now)
    return times


@pytest.mark.slow
@pytest.mark.parametrize(("rho", "seed"), [(0.5, 1), (0.8, 2)])
def test_the_mean_wait_of_m_m_1_is_rho_over_mu_minus_lambda(rho, seed):
    rng = random.Random(seed)
    arrivals = poisson(rng, rho * MU, 60_000)
    tokens = [max(1, round(rng.expovariate(1 / 10_000))) for _ in arrivals]
    requests = serve(ONE_SERVER, [(at, n, 1) for at, n in zip(arrivals, tokens, strict=True)])
    mean, margin = batch_means([r.ttft - r.prompt_tokens * 0.0001 for r in requests][6_000:])
    assert mean == pytest.approx(rho / (MU - rho * MU), abs=margin)
    assert margin < 0.1 * mean


@pytest.mark.slow
@pytest.mark.parametrize(("rho", "seed"), [(0.5, 3), (0.8, 4)])
def test_the_mean_wait_of_m_d_1_is_half_of_it(rho, seed):
    arrivals = poisson(random.Random(seed), rho * MU, 60_000)
    requests = serve(ONE_SERVER, [(at, 10_000, 1) for at in arrivals])
    mean, margin = batch_means([r.ttft - 1.0 for r in requests][6_000:])
    assert mean == pytest.approx(rho / (2 * MU * (1 - rho)), abs=margin)
    assert margin < 0.1 * mean


@pytest.mark.slow
def test_m_d_1_holds_for_service_by_decode_steps_too():
    curve = StepCurve(0.0, 0.0, ((1, 0.01),), 1_000_000, 1)  # 101 tokens: 100 steps of 10 ms
    requests = serve(curve, [(at, 1, 101) for at in poisson(random.Random(5), 0.7, 60_000)])
    mean, margin = batch_means([r.ttft for r in requests][6_000:])
    assert mean == pytest.approx(0.7 / (2 * 0.3), abs=margin)
    assert margin < 0.1 * mean


def test_a_lone_request_takes_its_prefill_and_its_steps():
    (request,) = serve(make_curve(), [(2.0, 1000, 101)])
    assert request.ttft == pytest.approx(0.010 + 0.050)
    assert request.tpot == pytest.approx(0.007)
    assert request.outcome is Outcome.FINISHED


def test_a_second_request_joins_at_the_next_whole_step_and_stalls_the_first():
    # Steps of 100 ms from 0.0 s on; the other one arrives at 0.25 s, is read from 0.3 s to 0.5 s.
    curve = StepCurve(0.0, 0.0001, ((1, 0.1), (2, 0.2)), 1_000_000, 2)
    first, second = serve(curve, [(-0.0, 0, 11), (0.25, 2000, 3)])
    assert second.first_token_at == pytest.approx(0.5)
    assert second.finished_at == pytest.approx(0.5 + 2 * 0.2)
    assert first.finished_at == pytest.approx(0.3 + 0.2 + 2 * 0.2 + 5 * 0.1)


CASES = {
    "slots are used up": (make_curve(max_sequences=1), 100),
    "kv memory is used up": (make_curve(kv_tokens=250), 100),
}


@pytest.mark.parametrize("name", CASES)
def test_a_request_waits_until_another_one_ends_when(name):
    curve, output = CASES[name]
    first, second = serve(curve, [(0.0, 100, output), (0.1, 100, output)])
    assert second.first_token_at >= first.finished_at
    assert second.outcome is Outcome.FINISHED


def test_a_request_larger_than_the_kv_memory_runs_alone_rather_than_never():
    (request,) = serve(make_curve(kv_tokens=50), [(0.0, 100, 2)])
    assert request.outcome is Outcome.FINISHED


def test_prompts_beyond_8192_tokens_are_read_one_prefill_after_the_other():
    curve = StepCurve(0.0, 0.001, ((1, 0.1),), 1_000_000, 64)
    blocker, first, second = serve(curve, [(0.0, 1000, 1), (0.5, 8000, 1), (0.6, 193, 1)])
    assert blocker.first_token_at == pytest.approx(1.0)
    assert first.first_token_at == pytest.approx(9.0)
    assert second.first_token_at == pytest.approx(9.193)


def test_a_client_that_waits_longer_than_its_patience_is_gone_before_it_costs_anything():
    first, second, third = serve(ONE_SERVER, [(0.0, 30_000, 1), (0.1, 10_000, 1), (2.5, 10_000, 1)], patience=2.0)
    assert (first.outcome, second.outcome) == (Outcome.FINISHED, Outcome.TIMED_OUT)
    assert third.first_token_at == pytest.approx(4.0)


def paced(curve: StepCurve, request: Request, at: float, **levels: StepCurve) -> Request:
    """The request on a replica that reads prompts twice and decodes four times as fast from `at` on."""
    events = EventQueue()
    replica = Replica(curve, events, NOTHING, NOTHING, levels=levels)
    events.at(at, lambda: replica.set_pace(2.0, 4.0))
    events.at(request.arrival, lambda: replica.submit(request))
    events.run_until(1e9)
    return request


PACES = {
    "from the start": (0.0, 0.5, 0.5 + 10 * 0.1),
    "while it is read: that ends as it began": (0.4, 1.0, 1.0 + 10 * 0.1),
    "while it decodes: from the next whole step on": (1.5, 1.0, 1.0 + 2 * 0.4 + 8 * 0.1),
    "at the end of a step": (1.8, 1.0, 1.0 + 2 * 0.4 + 8 * 0.1),
    "in the last step": (4.9, 1.0, 1.0 + 10 * 0.4),
}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", PACES)
def test_a_request_is_served_at_a_pace_that_changes(name, nested):
    at, first_token, finished = PACES[name]
    curve = StepCurve(0.0, 0.001, ((1, 0.4),), 1_000_000, 1)
    levels = {"int8": curve} if nested else {}
    request = paced(curve, Request(0.0, 1000, 11, level="int8" if nested else ""), at, **levels)
    assert request.first_token_at == pytest.approx(first_token)
    assert request.finished_at == pytest.approx(finished)


def test_a_request_that_comes_between_a_change_of_pace_and_the_end_of_its_step_joins_at_that_end():
    events = EventQueue()
    replica = Replica(StepCurve(0.0, 0.001, ((1, 0.4),), 1_000_000, 2), events, NOTHING, NOTHING)
    first, second = Request(0.0, 1000, 11), Request(1.5, 1000, 2)
    events.at(0.0, lambda: replica.submit(first))
    events.at(1.45, lambda: replica.set_pace(2.0, 4.0))  # in the second step, which ends at 1.8 s
    events.at(1.5, lambda: replica.submit(second))
    events.run_until(1e9)
    assert second.first_token_at == pytest.approx(1.8 + 0.5)
    assert first.finished_at == pytest.approx(1.8 + 0.5 + 8 * 0.1)


def test_a_step_with_a_chunk_ends_at_the_pace_at_which_it_began():
    # 100 tokens in chunks of 50, 50 ms each: the pace changes in the first.
    curve = StepCurve(0.0, 0.001, ((1, 0.4),), 1_000_000, 1, step_tokens=50)
    request = paced(curve, Request(0.0, 100, 2), at=0.03)
    assert request.first_token_at == pytest.approx(0.05 + 0.025)
    assert request.finished_at == pytest.approx(0.05 + 0.025 + 0.1)


def test_a_replica_that_was_emptied_goes_on_at_the_pace_that_was_set():
    events = EventQueue()
    replica = Replica(make_curve(), events, NOTHING, NOTHING)
    lost, request = Request(0.0, 1000, 101), Request(1.0, 1000, 101)
    events.at(0.0, lambda: replica.submit(lost))
    events.at(0.3, lambda: replica.set_pace(2.0, 4.0))
    events.at(0.4, replica.drop_all)
    events.at(1.0, lambda: replica.submit(request))
    events.run_until(1e9)
    assert request.ttft == pytest.approx((0.010 + 0.050) / 2)
    assert request.tpot == pytest.approx(0.007 / 4)


def test_a_pace_is_of_the_curves_and_not_of_the_pace_before():
    events = EventQueue()
    replica = Replica(make_curve(), events, NOTHING, NOTHING)
    replica.set_pace(2.0, 4.0)
    replica.set_pace(1.0, 1.0)
    (request,), unpaced = serve(make_curve(), [(0.0, 1000, 101)]), Request(0.0, 1000, 101)
    events.at(0.0, lambda: replica.submit(unpaced))
    events.run_until(1e9)
    assert unpaced.finished_at == request.finished_at


def test_what_a_lost_replica_held_is_told_apart_by_its_first_token():
    events = EventQueue()
    replica = Replica(make_curve(max_sequences=1), events, NOTHING, NOTHING)
    running, waiting = Request(0.0, 10, 1000), Request(0.0, 10, 10)
    replica.submit(running)
    replica.submit(waiting)
    events.run_until(1.0)
    assert replica.drop_all() == ([waiting], [running])
    events.run_until(100.0)
    assert running.outcome is Outcome.PENDING
    assert (replica.running, replica.waiting, replica.kv_share) == (0, 0, 0.0)


def test_the_closed_form_of_saturation_is_near_what_an_always_full_replica_serves():
    rng = random.Random(6)
    rows = [(0.0, rng.randint(200, 2000), rng.randint(50, 400)) for _ in range(4000)]
    requests = serve(make_curve(), rows)
    served = len(rows) / max(r.finished_at for r in requests)
    assert served == pytest.approx(saturation(make_curve(), Lengths.of([(p, o) for _, p, o in rows])), rel=0.05)


@pytest.mark.parametrize("rate", [2.0, 5.0, 8.0])
def test_the_mean_tpot_is_near_the_closed_form_below_saturation(rate):
    alpha, beta, prompt, output = 0.006973, 0.000027, 1155, 211
    stall = 0.010 + 0.00005 * prompt  # one prefill
    batch = rate * (output - 1) * alpha / (1 - rate * stall - rate * (output - 1) * beta)
    expected = (alpha + beta * batch) / (1 - rate * stall)
    rng = random.Random(7)
    requests = serve(make_curve(), [(at, prompt, output) for at in poisson(rng, rate, 3000)])
    assert sum(r.tpot for r in requests) / len(requests) == pytest.approx(expected, rel=0.1)


# A step of 20 ms, 30 ms with two sequences; a prefill of 10 ms and 1 ms per token, 64 tokens a step.
CHUNKED = StepCurve(0.01, 0.001, ((1, 0.02), (2, 0.03)), 1_000_000, 2, step_tokens=64)


def test_a_prompt_that_is_cut_into_chunks_pays_a_prefill_for_each():
    (request,) = serve(CHUNKED, [(0.0, 100, 3)])
    assert request.ttft == pytest.approx((0.01 + 0.064) + (0.01 + 0.036))
    assert request.tpot == pytest.approx(0.02)


CHUNKS = {
    # 63 tokens beside the one that decodes, then one: a step alone takes no less.
    "as much as a step's tokens": (CHUNKED, [0.073, 0.02]),
    # 45 ms are planned: 35 tokens, 35 tokens, 30 tokens.
    "as much as the objective leaves time for": (CHUNKED.with_objective(0.05), [0.045, 0.045, 0.04]),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_the_others_decode_in_the_steps_that_read_chunks_of(name):
    curve, steps = CHUNKS[name]
    prompt = 64 if len(steps) == 2 else 100
    # Steps of 20 ms from 20 ms on; the other one arrives at 30 ms, is read from 40 ms on.
    first, second = serve(curve, [(0.0, 10, 11), (0.03, prompt, 3)])
    read = 0.04 + sum(steps)
    assert first.first_token_at == pytest.approx(0.02)
    assert second.first_token_at == pytest.approx(read)
    assert second.finished_at == pytest.approx(read + 2 * 0.03)
    left = 10 - 1 - len(steps) - 2
    assert first.finished_at == pytest.approx(read + 2 * 0.03 + left * 0.02)


def test_eight_tokens_of_a_prompt_are_read_where_the_objective_leaves_no_time():
    curve = CHUNKED.with_objective(0.01)
    assert curve.max_sequences == 1
    assert curve.prompt_room(1, curve.step(1)) == 8


def test_a_step_without_a_prompt_in_it_pays_no_prefill():
    curve = StepCurve(0.1, 0.001, ((1, 0.02),), 1_000_000, 8, step_tokens=64)
    assert curve.mixed(3, 0) == curve.step(3)
    assert curve.mixed(3, 10) == pytest.approx(0.11)


# As CHUNKED, but a sequence that decodes beside a prompt costs 15 ms, as 15 tokens of it would.
ROWS = StepCurve(0.01, 0.001, ((1, 0.02), (2, 0.03)), 1_000_000, 2, step_tokens=64, beside_seconds=0.015)

BESIDE = {
    "what a row of it costs": (ROWS, 2, 10, 0.01 + 0.01 + 2 * 0.015),
    "a row of it, the first sequence too": (ROWS, 1, 10, 0.01 + 0.01 + 0.015),
    "what it adds to a decode step where that is more": (CHUNKED, 2, 20, 0.01 + 0.02 + (0.03 - 0.02)),
    "no less than the decode step": (CHUNKED, 2, 1, 0.03),
    "nothing without a prompt": (ROWS, 2, 0, 0.03),
    "twice as fast, half as much": (ROWS.scaled(2.0, 1.0), 2, 30, 0.005 + 0.015 + 2 * 0.0075),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_sequence_that_decodes_beside_a_prompt_adds(name):
    curve, sequences, tokens, seconds = BESIDE[name]
    assert curve.mixed(sequences, tokens) == pytest.approx(seconds)


@given(st.integers(1, 8), st.floats(0.0, 0.01), st.floats(0.03, 0.2))
def test_a_chunk_that_fits_into_a_planned_step_takes_no_longer(sequences, beside, planned):
    points = ((1, 0.01), (8, 0.02))
    curve = StepCurve(0.004, 0.001, points, 1_000_000, 8, 64, planned, beside_seconds=beside)
    room = curve.prompt_room(sequences, curve.step(sequences))
    assert room <= 8 or curve.mixed(sequences, room) <= planned + 1e-9
    assert room == 64 - sequences or curve.mixed(sequences, room + 1) > planned - 1e-9


def test_beside_faster_levels_a_prompt_has_its_own_level_s_part_of_a_step():
    # 30 ms are planned; a step of the faster level takes 5 ms and not 10, so 5 more tokens fit.
    curve = StepCurve(0.004, 0.001, ((1, 0.01),), 1_000_000, 8, 64, 0.03)
    assert curve.prompt_room(1, 0.010) == 26
    assert curve.prompt_room(1, 0.005) == 31


def test_a_batch_is_as_large_as_leaves_time_for_the_fewest_tokens_of_a_prompt_beside_it():
    # 45 ms are planned: 10 and 8 for eight tokens of a prompt, and 13 for each sequence beside them.
    points = ((1, 0.01), (8, 0.02))
    curve = StepCurve(0.01, 0.001, points, 1_000_000, 8, step_tokens=64, beside_seconds=0.013)
    bounded = curve.with_objective(0.05)
    assert (bounded.max_sequences, bounded.beside_seconds) == (2, 0.013)


def test_the_levels_of_a_nested_replica_read_their_chunks_after_each_other():
    events = EventQueue()
    fast = CHUNKED.scaled(2.0, 2.0)
    replica = Replica(CHUNKED, events, NOTHING, NOTHING, levels={"int8": CHUNKED, "int4": fast})
    slow_one, fast_one = Request(0.0, 10, 9, level="int8"), Request(0.03, 50, 2, level="int4")
    for request in (slow_one, fast_one):
        events.at(request.arrival, lambda request=request: replica.submit(request))
    events.run_until(10.0)
    assert fast_one.first_token_at == pytest.approx(0.04 + 0.02 + (0.01 + 0.05) / 2)
    assert fast_one.finished_at == pytest.approx(fast_one.first_token_at + 0.02 + 0.01)


def test_a_replica_that_is_lost_between_two_chunks_forgets_them():
    events = EventQueue()
    replica = Replica(CHUNKED, events, NOTHING, NOTHING)
    half_read = Request(0.0, 100, 5)
    replica.submit(half_read)
    events.run_until(0.08)
    assert replica.drop_all() == ([half_read], [])
    events.run_until(1.0)
    assert (half_read.outcome, replica.running) == (Outcome.PENDING, 0)


def test_the_closed_form_of_saturation_holds_with_chunks_too():
    curve = make_curve(step_tokens=512)
    rng = random.Random(6)
    rows = [(0.0, rng.randint(200, 2000), rng.randint(50, 400)) for _ in range(4000)]
    requests = serve(curve, rows)
    served = len(rows) / max(r.finished_at for r in requests)
    assert served == pytest.approx(saturation(curve, Lengths.of([(p, o) for _, p, o in rows])), rel=0.05)


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 900), st.integers(1, 100)), min_size=1, max_size=30),
    slots=st.integers(1, 8),
    objective=st.sampled_from([None, 0.0085, 0.02]),
)
def test_with_chunks_every_request_ends_once_and_in_no_less_time_than_alone(rows, slots, objective):
    curve = make_curve(max_sequences=slots, step_tokens=64)
    curve = curve if objective is None else curve.with_objective(objective)
    for request in serve(curve, sorted(rows)):
        assert request.outcome is Outcome.FINISHED
        assert request.ttft >= curve.prefill(request.prompt_tokens) - 1e-9
        assert request.tpot == 0 or request.tpot >= curve.step(1) - 1e-9


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 9000), st.integers(1, 300)), min_size=1, max_size=40),
    slots=st.integers(1, 8),
    kv_tokens=st.integers(500, 20_000),
)
def test_every_request_ends_once_and_in_no_less_time_than_alone(rows, slots, kv_tokens):
    curve = make_curve(max_sequences=slots, kv_tokens=kv_tokens)
    for request in serve(curve, sorted(rows)):
        assert request.outcome is Outcome.FINISHED
        assert request.ttft >= curve.prefill(request.prompt_tokens) - 1e-9
        assert request.tpot == 0 or request.tpot >= curve.step(1) - 1e-9


CURVES = {
    "between points": (3, 0.15),
    "at a point": (4, 0.2),
    "below the first": (1, 0.1),
    "beyond the last, along the last segment": (8, 0.4),
}


@pytest.mark.parametrize("name", CURVES)
def test_a_step_is_interpolated(name):
    size, seconds = CURVES[name]
    curve = StepCurve(0.0, 0.0, ((2, 0.1), (4, 0.2)), 100, 16)
    assert curve.step(size) == pytest.approx(seconds)


def test_an_engine_forms_no_batch_that_breaks_the_objective():
    assert make_curve().with_objective(0.0075).max_sequences == 19
    assert make_curve().with_objective(0.001).max_sequences == 1


@pytest.mark.parametrize("points", [(), ((0, 0.1),), ((2, 0.1), (1, 0.1)), ((1, 0.1), (1, 0.2))])
def test_a_curve_without_order_is_refused(points):
    with pytest.raises(ValueError, match="rising order"):
        StepCurve(0.0, 0.0, points, 100, 4)


def test_a_step_that_is_too_small_for_the_batch_is_refused():
    with pytest.raises(ValueError, match="step_tokens"):
        make_curve(step_tokens=63)


def test_points_of_a_single_slot_are_one():
    assert linear_points(0.1, 0.05, 1) == ((1, pytest.approx(0.15)),)


def test_the_past_cannot_be_scheduled():
    events = EventQueue()
    events.run_until(5.0)
    with pytest.raises(ValueError, match="4 s"):
        events.at(4, lambda: None)
