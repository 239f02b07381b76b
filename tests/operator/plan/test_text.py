"""Texts fit where they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.plan.text import join_fitting

JOINED = {
    "all fits": (["a", "b: c"], 9, "a | b: c"),
    "to the byte": (["a", "b: c"], 8, "a | b: c"),
    "what does not fit is cut": (["a", "b: c"], 7, "a | …"),
    "an empty part is none": (["a", "", "b"], 9, "a | b"),
    "no letter is cut in two": (["··", "b"], 6, "·…"),
}


@pytest.mark.parametrize("name", JOINED)
def test_parts_are_joined_as_far_as_they_fit_when(name: str) -> None:
    parts, size, text = JOINED[name]
    assert join_fitting(parts, size) == text


@given(parts=st.lists(st.text(st.characters(exclude_categories=["Cs"]))), size=st.integers(3, 60))
def test_whatever_is_joined_fits_and_begins_as_its_parts_do(parts: list[str], size: int) -> None:
    text, whole = join_fitting(parts, size), " | ".join(part for part in parts if part)
    assert len(text.encode()) <= size
    assert text == whole or whole.startswith(text.removesuffix("…"))
