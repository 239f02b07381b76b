"""Generators and scaling: rates, variation, and that the same seed gives the same trace."""

from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.simulate import generators as g
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.scaling import cut_trace, scale_trace

RATES = {
    "steady": (g.steady(5.0), {0: 5.0, 999: 5.0}),
    "square wave": (g.square_wave(1.0, 3.0, 120.0), {0: 1.0, 119: 1.0, 120: 3.0, 239: 3.0, 240: 1.0}),
    "step": (g.step(2.0, 8.0, 100.0), {99.9: 2.0, 100: 8.0, 1e6: 8.0}),
    "flash crowd": (g.flash_crowd(1.0, 11.0, 100.0), {99: 1.0, 105: 6.0, 110: 11.0, 230: 1 + 10 / 2.718281828}),
    "sinusoid": (g.sinusoid(2.0, 10.0, 400.0), {0: 6.0, 100: 10.0, 300: 2.0}),
    "day and night": (g.day_and_night(1.0, 7.0, 600.0), {0: 1.0, 199: 1.0, 250: 4.0, 300: 7.0, 499: 7.0, 550: 4.0}),
}


@pytest.mark.parametrize("name", RATES)
def test_a_rate_over_time_is_as_drawn(name):
    rate, expected = RATES[name]
    assert {t: rate(t) for t in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("variation", [0.5, 1.0, 2.0])
def test_gaps_have_the_rate_and_the_variation_that_were_asked_for(variation):
    trace = g.generate(g.steady(20.0), 2000.0, seed=3, variation=variation)
    gaps = [b.arrival - a.arrival for a, b in itertools.pairwise(trace)]
    assert statistics.fmean(gaps) == pytest.approx(1 / 20.0, rel=0.05)
    assert statistics.stdev(gaps) / statistics.fmean(gaps) == pytest.approx(variation, rel=0.05)


def test_a_moving_rate_keeps_its_mean_in_every_phase():
    trace = g.generate(g.square_wave(5.0, 15.0, 100.0), 2000.0, seed=4)
    low = sum(1 for row in trace if int(row.arrival // 100) % 2 == 0)
    assert low == pytest.approx(1000 * 5.0, rel=0.05)
    assert len(trace) - low == pytest.approx(1000 * 15.0, rel=0.05)


def test_lengths_have_the_medians_and_means_of_the_conversation_trace():
    trace = g.generate(g.steady(20.0), 1000.0, seed=5)
    assert statistics.median(r.prompt_tokens for r in trace) == pytest.approx(1020, rel=0.03)
    assert statistics.fmean(r.prompt_tokens for r in trace) == pytest.approx(1155, rel=0.03)
    assert statistics.median(r.output_tokens for r in trace) == pytest.approx(129, rel=0.05)


def test_the_same_seed_gives_the_same_trace_and_another_one_does_not():
    one, same, other = (g.generate(g.steady(5.0), 100.0, seed=s) for s in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("factor", [0.25, 1.0, 2.5, 8.0])
def test_a_scaled_trace_has_so_many_times_the_requests_in_the_same_time(factor):
    trace = g.generate(g.steady(10.0), 600.0, seed=6)
    scaled = scale_trace(trace, factor, seed=7)
    assert len(scaled) == pytest.approx(factor * len(trace), rel=0.05)
    assert scaled[-1].arrival <= trace[-1].arrival


def test_a_trace_scaled_by_one_is_the_trace():
    trace = g.generate(g.steady(10.0), 60.0, seed=6)
    assert scale_trace(trace, 1.0, seed=7) == trace


def test_a_trace_cannot_be_scaled_to_nothing():
    with pytest.raises(ValueError, match="scaled by 0"):
        scale_trace((), 0, seed=1)


def test_a_cut_trace_starts_at_zero():
    trace = tuple(TraceRow(float(t), 1, 1) for t in range(10))
    assert [row.arrival for row in cut_trace(trace, 3.0, 5.0)] == [0.0, 1.0]


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0.1, 5.0), seed=st.integers(0, 100))
def test_every_scaled_trace_is_sorted_and_its_lengths_come_from_the_trace(factor, seed):
    trace = g.generate(g.steady(2.0), 60.0, seed=seed)
    scaled = scale_trace(trace, factor, seed)
    times = [row.arrival for row in scaled]
    assert times == sorted(times)
    known = {(row.prompt_tokens, row.output_tokens) for row in trace}
    assert all((row.prompt_tokens, row.output_tokens) in known for row in scaled)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steady:rate=2,variation=1e-200", "'variation=1e-200' is out of range; variation has to be from 0.01 to 100"),
        ("steady:rate=2,variation=1e200", "variation has to be from 0.01 to 100"),
        ("square:low=2,high=3,half-period=1e-320", "half-period has to be at least 1"),
        ("sinusoid:low=2,high=3,period=0.5", "period has to be at least 1"),
        ("steady:rate=2,seconds=1e9", "seconds has to be from 0 to 31622400"),
    ],
)
def test_a_parameter_that_no_float_can_follow_is_refused(text, words):
    with pytest.raises(g.GeneratorError, match=words):
        g.parse_generator(text, seed=1)


