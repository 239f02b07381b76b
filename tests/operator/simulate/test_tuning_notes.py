"""What is told of how a parameter was tuned."""

from __future__ import annotations

import math

import pytest

from adaptive_operator.simulate.tuning_notes import HeldOut, note_grid, note_held_out, note_tuning


def test_a_flat_grid_is_not_tuned():
    grid = dict.fromkeys((0.15, 0.2, 0.3), 0.3541)
    told = "hpa: not tuned: all 3 values gave .354 on the held-out part; it runs with 0.15"
    assert note_tuning("hpa", grid, 0.15) == (told,)


def test_scores_that_are_shown_as_the_same_are_the_same():
    (note,) = note_grid({0.1: 0.9999, 0.2: 1.0}, 0.2)
    assert note == "not tuned: all 2 values gave 1.000 on the held-out part; it runs with 0.2"


@pytest.mark.parametrize(("chosen", "place"), [(0.03, "first"), (0.8, "last")])
def test_a_best_value_at_the_edge_of_its_grid_is_told(chosen, place):
    grid = {0.03: 0.5, 0.1: 0.5, 0.8: 0.5, chosen: 0.9}
    assert note_tuning("cost-first", grid, chosen) == (
        f"cost-first: the best value {chosen} is the {place} of its grid",
    )


@pytest.mark.parametrize("chosen", [0.1, 0.8])
def test_an_end_of_the_grid_that_is_no_better_than_its_neighbour_is_no_edge(chosen):
    grid = {0.1: 0.9, 0.2: 0.9 - 0.0004, 0.4: 0.5, 0.6: 0.9 - 0.0004, 0.8: 0.9}
    assert note_grid(grid, chosen) == []


def test_an_end_of_the_grid_whose_neighbour_has_no_score_is_told():
    assert note_grid({0.1: 0.9, 0.2: math.nan, 0.4: 0.5}, 0.1) == ["the best value 0.1 is the first of its grid"]


def test_of_a_best_value_within_the_grid_nothing_is_told():
    assert note_tuning("hpa", {0.1: 0.5, 0.2: 0.9, 0.3: 0.8}, 0.2) == ()


def test_a_grid_without_any_score_is_told():
    assert "no value could be scored" in note_grid({0.1: math.nan, 0.2: math.nan}, 0.1)[0]


def test_a_load_that_is_also_judged_on_is_told():
    (note,) = note_held_out(HeldOut(1200.0, 65.0, is_judged=True))
    assert note.startswith("the trace is too short to be cut, so what is held out is what is judged on")


def test_a_load_shorter_than_a_few_starts_is_told():
    (note,) = note_held_out(HeldOut(194.0, 65.0))
    assert note.startswith("the held-out part has 194 s, less than 3 starts of a replica (65 s each)")
    assert note_held_out(HeldOut(195.0, 65.0)) == []
