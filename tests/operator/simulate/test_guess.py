"""Curves that are guessed from cards: a replica keeps the objective at its card's rate, however slow the card is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from adaptive_operator.simulate.curve import Lengths, saturation
from adaptive_operator.simulate.scenario import build_scenario, load_scenario, load_scenarios
from tests.operator.simulate.queues import serve
from tests.operator.simulate.scenes import curves_of, make_spec

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = ("smollm2", "pool", "planned-pool", "two-models", "nested", "emulated", "simulate/uniform")
STREAM = 800


def guessed(**more):
    return build_scenario("assistant", make_spec(**more), 4)


def attained(scenario, tier, rate):
    """Percent of a Poisson stream of reference requests that one replica answers within the objectives."""
    card = scenario.spec.tiers[0].card
    lengths = (card.reference_prompt_tokens or 1155, card.reference_output_tokens or 211)
    rng, now, rows = random.Random(1), 0.0, []
    for _ in range(STREAM):
        now += rng.expovariate(rate)
        rows.append((now, *lengths))
    good = [r.ttft <= scenario.ttft_seconds and r.tpot <= scenario.tpot_seconds for r in serve(tier.curve, rows)]
    return 100 * sum(good) / STREAM


@pytest.mark.parametrize("name", NAMES)
def test_a_guess_keeps_the_objective_of_an_example_at_its_cards_rate(name):
    for scenario in load_scenarios(EXAMPLES / f"{name}.yaml"):
        for tier in scenario.tiers:
            assert attained(scenario, tier, tier.rate) >= scenario.spec.slo.attainment_percent, tier.name


@pytest.mark.parametrize("rate", [0.01, 1.0, 40.0])
@pytest.mark.parametrize("slo", [(2000, 100, 95), (1000, 35, 99), (3000, 300, 90)])
def test_a_guess_keeps_its_card_whatever_rate_and_objective_it_has(rate, slo):
    ttft, tpot, percent = slo
    objective = {"ttftMilliseconds": ttft, "tpotMilliseconds": tpot, "attainmentPercent": percent}
    scenario = guessed(tiers=(("full", "bf16", 1000, rate, 1),), slo=objective)
    assert attained(scenario, scenario.tiers[0], rate) >= percent


def test_a_guess_is_no_faster_than_its_card_asks_for():
    scenario = load_scenario(EXAMPLES / "smollm2.yaml")
    for tier in scenario.tiers:
        assert saturation(tier.curve, Lengths(16, 24)) < 2 * tier.rate
        assert attained(scenario, tier, 1.5 * tier.rate) < scenario.spec.slo.attainment_percent


def test_what_was_guessed_is_told_of_every_tier_and_level():
    (told,) = load_scenario(EXAMPLES / "nested.yaml").guesses
    assert told.startswith("nested: step times were guessed from the cards")
    assert "requests of 16 + 24 tokens: full 0.8 requests/s, " in told
    for part in ("; nested 0.65 requests/s, ", "; nested/int4 0.9 requests/s, ", "give --profile for measured ones"):
        assert part in told


def test_nothing_is_told_where_curves_were_given():
    spec = make_spec()
    assert build_scenario("assistant", spec, 4, curves_of(spec)).guesses == ()


def test_an_objective_that_asks_for_far_more_than_the_card_is_told():
    _, told = guessed(tiers=(("full", "bf16", 1000, 0.01, 1),)).guesses
    assert "no curve of this shape keeps slo and carries as little as the cards say: at saturation full " in told
    assert " instead of 0.01 requests/s" in told


def test_a_lower_level_that_is_slower_by_its_card_has_places_for_the_whole_batch():
    scenario = load_scenario(EXAMPLES / "nested.yaml")
    nested = scenario.spec.tiers[1]
    top, lower = nested.card.levels
    slower = lower.model_copy(update={"capacity_milli_requests_per_second": 300})
    card = nested.card.model_copy(update={"levels": (top, slower)})
    tiers = (scenario.spec.tiers[0], nested.model_copy(update={"card": card}))
    built = build_scenario("nested", scenario.spec.model_copy(update={"tiers": tiers}), 3).tier("nested")
    assert all(level.curve.max_sequences >= built.curve.max_sequences for level in built.levels)
