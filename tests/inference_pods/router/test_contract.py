"""Request headers, read and refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.contract import ContractError, parse_contract


def test_without_headers_everything_is_free_and_an_id_is_given():
    first, second = parse_contract({}), parse_contract({})
    assert (first.tier, first.quality_min, first.deadline_seconds) == (None, None, None)
    assert first.request_id != second.request_id


def test_headers_are_typed():
    contract = parse_contract(
        {"x-tier": "int8", "x-quality-min": "900", "x-deadline-ms": "1500", "x-request-id": "a.b:c_d-1"}
    )
    assert (contract.tier, contract.quality_min, contract.deadline_seconds) == ("int8", 900, 1.5)
    assert contract.request_id == "a.b:c_d-1"


@given(st.sampled_from(["x-tier", "x-quality-min", "x-deadline-ms", "x-request-id"]), st.text(max_size=140))
def test_any_text_is_either_understood_or_refused_and_nothing_else(name, text):
    with suppress(ContractError):
        parse_contract({name: text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x-tier", ""),
        ("x-tier", "Full"),
        ("x-quality-min", "٣"),
        ("x-quality-min", "1e2"),
        ("x-deadline-ms", "9" * 12),
        ("x-request-id", ""),
        ("x-request-id", "a\tb"),
        ("x-request-id", "x" * 129),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_header(name, text):
    with pytest.raises(ContractError, match=f"^{name}"):
        parse_contract({name: text})
