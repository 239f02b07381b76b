"""Reservations first, then minimums, then weights: by hand, and for any pool."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.fairness import Party, Row, Want, build_parties, divide, fill_by_weight
from adaptive_operator.observe.observation import PoolShare

ALL = Want(1000)
CASES = {
    "equal weights divide equally": ((Party(("a",)), Party(("b",))), {"a": ALL, "b": ALL}, 8, {"a": 4, "b": 4}),
    "a weight of three gets three times as much": (
        (Party(("a",), weight=3), Party(("b",))),
        {"a": ALL, "b": ALL},
        8,
        {"a": 6, "b": 2},
    ),
    "what one does not want the others have": (
        (Party(("a",)), Party(("b",)), Party(("c",))),
        {"a": Want(1), "b": ALL, "c": ALL},
        9,
        {"a": 1, "b": 4, "c": 4},
    ),
    "a reservation comes before weights": (
        (Party(("a",), reservation=6), Party(("b",), weight=100)),
        {"a": ALL, "b": ALL},
        8,
        {"a": 6, "b": 2},
    ),
    "a reservation that is not wanted is lent": (
        (Party(("a",), reservation=6), Party(("b",))),
        {"a": Want(1), "b": ALL},
        8,
        {"a": 1, "b": 7},
    ),
    "a minimum comes before weights": (
        (Party(("a",)), Party(("b",), weight=100)),
        {"a": Want(1000, minimum=3), "b": ALL},
        8,
        {"a": 3, "b": 5},
    ),
    "a reservation comes before another model's minimum": (
        (Party(("a",), reservation=6), Party(("b",))),
        {"a": ALL, "b": Want(1000, minimum=4)},
        8,
        {"a": 6, "b": 2},
    ),
    "where minimums do not fit all, who holds something comes first": (
        (Party(("a",)), Party(("b",))),
        {"a": Want(2, minimum=2, holds=False), "b": Want(2, minimum=2)},
        3,
        {"a": 1, "b": 2},
    ),
    "models of a namespace share its part": (
        (Party(("n/a", "n/b"), weight=1), Party(("o/c",))),
        {"n/a": ALL, "n/b": ALL, "o/c": ALL},
        8,
        {"n/a": 2, "n/b": 2, "o/c": 4},
    ),
    "what one model of a namespace leaves is its neighbours' first": (
        (Party(("n/a", "n/b"), reservation=4), Party(("o/c",))),
        {"n/a": Want(1), "n/b": ALL, "o/c": ALL},
        6,
        {"n/a": 1, "n/b": 3, "o/c": 2},
    ),
    "reservations that lost nodes cannot keep shrink in proportion": (
        (Party(("a",), reservation=6), Party(("b",), reservation=2)),
        {"a": ALL, "b": ALL},
        4,
        {"a": 3, "b": 1},
    ),
    "a reservation counts towards the weight's part, not on top of it (docs/pools.md)": (
        (Party(("a",), reservation=2), Party(("b",)), Party(("c",), weight=2)),
        {"a": ALL, "b": ALL, "c": ALL},
        8,
        {"a": 2, "b": 2, "c": 4},
    ),
    "docs/pools.md, when c wants one only": (
        (Party(("a",), reservation=2), Party(("b",)), Party(("c",), weight=2)),
        {"a": ALL, "b": ALL, "c": Want(1)},
        8,
        {"a": 4, "b": 3, "c": 1},
    ),
    "no budget, nothing": ((Party(("a",)),), {"a": Want(4, minimum=1)}, 0, {"a": 0}),
}


@pytest.mark.parametrize("name", CASES)
def test_divide(name):
    parties, wants, budget, expected = CASES[name]
    assert divide(parties, wants, budget) == expected


def test_the_share_of_a_model_takes_it_out_of_its_namespaces():
    shares = (PoolShare("n", "", 3, 2), PoolShare("n", "a", 1, 5), PoolShare("gone", "x", 4, 4))
    assert build_parties(shares, ["n/b", "o/d", "n/a", "n/c"]) == (
        Party(("n/a",), 1, 5),
        Party(("n/b", "n/c"), 3, 2),
        Party(("o/d",)),
    )


def test_a_namespace_is_not_taken_for_another_one_that_begins_alike():
    assert build_parties([PoolShare("n", "", 3, 2)], ["n-b/a"]) == (Party(("n-b/a",)),)


@st.composite
def divisions(draw: st.DrawFn) -> tuple[tuple[Party, ...], dict[str, Want], int]:
    """One to six parties of one to three models."""
    parties, wants = [], {}
    for i in range(draw(st.integers(1, 6))):
        members = tuple(f"n{i}/m{j}" for j in range(draw(st.integers(1, 3))))
        parties.append(Party(members, draw(st.integers(0, 8)), draw(st.integers(1, 9))))
        for key in members:
            demand = draw(st.integers(0, 30))
            wants[key] = Want(demand, draw(st.integers(0, 4)), draw(st.booleans()))
    return tuple(parties), wants, draw(st.integers(0, 40))


@settings(max_examples=300, deadline=None)
@given(divisions())
def test_a_division_never_passes_the_budget_nor_what_is_wanted_and_leaves_nothing_that_is_wanted(division):
    parties, wants, budget = division
    parts = divide(parties, wants, budget)
    assert all(0 <= parts[key] <= wants[key].demand for key in wants)
    assert sum(parts.values()) == min(budget, sum(want.demand for want in wants.values()))


@settings(max_examples=300, deadline=None)
@given(divisions())
def test_reservations_are_honoured_as_far_as_they_are_wanted(division):
    parties, wants, budget = division
    parts = divide(parties, wants, budget)
    if sum(party.reservation for party in parties) <= budget:
        for party in parties:
            demand = sum(wants[key].demand for key in party.members)
            assert sum(parts[key] for key in party.members) >= min(party.reservation, demand)


@settings(max_examples=300, deadline=None)
@given(divisions())
def test_who_wants_more_never_has_less_per_weight_than_who_is_above_its_base_up_to_one_accelerator(division):
    """Weighted max-min: nothing can be moved from a richer party to a poorer one that wants it."""
    parties, wants, budget = division
    plain = {key: Want(want.demand) for key, want in wants.items()}
    parts = divide(parties, plain, budget)
    got = {party: sum(parts[key] for key in party.members) for party in parties}
    for poor, rich in itertools.permutations(parties, 2):
        hungry = got[poor] < sum(plain[key].demand for key in poor.members)
        if hungry and got[rich] > rich.reservation:
            assert Fraction(got[poor] + 1, poor.weight) > Fraction(got[rich] - 1, rich.weight)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.integers(1, 50), min_size=1), st.integers(0, 200))
def test_who_all_want_everything_get_their_exact_part_rounded_down_or_up(weights, available):
    parts = fill_by_weight({key: Row(0, 1000, weight) for key, weight in weights.items()}, available)
    total = sum(weights.values())
    assert sum(parts.values()) == available
    assert all(abs(parts[key] - Fraction(available * weights[key], total)) < 1 for key in weights)


@settings(max_examples=200, deadline=None)
@given(divisions(), st.randoms(use_true_random=False))
def test_the_order_of_the_models_changes_nothing(division, random):
    parties, wants, budget = division
    shuffled = list(parties)
    random.shuffle(shuffled)
    keys = list(wants)
    random.shuffle(keys)
    assert divide(shuffled, {key: wants[key] for key in keys}, budget) == divide(parties, wants, budget)
