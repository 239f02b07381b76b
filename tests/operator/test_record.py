"""A record is what was decided on: it comes back equal, and is decided again to the same end."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.record import RecordError, build_record, decode_record, encode_record
from tests.operator.decide.plant import DEMO_SETTINGS, Model, Plant, demo_spec


def two_models(high: float, seconds: int) -> Plant:
    """A plant in the midst of things."""
    names = ("a", "b")
    models = [Model(n, demo_spec(), lambda now: high if now > 10_100 else 0.3) for n in names]
    plant = Plant(models, budget=6)
    plant.run(seconds)
    return plant


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(high=st.floats(0.1, 4.0), seconds=st.integers(0, 400))
def test_any_record_comes_back_equal_and_is_decided_again_to_the_same_end(high, seconds):
    plant = two_models(high, seconds)
    observation = plant.observe()
    decisions = decide_pool(observation, DEMO_SETTINGS).decisions
    record = build_record(observation, DEMO_SETTINGS, decisions)
    line = encode_record(record)
    assert "\n" not in line
    back = decode_record(line)
    assert back == record
    assert decide_pool(back.observation, back.settings).decisions == decisions


BAD = {
    "not json": ("{", "Invalid JSON"),
    "a field is missing": ('{"format":1}', "observation: Field required"),
    "another format": (None, "format is 2, this version reads 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_names_what_is_wrong(name):
    line, words = BAD[name]
    if line is None:
        observation = two_models(0.3, 0).observe()
        line = encode_record(build_record(observation, DEMO_SETTINGS, ())).replace('"format":1', '"format":2', 1)
    with pytest.raises(RecordError, match=words):
        decode_record(line)
