from __future__ import annotations

import pytest

from adaptive_operator.simulate.profile import read_profile
from benchmarks.http_load import StreamTimes
from benchmarks.step_profile import EngineLimits, StepProfile, fit_prefill, never_falling, step_of

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
