"""examples/emulated.yaml: the curves carry what the cards declare, and what the linear batch model predicts of them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from inference_pods.engine.emulated.curve import Curve
from inference_pods.engine.sequence import GenerationRequest

pytestmark = pytest.mark.slow

EXAMPLE = yaml.safe_load((Path(__file__).parents[4] / "examples" / "emulated.yaml").read_text())["spec"]
TIERS = {tier["name"]: tier for tier in EXAMPLE["tiers"]}
REQUESTS = 400


def read_curve(tier) -> Curve:
    given = tier["curve"]
    return Curve(
        given["stepMicroseconds"], given["decodeMicrosecondsPerSequence"], given["prefillMicrosecondsPerToken"]
    )


@pytest.fixture
def serve_at(build_emulated, clock):
    """(tier, requests per second, seed) -> seconds in all, and (time to first token, time per token) by request."""

    def simulate(tier, rate, seed=1, **scheduler_options):
        given, card, draw = tier["curve"], tier["card"], random.Random(seed)
        core = build_emulated(
            read_curve(tier), batch=given["maxSequences"], step_tokens=given["maxTokensPerStep"], **scheduler_options
        )
        began, at, due = clock.now, clock.now, []
        for _ in range(REQUESTS):
            at += draw.expovariate(rate)
            due.append(at)
        first, last = {}, {}
        waiting = list(enumerate(due))
        while waiting or not core.scheduler.is_idle:
            if core.scheduler.is_idle:
                clock.now = max(clock.now, waiting[0][1])
            while waiting and waiting[0][1] <= clock.now:
                prompt = tuple(draw.randrange(256) for _ in range(card["referencePromptTokens"]))
                core.add(waiting.pop(0)[0], GenerationRequest(prompt, card["referenceOutputTokens"]))
            for event in core.step().events:
                first.setdefault(event.request_id, clock.now)
                last[event.request_id] = clock.now
        steps = card["referenceOutputTokens"] - 1
        return clock.now - began, [(first[i] - due[i], (last[i] - first[i]) / steps) for i in range(REQUESTS)]

    return simulate


@pytest.mark.parametrize("name", TIERS)
def test_a_saturated_replica_answers_as_many_requests_as_the_batch_model_says(serve_at, name):
    """Engine time of a request: its prompt's, and for each output token its share of the step and its own time."""
    tier, curve = TIERS[name], read_curve(TIERS[name])
    batch, card = tier["curve"]["maxSequences"], tier["card"]
    prompt = card["referencePromptTokens"] * curve.prefill_microseconds_per_token
    per_token = curve.step_microseconds / batch + curve.decode_microseconds_per_sequence
    predicted = 1e6 / (prompt + (card["referenceOutputTokens"] - 1) * per_token)
    seconds, _ = serve_at(tier, rate=1e6)
    assert REQUESTS / seconds == pytest.approx(predicted, rel=0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", TIERS)
def test_a_replica_attains_the_objective_at_the_capacity_of_its_card(serve_at, name, seed):
    slo, card = EXAMPLE["slo"], TIERS[name]["card"]
    rate = card["capacityMilliRequestsPerSecond"] / 1000
    _, answers = serve_at(TIERS[name], rate, seed, tpot_seconds=slo["tpotMilliseconds"] / 1000)
    good = sum(
        ttft <= slo["ttftMilliseconds"] / 1000 and tpot <= slo["tpotMilliseconds"] / 1000 for ttft, tpot in answers
    )
    assert good / REQUESTS >= slo["attainmentPercent"] / 100


@pytest.mark.parametrize("name", TIERS)
def test_a_replica_with_half_as_much_again_misses_it(serve_at, name):
    slo, card = EXAMPLE["slo"], TIERS[name]["card"]
    _, answers = serve_at(TIERS[name], 1.5 * card["capacityMilliRequestsPerSecond"] / 1000)
    late = sum(ttft > slo["ttftMilliseconds"] / 1000 for ttft, _ in answers)
    assert late / REQUESTS > 1 - slo["attainmentPercent"] / 100


@pytest.mark.parametrize("name", TIERS)
def test_a_card_counts_the_loading_that_the_curve_plays(name):
    assert TIERS[name]["card"]["loadSeconds"] >= TIERS[name]["curve"]["loadSeconds"]
