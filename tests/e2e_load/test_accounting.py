"""sent = ok + failed, per tier, and quantiles that were really measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.load.accounting import (
    account,
    account_by_tier,
    attainment,
    errors,
    latency,
    quantile,
    served_quality_permille,
)
from e2e.load.record import RequestRecord


def record(tier: str = "full", error: str = "", ttft: float = 1.0, tpot: float = 0.1, quality: int | None = 1000):
    return RequestRecord(
        index=0,
        step=0,
        due_at=0.0,
        sent_at=0.0,
        ended_at=ttft + 10 * tpot,
        first_token_at=ttft,
        last_token_at=ttft + 10 * tpot,
        tokens=11,
        tier_served=tier,
        quality_permille=quality,
        error=error,
    )


RECORDS = st.lists(st.builds(record, st.sampled_from(["full", "int4", ""]), st.sampled_from(["", "HTTP 429"])))


@given(RECORDS)
def test_nothing_is_lost_between_total_and_tiers(records: list[RequestRecord]) -> None:
    total, parts = account(records), account_by_tier(records).values()
    assert total.sent == total.ok + total.failed == len(records)
    assert total.sent == sum(part.sent for part in parts)
    assert total.failed == sum(part.failed for part in parts)


def test_a_request_no_tier_accepted_is_listed_as_none() -> None:
    assert account_by_tier([record("", "HTTP 429")])["none"].failed == 1


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_one_of_the_values_and_covers_its_share(values: list[float], q: float) -> None:
    found = quantile(values, q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values) - 1e-9


def test_latency_of_nothing_is_unknown_not_zero() -> None:
    seen = latency([record(error="HTTP 500")])
    assert (seen.ttft_p50_seconds, seen.tpot_p95_seconds) == (None, None)


def test_attainment_needs_both_objectives_and_an_answer() -> None:
    records = [record(), record(ttft=5), record(tpot=1), record(error="HTTP 503")]
    assert attainment(records, 3, 0.3) == pytest.approx(0.25)
    assert attainment([], 3, 0.3) is None


def test_served_quality_is_what_the_answers_said() -> None:
    assert served_quality_permille([record(), record(quality=500), record(quality=None)]) == 750
    assert served_quality_permille([record(quality=None)]) is None


def test_errors_come_commonest_first() -> None:
    assert errors([record(error="a"), record(error="b"), record(error="b"), record()]) == [("b", 2), ("a", 1)]
