"""Curves of tiers: figures of the study, hand-computed cases, and what holds always."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.curve import (
    Curve,
    Objective,
    Request,
    full_batch,
    predicted_tpot_milliseconds,
    saturation_rate,
)

# 8B-like: a step takes 6.973 + 0.027 b ms, a prefill 10 + 0.05 ms per token; the conversation trace's mean request
MEDIUM = Curve(10.0, 0.05, ((0.0, 6.973), (128.0, 6.973 + 0.027 * 128)), 500_000.0, 64)
CONVERSATION = Request(1155.0, 211.0)
LOOSE = Objective(50.0)
NOW = 1_000.0


@pytest.mark.parametrize(
    ("sequences", "rate"),
    [
        pytest.param(32, 8.4, id="batch 32"),
        pytest.param(64, 10.4, id="batch 64"),
        pytest.param(128, 11.8, id="batch 128"),
    ],
)
def test_saturation_is_the_one_of_the_simulated_replica(sequences, rate):
    curve = replace(MEDIUM, max_sequences=sequences)

    assert saturation_rate(curve, CONVERSATION, LOOSE) == pytest.approx(rate, abs=0.06)


def test_the_step_between_measured_batches_is_on_the_line_and_goes_on_beyond_them():
    curve = replace(MEDIUM, decode=((1.0, 29.7), (16.0, 32.8), (32.0, 36.9)))

    assert curve.step_milliseconds(24.0) == pytest.approx((32.8 + 36.9) / 2)
    assert curve.step_milliseconds(16.0) == pytest.approx(32.8)
    assert curve.step_milliseconds(48.0) == pytest.approx(36.9 + 4.1)


@pytest.mark.parametrize(
    ("curve", "objective", "batch"),
    [
        pytest.param(MEDIUM, LOOSE, 64.0, id="as many sequences as the engine takes"),
        pytest.param(MEDIUM, Objective(8.0), (8.0 - 6.973) / 0.027, id="as many as the time per token allows"),
        pytest.param(replace(MEDIUM, kv_tokens=12_000.0), LOOSE, 12_000 / 1260.5, id="as many as memory holds"),
        pytest.param(replace(MEDIUM, kv_tokens=1_000.0), LOOSE, 0.0, id="none when one request does not fit"),
        pytest.param(MEDIUM, Objective(5.0), 0.0, id="none when one sequence alone is too slow"),
    ],
)
def test_the_full_batch_is_bound_by_the_engine_memory_or_the_objective(curve, objective, batch):
    assert full_batch(curve, CONVERSATION, objective) == pytest.approx(batch, rel=1e-6)


def test_the_time_per_token_follows_littles_law():
    # λ 5/s: P 67.75 ms, 210 steps a request; b = 5e-3 · 210 · 6.973 / (1 - 0.33875 - 5e-3 · 210 · 0.027) = 11.57
    batch = 5e-3 * 210 * 6.973 / (1 - 5e-3 * 67.75 - 5e-3 * 210 * 0.027)
    expected = (6.973 + 0.027 * batch) / (1 - 5e-3 * 67.75)

    assert predicted_tpot_milliseconds(MEDIUM, CONVERSATION, 5.0) == pytest.approx(expected, rel=1e-9)


def test_beyond_saturation_the_time_per_token_has_no_end():
    assert predicted_tpot_milliseconds(MEDIUM, CONVERSATION, 10.3) < 40.0
    assert predicted_tpot_milliseconds(MEDIUM, CONVERSATION, 10.5) == math.inf
    assert predicted_tpot_milliseconds(MEDIUM, CONVERSATION, 20.0) == math.inf


curves = st.builds(
    lambda base, slope, gamma, delta, most: Curve(
        gamma, delta, ((0.0, base), (64.0, base + 64 * slope)), 400_000.0, most
    ),
    base=st.floats(1.0, 60.0),
    slope=st.floats(0.0, 1.0),
    gamma=st.floats(0.0, 100.0),
    delta=st.floats(0.0, 0.4),
    most=st.integers(1, 256),
)


@given(curve=curves, share=st.floats(0.01, 0.99))
def test_the_time_per_token_rises_with_the_rate(curve, share):
    most = saturation_rate(curve, CONVERSATION, Objective(1e6))
    slow, fast = (predicted_tpot_milliseconds(curve, CONVERSATION, most * part) for part in (share * 0.9, share))

    assert slow <= fast + 1e-9
