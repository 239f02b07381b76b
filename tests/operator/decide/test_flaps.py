"""A flap by hand: there and back, how soon, and for how long a mix has to live not to be one."""

from __future__ import annotations

import pytest

from adaptive_operator.decide.flaps import count_flaps, flap_seconds, follow, recall

A, B, C = {"full": 2}, {"int4": 4}, {"int8": 3}
FLAPS = {
    "there and back soon": ([(0, A), (100, B), (350, A)], 1),
    "there and back late": ([(0, A), (100, B), (400, A)], 0),
    "twice": ([(0, A), (100, B), (200, A), (300, B)], 2),
    "on to a third": ([(0, A), (100, B), (200, C)], 0),
    "the same again and again, with tiers that have none": (
        [(0, A), (50, {**A, "int4": 0}), (100, B), (399, B), (399, A)],
        1,
    ),
    "nothing": ([], 0),
}


@pytest.mark.parametrize("name", FLAPS)
def test_a_flap_is_a_mix_that_comes_back_after_a_short_lived_other(name):
    changes, expected = FLAPS[name]
    assert count_flaps(changes, 300.0) == expected


@pytest.mark.parametrize(
    ("loads", "expected"),
    [((), 300.0), ((20.0, 60.0), 300.0), ((20.0, 155.0), 775.0)],
    ids=["no tier", "tiers that load fast", "five times the slowest load"],
)
def test_a_mix_has_to_live_for_five_loads_and_five_minutes(loads, expected):
    assert flap_seconds(loads) == expected


@pytest.mark.parametrize("name", FLAPS)
@pytest.mark.parametrize("known", range(6))
def test_who_recalls_the_mixes_of_before_finds_the_flaps_that_follow(name, known):
    changes, _ = FLAPS[name]
    mixes, found = recall(changes[:known]), 0
    for at, replicas in changes[known:]:
        mixes, is_flap = follow(mixes, replicas, at, 300.0)
        found += is_flap
    assert found == count_flaps(changes, 300.0) - count_flaps(changes[:known], 300.0)
