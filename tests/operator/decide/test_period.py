"""How often a pool is planned, of what its models ask for."""

from __future__ import annotations

import pytest

from adaptive_operator.decide.period import planner_period

CASES = {  # what the models ask for, is a swap in flight, seconds that the last pass took -> period; the operator's: 15
    "nobody asks": ([None], False, 0.0, 15.0),
    "no model": ([], False, 0.0, 15.0),
    "one asks for less": ([5], False, 0.0, 5.0),
    "one alone asks for more": ([3600], False, 0.0, 3600.0),
    "one that asks for nothing counts with the operator's": ([None, 3600], False, 0.0, 15.0),
    "the shortest counts": ([None, 5, 3600], False, 0.0, 5.0),
    "a swap is watched as often as the operator plans": ([3600], True, 0.0, 15.0),
    "a swap makes no period longer": ([5], True, 0.0, 5.0),
    "passes take half of the time at most": ([1, None], False, 3.0, 6.0),
    "quick passes leave what is asked for": ([1], False, 0.4, 1.0),
    "slow passes never make it longer than the operator's": ([1], False, 40.0, 15.0),
    "slow passes make no long period shorter": ([3600], False, 40.0, 3600.0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_period_of_a_pool(name: str) -> None:
    asked, in_flight, took, period = CASES[name]
    assert planner_period(asked, 15.0, in_flight=in_flight, took=took) == period
