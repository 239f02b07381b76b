"""What the benchmark of dividing a pool counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.bench_pool import Score
from stand_ins.plant import Model, Plant, demo_spec

A, B = {"full": 1, "int4": 1}, {"full": 0, "int4": 3}
SEEN = {
    # mixes that are decided on, 100 s apart; seconds a replica loads -> changes, flaps
    "there and back": ((A, B, A, A), 20.0, (2, 1)),
    "there and back after 300 s": ((A, B, B, B, A), 20.0, (2, 0)),
    "there and back after less than five loads": ((A, B, B, B, A), 70.0, (2, 1)),
    "there to stay": ((A, {**A, "int8": 0}, B), 20.0, (1, 0)),
}


@pytest.mark.parametrize("name", SEEN)
def test_changes_and_flaps_are_those_of_the_operator(name):
    mixes, load_seconds, expected = SEEN[name]
    model = Model("a", demo_spec(), lambda _: 0.4)
    plant, score = Plant([model], load_seconds=load_seconds), Score()
    (decision,) = plant.step()
    for mix in mixes:
        model.decisions.append((plant.now, replace(decision, replicas=mix)))
        score.note(plant)
        plant.now += 100.0
    assert (score.changes, score.flaps) == expected
