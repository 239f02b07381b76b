"""A record is what was decided on: it comes back equal, and is decided again to the same end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.reasons import Reason
from adaptive_operator.record import RecordError, build_record, decode_record, encode_record
from stand_ins.plant import DEMO_SETTINGS, Model, Plant, demo_spec


def two_models(high: float, seconds: int) -> Plant:
    """A plant in the midst of things."""
    names = ("a", "b")
    models = [Model(n, demo_spec(), lambda now: high if now > 10_100 else 0.3) for n in names]
    plant = Plant(models, budget=6)
    plant.run(seconds)
    return plant


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(high=st.floats(0.1, 4.0), seconds=st.integers(0, 250))
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
    "not a record": ("[]", "^Input should be an object"),
    "no format": ("{}", "format: Field required"),
    "a field is missing": ('{"format":2}', "observation: Field required"),
    "a later format, whatever it has": ('{"format":8}', "format is 8, this version reads 1 to 7: replay it with"),
    "no format that there ever was": ('{"format":0}', "format is 0, this version reads 1 to 7"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_names_what_is_wrong(name):
    line, words = BAD[name]
    with pytest.raises(RecordError, match=words):
        decode_record(line)


def test_a_record_of_the_first_format_is_read_with_the_names_that_its_reasons_have_now():
    """Written by the version that still said FloorLimited."""
    line = (Path(__file__).parent / "records" / "format-1.jsonl").read_text()
    record = decode_record(line)
    [told] = record.decisions
    assert told.reason is Reason.QUALITY_FLOOR_INFEASIBLE
    assert [finding.reason for finding in told.findings] == [Reason.QUALITY_FLOOR_INFEASIBLE]
    [again] = decide_pool(record.observation, record.settings).decisions
    assert (again.reason, again.replicas) == (told.reason, told.replicas)
    assert decode_record(encode_record(record)) == record
