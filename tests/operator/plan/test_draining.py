"""The drain stamps' text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.plan.draining import format_draining, parse_draining

UIDS = st.uuids().map(str)


@given(st.dictionaries(UIDS, st.integers(0, 2**40)))
def test_stamps_survive_the_annotation(stamps: dict[str, int]) -> None:
    assert parse_draining(format_draining(stamps)) == stamps


@pytest.mark.parametrize(
    "text", [None, "", "   ", "uid", "=5", "uid=", "uid=soon", "uid=-1", "uid=NaN", "uid=1e999", "uid=٣"]
)
def test_what_cannot_be_read_is_left_out(text: str | None) -> None:
    assert parse_draining(text) == {}


def test_one_broken_stamp_does_not_hide_the_others() -> None:
    assert parse_draining("a=1, b=x ,c=3") == {"a": 1.0, "c": 3.0}
