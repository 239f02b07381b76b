"""Curves of tiers and their correction: figures of the study, hand-computed cases, and what holds always."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adaptive_operator.decide.correction import Correction, TierSample, correct, is_stale, warm_replicas
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


def sample(tpot: float, **more) -> TierSample:
    given = {"requests": 200, "rate": 5.0, "request": CONVERSATION, "ready_since": (0.0, 500.0)}
    return TierSample(tpot_milliseconds=tpot, **{**given, **more})


PREDICTED = predicted_tpot_milliseconds(MEDIUM, CONVERSATION, 5.0)


def test_a_tier_slower_than_its_card_is_corrected_by_63_per_cent_in_five_minutes():
    after = correct(Correction(1.0, NOW - 300), MEDIUM, LOOSE, sample(PREDICTED / 0.8), NOW)

    assert after.factor == pytest.approx(1 - 0.2 * (1 - math.exp(-1)))
    assert after.updated_at == NOW


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"requests": 49}, id="too few requests"),
        pytest.param({"rate": 1.0}, id="hardly used"),
        pytest.param({"rate": 10.2}, id="almost saturated"),
        pytest.param({"ready_since": (0.0, NOW - 119)}, id="a replica is cold"),
        pytest.param({"starting": True}, id="a replica is starting"),
        pytest.param({"ready_since": ()}, id="nothing serves"),
    ],
)
def test_a_sample_that_does_not_count_changes_nothing(more):
    before = Correction(0.9, 10.0)

    assert correct(before, MEDIUM, LOOSE, sample(30.0, **more), NOW) == before


def test_readings_that_are_no_times_change_nothing():
    for tpot in (0.0, -1.0, math.nan, math.inf):
        assert correct(Correction(), MEDIUM, LOOSE, sample(tpot), NOW) == Correction()


def test_a_card_that_stays_at_a_bound_for_ten_minutes_is_stale():
    state = Correction()
    for minute in range(12):
        now = NOW + 60.0 * minute
        state = correct(state, MEDIUM, LOOSE, sample(3 * PREDICTED), now)
        assert is_stale(state, now) == (minute >= 10)
    assert state.factor == pytest.approx(0.6, abs=0.05)
    recovered = correct(state, MEDIUM, LOOSE, sample(PREDICTED), NOW + 720)
    assert not is_stale(recovered, NOW + 720)


def test_one_sample_at_a_bound_and_then_silence_is_no_staleness():
    state = correct(Correction(), MEDIUM, LOOSE, sample(3 * PREDICTED), NOW)
    assert not is_stale(state, NOW + 3600)


BIG = Curve(
    25.0, 0.15, ((1.0, 22.9), (64.0, 22.9 + 0.2 * 63)), 300_000.0, 64
)  # its steps at the full batch are as long as the objective allows


@pytest.mark.parametrize("tpot", [24.0, 28.0, 35.0, 60.0, 200.0])
@pytest.mark.parametrize("replicas", [1, 4, 8])
def test_the_rate_keeps_the_objective_that_it_was_asked_for(tpot, replicas):
    rate = attaining_rate(BIG, CONVERSATION, Objective(tpot, 99.0), replicas)
    assert rate > 0
    assert predicted_tpot_milliseconds(BIG, CONVERSATION, rate) <= tpot * (1 + 1e-9)


def test_cold_replicas_are_not_counted_as_warm():
    assert warm_replicas((0.0, NOW - 120, NOW - 119), NOW) == 2


@given(times=st.lists(st.floats(0.1, 1e5), max_size=40), gaps=st.floats(1.0, 900.0))
def test_the_factor_never_leaves_its_bounds(times, gaps):
    state = Correction()
    for i, tpot in enumerate(times):
        state = correct(state, MEDIUM, LOOSE, sample(tpot), NOW + i * gaps)
    assert 0.6 <= state.factor <= 1.2


@given(ratio=st.floats(0.6, 1.2))
def test_the_factor_converges_to_what_is_observed(ratio):
    assume(0.6 < ratio < 1.2)
    state = Correction()
    for i in range(200):
        state = correct(state, MEDIUM, LOOSE, sample(PREDICTED / ratio), NOW + 60.0 * i)
    assert state.factor == pytest.approx(ratio, abs=1e-3)
