"""What is read out of the status' history: the mixes that were acted on, since when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.plan.history import read_mixes
from adaptive_operator.plan.text import describe_replicas, read_replicas, trim

TIERS = st.from_regex("[a-z]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)


@given(st.dictionaries(TIERS, st.integers(1, 10_000)))
def test_replicas_are_read_as_they_were_told(replicas: dict[str, int]) -> None:
    assert read_replicas(describe_replicas(replicas)) == replicas


@pytest.mark.parametrize("text", ["", "full", "full 1 · ", "full one", "full -1", "full 1 · int4 1…", " 3"])
def test_no_replicas_are_read_of_another_text(text: str) -> None:
    assert read_replicas(text) is None


def test_no_replicas_are_read_of_a_text_that_was_cut_off() -> None:
    told = describe_replicas({f"tier-{index}": 10 for index in range(9)})
    assert read_replicas(told) is not None
    assert [read_replicas(trim(told, length)) for length in range(1, len(told))] == [None] * (len(told) - 1)


def status_of(*entries: dict[str, str]) -> AdaptiveModelStatus:
    whole: dict[str, Any] = {"reason": "Steady", "message": "m", "from": "none", "inputs": ""}
    return AdaptiveModelStatus.model_validate({"history": [whole | entry for entry in entries]})


FIRST = {"time": "2026-01-01T00:00:00Z", "to": "full 1 · int4 1"}
SECOND = {"time": "2026-01-01T00:01:40Z", "to": "int4 3"}
LAST = {"time": "2026-01-01T00:03:20Z", "to": "none"}
READ = {
    "all in order": ((FIRST, SECOND, LAST), [(0, {"full": 1, "int4": 1}), (100, {"int4": 3}), (200, {})]),
    "nothing up to a dry run": ((FIRST, SECOND | {"message": "dry run: m"}, LAST), [(200, {})]),
    "nothing up to a pause": ((FIRST, SECOND | {"reason": "Paused"}, LAST), [(200, {})]),
    "nothing up to what cannot be read": ((FIRST, SECOND | {"to": "int4 3 · nes…"}, LAST), [(200, {})]),
    "nothing up to a time that is none": ((FIRST, SECOND | {"time": "yesterday"}, LAST), [(200, {})]),
    "nothing of a history without entries": ((), []),
}


@pytest.mark.parametrize("name", READ)
def test_the_mixes_that_were_acted_on_are_read_with_their_times(name: str) -> None:
    entries, expected = READ[name]
    found = read_mixes(status_of(*entries))
    assert [(at - 1767225600, replicas) for at, replicas in found] == expected


def test_a_model_without_a_status_has_no_mixes() -> None:
    assert read_mixes(None) == []
