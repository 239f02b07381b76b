from __future__ import annotations

import pytest

from adaptive_operator.decide.curve import LEAST_PROMPT_TOKENS
from adaptive_operator.simulate.profile import read_profile
from benchmarks.http_load import StreamTimes
from benchmarks.step_profile import (
    EngineLimits,
    Pace,
    ProfileRepeat,
    StepProfile,
    build_profile,
    fit_prefill,
    never_falling,
    paces,
    step_of,
    stream_tokens,
)

PREFILLS = {
    "one chunk and several": ([(32, 0.042), (64, 0.074), (128, 0.148), (192, 0.222)], 0.010, 0.001),
    "a step without a part of its own": ([(32, 0.032), (64, 0.064), (128, 0.128)], 0.0, 0.001),
    "scatter that would make that part negative": ([(32, 0.031), (64, 0.0645), (128, 0.129)], 0.0, 0.001006),
}


@pytest.mark.parametrize("name", PREFILLS)
def test_a_prefill_is_fitted_to(name):
    firsts, step, token = PREFILLS[name]
    assert fit_prefill(firsts, 64) == (pytest.approx(step, abs=1e-9), pytest.approx(token, rel=1e-3))


def test_a_step_is_timed_while_all_streams_decode():
    # The second stream begins at 10.3 s, which delays the first, and ends at 10.5 s.
    first = StreamTimes(9.0, 10.0, 10.8, 7, (10.0, 10.1, 10.3, 10.4, 10.5, 10.6, 10.8))
    second = StreamTimes(9.0, 10.3, 10.5, 3, (10.3, 10.4, 10.5))
    assert step_of([first, second]) == pytest.approx(0.1)


def test_a_pause_counts_in_the_mean_of_the_steps():
    stream = StreamTimes(9.0, 10.0, 10.8, 5, (10.0, 10.1, 10.2, 10.7, 10.8))
    assert step_of([stream]) == pytest.approx(0.2)


def test_a_profile_has_the_means_over_its_repeats():
    slow = ProfileRepeat({32: 0.050, 128: 0.170}, {1: 0.010, 8: 0.030})
    fast = ProfileRepeat({32: 0.034, 128: 0.126}, {1: 0.020, 8: 0.020})
    profile = build_profile([slow, fast], step_tokens=64)
    assert (profile.prefill, profile.prefill_per_token) == (pytest.approx(10.0), pytest.approx(1.0))
    assert profile.points == ((1, pytest.approx(15.0)), (8, pytest.approx(25.0)))


def test_a_repeat_whose_steps_took_twice_as_long_as_on_average_went_at_half_the_pace():
    usual, slow = ProfileRepeat({32: 0.1, 128: 0.3}, {1: 0.01}), ProfileRepeat({32: 0.1, 128: 0.3}, {1: 0.05})
    assert paces([usual, usual, usual, slow]) == [Pace(pytest.approx(1.0), pytest.approx(2.0))] * 3 + [
        Pace(pytest.approx(1.0), pytest.approx(0.4))
    ]


def test_a_longer_time_counts_more_for_the_pace():
    first, second = ProfileRepeat({32: 0.05, 128: 0.3}, {1: 0.01}), ProfileRepeat({32: 0.15, 128: 0.3}, {1: 0.01})
    assert [pace.prefill for pace in paces([first, second])] == [pytest.approx(0.4 / 0.35), pytest.approx(0.4 / 0.45)]


@pytest.mark.parametrize("streams", [1, 2, 4, 8])
def test_streams_decode_together_for_a_while_even_where_an_engine_reads_the_fewest_tokens_a_step(streams):
    steps_until_the_last_begins = (streams - 1) * 64 // LEAST_PROMPT_TOKENS
    assert stream_tokens(streams) >= steps_until_the_last_begins + 20


def test_streams_that_never_decode_together_are_no_measurement():
    first, second = StreamTimes(0.0, 1.0, 1.1, 2, (1.0, 1.1)), StreamTimes(0.0, 2.0, 2.1, 2, (2.0, 2.1))
    with pytest.raises(ValueError, match="2 streams never decoded together"):
        step_of([first, second])


def test_a_larger_batch_is_never_faster():
    assert never_falling([(1, 0.3), (2, 0.2), (4, 0.4)]) == [(1, 0.3), (2, 0.3), (4, 0.4)]


def test_what_is_written_is_what_the_simulator_reads(tmp_path):
    profile = StepProfile(4.25, 1.15, ((1, 9.5), (8, 18.5)))
    profile.write(tmp_path / "profile.yaml", "int8", EngineLimits(8, 64, 4096))
    curve = read_profile(tmp_path / "profile.yaml")["int8"]
    assert (curve.prefill(100), curve.step(1), curve.step(8)) == (
        pytest.approx(0.00425 + 0.115),
        pytest.approx(0.0095),
        pytest.approx(0.0185),
    )
    assert (curve.step_tokens, curve.kv_tokens, curve.max_sequences) == (64, 4096, 8)
    # 10 tokens beside 8 sequences and beside one: each is a row as a token is.
    assert curve.mixed(8, 10) == pytest.approx(0.00425 + 0.0115 + 0.0092)
    assert curve.mixed(1, 10) == pytest.approx(0.00425 + 0.0115 + 0.00115)