@pytest.mark.parametrize(("prompt", "output"), [(16, 24), (2000, 400)])
def test_lengths_have_the_means_that_were_asked_for(prompt, output):
    trace = g.parse_generator(f"steady:rate=20,seconds=1000,prompt={prompt},output={output}", seed=5)
    assert statistics.fmean(r.prompt_tokens for r in trace) == pytest.approx(prompt, rel=0.05)
    assert statistics.fmean(r.output_tokens for r in trace) == pytest.approx(output, rel=0.1)  # less what is cut
    assert min(min(r.prompt_tokens, r.output_tokens) for r in trace) >= 1


def test_the_usual_lengths_can_be_named_or_left_out():
    named = g.parse_generator("steady:rate=5,seconds=100,prompt=1155,output=211", seed=1)
    assert named == g.parse_generator("steady:rate=5,seconds=100", seed=1)
    assert named == g.generate(g.steady(5.0), 100.0, seed=1)


def test_lengths_of_no_token_or_beyond_any_memory_are_refused():
    with pytest.raises(g.GeneratorError, match=r"'prompt=0\.5' is out of range; prompt has to be from 1 to 50000"):
        g.parse_generator("steady:rate=2,prompt=0.5", seed=1)
    with pytest.raises(g.GeneratorError, match="output has to be from 1 to 50000"):
        g.parse_generator("steady:rate=2,output=1e6", seed=1)


@pytest.mark.parametrize(
    "text",
    [
        "steady:rate=4,seconds=2000",
        "square:low=2,high=6,half-period=7,seconds=2000",
        "flash:base=3,peak=50,at=300,seconds=2000",
        "day:night=1,day=7,period=900,seconds=2000",
    ],
)
@pytest.mark.parametrize("phase", [0.0, 0.4])
def test_how_many_requests_are_to_be_expected_is_about_what_is_drawn(text, phase):
    drawn = len(g.parse_generator(text, seed=1, phase=phase))
    assert g.expect_requests(text, phase) == pytest.approx(drawn, rel=0.04)


@pytest.mark.parametrize(("rate", "expected"), [("1e9", 3e11), ("1e308", float("inf"))])
def test_a_load_that_no_machine_holds_can_be_told_without_drawing_it(rate, expected):
    assert g.expect_requests(f"steady:rate={rate},seconds=300") == pytest.approx(expected)


@pytest.mark.parametrize("phase", [0.0, 0.5])
def test_a_period_without_end_is_a_low_one_for_ever(phase):
    text = "square:low=2,high=3,half-period=1e308,seconds=100"
    assert g.expect_requests(text, phase) == pytest.approx(200.0)
