"""What serves while replicas are exchanged: the steps of the choreography, foreseen."""

from __future__ import annotations

import pytest

from adaptive_operator.decide.damping import moments, survivors
from adaptive_operator.decide.situation import Situation, build_situation
from stand_ins.plant import DEMO_SETTINGS, DEMO_TIERS, demo_spec, metrics, observe_one, tier

NOW = 10_000.0
# One accelerator each; int4 serves most, full least.
SMALL = [
    tier(i, replica={**item["replica"], "accelerators": 1})
    | {"card": item["card"] | {"capacityMilliRequestsPerSecond": 700 * (i + 1)}}
    for i, item in enumerate(DEMO_TIERS)
]


def situation(mix, budget=4, **spec) -> Situation:
    return build_situation(observe_one(demo_spec(**spec), mix, metrics(0.5)), NOW, 0.0, budget, DEMO_SETTINGS)


CHANGES = {
    # tiers, what runs, target, budget -> what serves in each step
    "one replica after the other is exchanged": (
        SMALL,
        {"int8": 3, "int4": 1},
        {"int4": 3, "int8": 1},
        4,
        [{"int8": 2, "int4": 1}, {"int8": 1, "int4": 2}, {"int8": 1, "int4": 3}],
    ),
    "what serves least goes first": (
        SMALL,
        {"full": 1, "int8": 2, "int4": 1},
        {"int4": 3, "int8": 1},
        4,
        [{"int8": 2, "int4": 1}, {"int8": 1, "int4": 2}, {"int8": 1, "int4": 3}],
    ),
    "what there is room for starts first, and is ready before anything is drained": (
        DEMO_TIERS,
        {"full": 1, "int4": 1},
        {"int8": 3, "int4": 1},
        4,
        [{"full": 1, "int4": 1}, {"int8": 1, "int4": 1}, {"int8": 3, "int4": 1}],
    ),
    "two small ones make room for one large": (
        DEMO_TIERS,
        {"int8": 3, "int4": 1},
        {"full": 1, "int4": 1},
        4,
        [{"int8": 1, "int4": 1}, {"full": 1, "int4": 1}],
    ),
    "a smaller mix is there at once": (DEMO_TIERS, {"int8": 3, "int4": 1}, {"int8": 1, "int4": 1}, 4, None),
    "with room for all, nothing is drained before": (
        SMALL,
        {"int8": 2},
        {"int4": 2},
        4,
        [{"int8": 2}, {"int4": 2}],
    ),
    "what cannot be made room for is not waited for": (
        DEMO_TIERS,
        {"int4": 1},
        {"full": 1, "int4": 1},
        2,
        [{"int4": 1}],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_serves_in_each_step_when(name):
    tiers, present, target, budget, expected = CHANGES[name]
    found = moments(situation(present, budget, tiers=tiers), target, budget)
    assert [{t: n for t, n in mix.items() if n} for mix in found] == (expected or [target])


def test_survivors_are_those_of_the_step_that_serves_least():
    seen = situation({"full": 1, "int8": 3}, tiers=SMALL)
    assert survivors(seen, {"int4": 4}, 4) == {"full": 0, "int8": 3, "int4": 0}


def test_many_replicas_are_looked_at_in_a_few_steps_and_rather_too_few_survive():
    seen = situation({"int8": 1000}, 1000, tiers=SMALL, accelerators={})
    found = moments(seen, {"int4": 1000}, 1000)
    assert len(found) < 100
    assert found[0]["int8"] <= 999
    assert found[-1] == {"full": 0, "int8": 0, "int4": 1000}
