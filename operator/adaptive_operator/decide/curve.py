"""A tier's speed as a curve of its batch: the largest batch, the rate that fills it, and the time per token below it.

Prefill takes γ + δ·tokens and stops decoding; a decode step takes α + β·b, or what was measured at some batch sizes,
with lines between. Times in milliseconds, rates in requests/s. Against a simulation of continuous batching the time per
token is within 7.5 % up to saturation.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Curve:
    """Measured speed of one replica. `decode`: (sequences in the batch, milliseconds a step), ascending."""

    prefill_milliseconds: float  # γ
    prefill_milliseconds_per_token: float  # δ
    decode: tuple[tuple[float, float], ...]
    kv_tokens: float
    max_sequences: int
    step_tokens: float = math.inf  # computed in one step, decoding sequences included; a longer prompt is cut

    def step_milliseconds(self, batch: float) -> float:
        """A decode step with `batch` sequences; beyond the measured sizes the last line goes on."""
        return interpolate(self.decode, batch)


@dataclass(frozen=True, slots=True)
class Request:
    """The mean request, or the card's reference request, in tokens."""

    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class Objective:
    """The latency objective: times per output token and to the first, and the share of requests that has to keep it."""

    tpot_milliseconds: float
    ttft_milliseconds: float = math.inf
    attainment_percent: float = 95.0


# As the engine plans (inference_pods/engine: scheduler, step_room), held to the same numbers by a test.
TPOT_MARGIN: Final = 0.9  # of the objective is planned for a step
LEAST_PROMPT_TOKENS: Final = 8  # of prompts are read in a step even where the objective leaves no time


def full_batch(curve: Curve, request: Request, objective: Objective) -> float:
    """The largest batch that fits in memory and keeps the time per token (B*); 0 when not even one sequence does."""
    in_memory = curve.kv_tokens / (request.prompt_tokens + request.output_tokens / 2)
    most = min(float(curve.max_sequences), in_memory)
    if most < 1 or curve.step_milliseconds(1.0) > objective.tpot_milliseconds:
        return 0.0
    return largest(most, lambda batch: curve.step_milliseconds(batch) <= objective.tpot_milliseconds)


def saturation_rate(curve: Curve, request: Request, objective: Objective) -> float:
    """Requests/s at which one replica's full batch never empties: 1000 / (prefill + (out - 1) x step / batch).

    Example: α 6.973, β .027, γ 10, δ .05, 1,155 tokens in, 211 out, batch 64: 10.4/s.
    """
    batch = full_batch(curve, request, objective)
    if batch < 1:
        return 0.0
    step = curve.step_milliseconds(batch)
    return 1000.0 * full_batch_rate(_prefill(curve, request), step, batch, request.output_tokens)


def full_batch_rate(prefill: float, step: float, batch: float, output_tokens: float) -> float:
    """Answers per unit of time of a batch that never empties: each costs its prefill and, per output token after the
    first, its part of a step: 1 / (prefill + (out - 1) x step / batch)."""
    return 1.0 / (prefill + max(0.0, output_tokens - 1) * step / batch)


def interpolate(points: Sequence[tuple[float, float]], at: float) -> float:
    """On the lines between points (ascending by their first number); the outer lines go on beyond them."""
    if len(points) == 1:
        return points[0][1]
    index = min(max(1, bisect_left(points, (at, 0.0))), len(points) - 1)
    (x0, y0), (x1, y1) = points[index - 1], points[index]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def predicted_tpot_milliseconds(curve: Curve, request: Request, rate: float) -> float:
    """Mean time per output token of a replica at a rate (requests/s); infinite at saturation.

    Little's law: b sequences decode at once, b·(1 - λP) = λ·(out - 1)·step(b), and prefills stretch each step.
    """
    per_millisecond = rate / 1000.0
    free = 1.0 - per_millisecond * _prefill(curve, request)
    if free <= 0:
        return math.inf
    steps = per_millisecond * max(0.0, request.output_tokens - 1)
    most = float(curve.max_sequences)
    if most * free < steps * curve.step_milliseconds(most):
        return math.inf
    batch = largest(most, lambda b: b * free <= steps * curve.step_milliseconds(b))
    return curve.step_milliseconds(batch) / free


def _prefill(curve: Curve, request: Request) -> float:
    return curve.prefill_milliseconds + curve.prefill_milliseconds_per_token * request.prompt_tokens


def largest(most: float, holds: Callable[[float], bool]) -> float:
    """The largest value up to `most` for which something holds that holds for all smaller ones, by bisection."""
    if holds(most):
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
