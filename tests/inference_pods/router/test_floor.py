"""The purse that keeps the mean of what is really served above the floor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.floor import PURSE_REQUESTS, FloorPurse


def test_without_a_surplus_nothing_below_the_floor_is_allowed():
    assert not FloorPurse().allows(700, 750)
    assert FloorPurse().allows(750, 750)
    assert FloorPurse().allows(None, 750)
    assert FloorPurse().allows(1, 0)


def test_one_full_answer_pays_for_five_that_are_fifty_below():
    purse = FloorPurse()
    purse.record(1000, 750)
    served = 0
    while purse.allows(700, 750):
        purse.record(700, 750)
        served += 1
    assert served == 5


def test_good_times_long_past_pay_for_a_bounded_number_only():
    purse = FloorPurse()
    for _ in range(10_000):
        purse.record(1000, 750)
    served = 0
    while purse.allows(500, 750):
        purse.record(500, 750)
        served += 1
    assert served == PURSE_REQUESTS


@given(st.lists(st.one_of(st.none(), st.integers(0, 1000)), max_size=300), st.integers(0, 1000))
def test_the_mean_of_all_that_was_allowed_is_never_below_the_floor(offers, floor):
    purse = FloorPurse()
    served = []
    for quality in offers:
        if purse.allows(quality, floor):
            purse.record(quality, floor)
            if quality is not None:
                served.append(quality)
        assert sum(served) >= floor * len(served)
