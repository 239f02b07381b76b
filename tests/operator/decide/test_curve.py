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
    attained_share,
    attaining_rate,
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


def test_a_tier_that_cannot_keep_the_objective_serves_nothing():
    assert attaining_rate(MEDIUM, CONVERSATION, Objective(5.0)) == 0.0


@pytest.mark.parametrize(
    ("slack", "replicas", "percent", "share"),
    [
        pytest.param(2.8, 1, 95.0, 0.60, id="one replica, tight"),
        pytest.param(4.0, 4, 99.0, 0.85, id="four replicas, 99 %"),
        pytest.param(4.0, 3, 95.0, 0.9275, id="three replicas lie between two and four", marks=()),
        pytest.param(9.0, 64, 95.0, 0.95, id="never more than 0.95"),
        pytest.param(1.1, 1, 99.0, 0.41, id="tighter than simulated"),
        pytest.param(2.8, 1, 97.0, 0.505, id="97 % lie between 95 % and 99 %"),
    ],
)
def test_the_usable_share_of_saturation_is_that_of_the_table(slack, replicas, percent, share):
    assert attained_share(slack, replicas, percent) == pytest.approx(share, abs=0.003)


def test_a_replica_among_eight_may_be_used_more_than_one_alone():
    tight = Objective(24.0)

    assert attaining_rate(MEDIUM, CONVERSATION, tight, 8) > attaining_rate(MEDIUM, CONVERSATION, tight, 1)


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


@given(curve=curves, tpot=st.floats(2.0, 200.0), replicas=st.integers(1, 64), percent=st.floats(90.0, 100.0))
def test_the_attaining_rate_never_passes_saturation(curve, tpot, replicas, percent):
    objective = Objective(tpot, percent)
    rate = attaining_rate(curve, CONVERSATION, objective, replicas)

    assert 0 <= rate <= 0.95 * saturation_rate(curve, CONVERSATION, objective)


BIG = Curve(
    25.0, 0.15, ((1.0, 22.9), (64.0, 22.9 + 0.2 * 63)), 300_000.0, 64
)  # its steps at the full batch are as long as the objective allows


@pytest.mark.parametrize("tpot", [24.0, 28.0, 35.0, 60.0, 200.0])
@pytest.mark.parametrize("replicas", [1, 4, 8])
def test_the_rate_keeps_the_objective_that_it_was_asked_for(tpot, replicas):
    rate = attaining_rate(BIG, CONVERSATION, Objective(tpot, 99.0), replicas)
    assert rate > 0
    assert predicted_tpot_milliseconds(BIG, CONVERSATION, rate) <= tpot * (1 + 1e-9)
