"""The rate that a curve says against a simulated replica of that curve, which reads prompts in chunks."""

from __future__ import annotations

import random

import pytest

from adaptive_operator.decide.attaining import attaining_rate
from adaptive_operator.decide.curve import Curve, Objective, Request
from adaptive_operator.simulate.curve import StepCurve, linear_points
from tests.operator.simulate.queues import serve

pytestmark = pytest.mark.slow

KV_TOKENS = 65_536
WITHIN = 1.15
STREAM = 2500

# (step, per sequence, per prompt token in ms; sequences, tokens a step), (prompt, output), (ms a token, to first; %)
CASES = {
    "a tight number of sequences": ((28.4, 0.35, 0.107, 16, 256), (128, 64), (60, 2000, 95)),
    "the same for 99 %": ((28.4, 0.35, 0.107, 16, 256), (128, 64), (60, 2000, 99)),
    "batches bound by the time per token": ((28.4, 0.35, 0.107, 16, 256), (128, 64), (35, 1000, 95)),
    "long prompts": ((28.4, 0.35, 0.107, 16, 256), (1155, 211), (60, 2000, 95)),
    "a faster tier": ((16.0, 0.35, 0.107, 16, 256), (1155, 211), (60, 2000, 99)),
    "a tier that is never late": ((7.0, 0.03, 0.05, 64, 2048), (128, 64), (60, 2000, 99)),
    "few sequences": ((9.0, 0.3, 0.005, 8, 256), (64, 32), (24, 500, 99)),
    "steps with hardly any room for prompts": ((4.0, 0.1, 0.005, 64, 64), (256, 128), (100, 3000, 95)),
    "several prompts in a step": ((14.0, 0.02, 0.005, 64, 256), (64, 32), (60, 2000, 99)),
}


def attained(numbers, lengths, slo, rate):
    step, each, per_token, sequences, tokens = numbers
    tpot, ttft, _ = slo
    points = linear_points(step / 1000, each / 1000, sequences)
    curve = StepCurve((step + each) / 1000, per_token / 1000, points, KV_TOKENS, sequences, tokens)
    rng, now, rows = random.Random(1), 0.0, []
    for _ in range(STREAM):
        now += rng.expovariate(rate)
        rows.append((now, *lengths))
    good = [r.ttft <= ttft / 1000 and r.tpot <= tpot / 1000 for r in serve(curve.with_objective(tpot / 1000), rows)]
    return 100 * sum(good) / STREAM


@pytest.mark.parametrize("name", CASES)
def test_the_rate_is_within_15_per_cent_of_what_the_replica_keeps(name):
    numbers, lengths, slo = CASES[name]
    step, each, per_token, sequences, tokens = numbers
    decode = ((0.0, step), (float(sequences), step + each * sequences))
    curve = Curve(0.0, per_token, decode, float(KV_TOKENS), sequences, float(tokens))
    rate = attaining_rate(curve, Request(*map(float, lengths)), Objective(*map(float, slo)))

    assert attained(numbers, lengths, slo, rate / WITHIN) >= slo[2]
    assert attained(numbers, lengths, slo, rate * WITHIN) < slo[2]
