"""What a step of an exchange takes: answers end, a replica loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from adaptive_operator.decide.dip import drain_seconds, step_and_life
from adaptive_operator.decide.situation import build_situation
from adaptive_operator.observe.observation import TierReadings
from stand_ins.plant import DEMO_SETTINGS, demo_spec, metrics, observe_one, tier

# Answers of 211 tokens, an objective of 35 ms, a scrape every 2 s.
TPOTS = {
    "unknown: the objective's time per token": ({"int8": None}, 38.9),
    "measured below the objective: the slowest tier's": ({"int8": 0.02, "int4": 0.01}, 23.1),
    "measured above it: what keeps the objective counts": ({"int8": 0.2}, 38.9),
}


def seen(measured: Mapping[str, float | None] | None = None, **spec):
    raw = {"slo": {"ttftMilliseconds": 1000, "tpotMilliseconds": 35}, "scaling": {"drainDeadlineSeconds": 120}}
    tiers = {
        name: TierReadings({}, 120.0, None, None, tpot_p95_seconds=tpot) for name, tpot in (measured or {}).items()
    }
    model = observe_one(demo_spec(**(raw | spec)), {"int8": 1}, replace(metrics(1.0), tiers=tiers))
    return build_situation(model, 10_000.0, 0.0, 4, DEMO_SETTINGS)


@pytest.mark.parametrize("name", TPOTS)
def test_the_longest_answer_takes_five_mean_ones_and_is_seen_a_scrape_later(name):
    measured, expected = TPOTS[name]
    assert drain_seconds(seen(measured)) == pytest.approx(expected, rel=0.01)


def test_no_drain_takes_longer_than_its_deadline():
    assert drain_seconds(seen(scaling={"drainDeadlineSeconds": 10})) == 10.0


def test_the_reference_request_of_the_cards_tells_how_long_an_answer_is():
    card = {"referencePromptTokens": 500, "referenceOutputTokens": 40}
    tiers = [tier(i) | {"card": tier(i)["card"] | card} for i in range(3)]
    assert drain_seconds(seen(tiers=tiers)) == pytest.approx(5 * 40 * 0.035 + 2)


def test_a_step_is_a_drain_and_a_load_and_a_plan_lives_for_five_loads_at_least():
    tiers = [tier(i) | {"card": tier(i)["card"] | {"loadSeconds": 100}} for i in range(3)]
    step, life = step_and_life(seen(tiers=tiers))
    assert (step, life) == (pytest.approx(138.9, abs=0.1), 500.0)
