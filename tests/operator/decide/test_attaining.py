"""The rate that keeps both objectives: hand-computed cases, and what holds always."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.attaining import MOST_PART, attaining_rate
from adaptive_operator.decide.curve import Curve, Objective, Request, predicted_tpot_milliseconds, saturation_rate

# The full tier of examples/emulated.yaml: 28.4 + 0.35 b ms a step, 0.107 ms per token of a prompt
FULL = Curve(0.0, 0.107, ((0.0, 28.4), (16.0, 34.0)), 65_536.0, 16, 256.0)
SHORT = Request(128.0, 64.0)
USUAL = Objective(60.0, 2000.0)


def test_with_time_to_spare_it_is_most_of_the_saturation():
    # 1000 / (128 · .107 + 63 · 34 / 16) = 6.78/s
    assert attaining_rate(FULL, SHORT, Objective(1000.0, 60_000.0)) == pytest.approx(MOST_PART * 6.782, rel=1e-3)


@pytest.mark.parametrize(
    "objective",
    [
        pytest.param(Objective(28.0, 2000.0), id="one sequence alone decodes too slowly"),
        pytest.param(Objective(60.0, 45.0), id="its own prompt alone takes longer than the first token may"),
    ],
)
def test_a_curve_that_never_keeps_the_objective_has_no_rate(objective):
    assert attaining_rate(FULL, SHORT, objective) == 0.0


def test_a_request_that_does_not_fit_the_kv_cache_has_no_rate():
    assert attaining_rate(replace(FULL, kv_tokens=150.0), SHORT, USUAL) == 0.0


@pytest.mark.parametrize(
    ("curve", "request_", "objective"),
    [
        pytest.param(FULL, SHORT, Objective(60.0, 2000.0, 99.0), id="more requests have to keep it"),
        pytest.param(FULL, SHORT, Objective(60.0, 500.0), id="the first token has less time"),
        pytest.param(FULL, SHORT, Objective(36.0, 2000.0), id="a token has less time"),
        pytest.param(FULL, Request(512.0, 64.0), USUAL, id="prompts are longer"),
        pytest.param(FULL, Request(128.0, 256.0), USUAL, id="answers are longer"),
        pytest.param(replace(FULL, max_sequences=8), SHORT, USUAL, id="fewer sequences decode together"),
        pytest.param(replace(FULL, step_tokens=20.0), SHORT, USUAL, id="a step has less room for prompts"),
        pytest.param(replace(FULL, kv_tokens=1000.0), SHORT, USUAL, id="fewer sequences fit the KV cache"),
    ],
)
def test_it_is_lower_when(curve, request_, objective):
    assert 0 < attaining_rate(curve, request_, objective) < 0.98 * attaining_rate(FULL, SHORT, USUAL)


def test_all_requests_are_taken_for_999_of_1000():
    assert attaining_rate(FULL, SHORT, Objective(60.0, 2000.0, 100.0)) == pytest.approx(
        attaining_rate(FULL, SHORT, Objective(60.0, 2000.0, 99.9))
    )


def test_answers_of_one_token_from_prompts_that_cost_nothing_have_a_rate_all_the_same():
    free = replace(FULL, prefill_milliseconds_per_token=0.0)

    assert 0 < attaining_rate(free, Request(1.0, 1.0), USUAL) <= 1000 / (34 / 16)


curves = st.builds(
    lambda base, slope, delta, most, room: Curve(
        0.0, delta, ((0.0, base), (64.0, base + 64 * slope)), 65_536.0, most, float(most + room)
    ),
    base=st.floats(1.0, 60.0),
    slope=st.floats(0.0, 1.0),
    delta=st.floats(0.0, 0.4),
    most=st.integers(1, 128),
    room=st.integers(0, 2048),
)
requests = st.builds(Request, st.floats(1.0, 4000.0), st.floats(2.0, 1000.0))
objectives = st.builds(Objective, st.floats(2.0, 300.0), st.floats(10.0, 20_000.0), st.floats(50.0, 100.0))


@given(curve=curves, request_=requests, objective=objectives)
def test_it_never_passes_saturation_and_keeps_the_time_per_token(curve, request_, objective):
    rate = attaining_rate(curve, request_, objective)

    assert 0 <= rate <= MOST_PART * saturation_rate(curve, request_, objective)
    if rate:
        assert predicted_tpot_milliseconds(curve, request_, rate) <= objective.tpot_milliseconds * (1 + 1e-9)


@given(curve=curves, request_=requests, objective=objectives, more=st.floats(1.0, 3.0))
def test_more_time_to_the_first_token_never_lowers_it(curve, request_, objective, more):
    longer = replace(objective, ttft_milliseconds=objective.ttft_milliseconds * more)

    assert attaining_rate(curve, request_, longer) >= attaining_rate(curve, request_, objective) * (1 - 1e-9)
