"""The search for the effective capacity, and a case whose answer is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.simulate.capacity import Capacity, _search, effective_capacity, ratio_rows
from adaptive_operator.simulate.comparison import Comparison, ModelLoad
from adaptive_operator.simulate.generators import generate, steady
from adaptive_operator.simulate.run import RunSettings
from tests.operator.simulate.scenes import make_scenario

pytestmark = pytest.mark.slow


@given(st.floats(0.1, 500.0), st.floats(0.1, 10.0))
def test_the_search_ends_within_five_per_cent_below_the_limit(limit, start):
    found = _search(lambda scale: scale <= limit, start)
    assert limit / 1.05 <= found <= limit


def test_a_policy_that_carries_nothing_has_none():
    assert _search(lambda scale: False, 1.0) == 0.0


def quiet(label):
    return lambda part: None


def test_twice_the_replicas_carry_twice_as_much_or_a_little_more():
    trace = generate(steady(2.0), 300.0, seed=1)
    comparison = Comparison((ModelLoad(make_scenario(), trace, trace),), 1.0, 1, RunSettings())
    one, two = (effective_capacity(comparison, f"static:full={n}", quiet) for n in (1, 2))
    assert 1.6 < two.scale / one.scale < 3.0  # larger pools need less slack
    assert one.requests_per_second == pytest.approx(2.0 * one.scale, rel=0.1)
    assert {scale for scale, scores in one.tried.items() if scores.violations <= 0.01} == {
        scale for scale in one.tried if scale <= one.scale
    }


def test_ratios_are_to_the_references_that_were_run():
    rows = ratio_rows([Capacity("ours", 6.0, 12.0, {}), Capacity("hpa", 2.0, 4.0, {})], ["hpa", "full"])
    assert rows == [
        ["policy", "scale", "requests/s", "to hpa"],
        ["ours", "6.00", "12.0", "3.00"],
        ["hpa", "2.00", "4.0", "1.00"],
    ]
