"""A tier's speed as a curve of its batch, and the rate at which a replica keeps the latency objective.

Prefill takes γ + δ·tokens and stops decoding; a decode step takes α + β·b, or what was measured at some batch sizes,
with lines between. Times in milliseconds, rates in requests/s. Against a simulation of continuous batching the time per
token is within 7.5 % up to saturation.
"""

from __future__ import annotations

import itertools
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
    """The latency objective: time per output token, and the share of requests that has to keep it."""

    tpot_milliseconds: float
    attainment_percent: float = 95.0


# Share of saturation at which 95 % and 99 % of Poisson arrivals attain, for 1, 2, 4 and 8 replicas, by slack: objective
# / step at the full batch (24, 35 and 50 ms against 8.7 ms). Simulated; with one replica waiting is what costs.
_SLACK: Final = (2.8, 4.0, 5.7)
_ATTAINED_95: Final = ((0.60, 0.72, 0.76, 0.78), (0.80, 0.91, 0.94, 0.95), (0.95, 0.95, 0.95, 0.95))
_ATTAINED_99: Final = ((0.41, 0.58, 0.60, 0.68), (0.63, 0.77, 0.85, 0.88), (0.80, 0.95, 0.95, 0.95))
_REPLICAS: Final = (0.0, 1.0, 2.0, 3.0)  # log2


def full_batch(curve: Curve, request: Request, objective: Objective) -> float:
    """The largest batch that fits in memory and keeps the time per token (B*); 0 when not even one sequence does."""
    in_memory = curve.kv_tokens / (request.prompt_tokens + request.output_tokens / 2)
    most = min(float(curve.max_sequences), in_memory)
    if most < 1 or curve.step_milliseconds(1.0) > objective.tpot_milliseconds:
        return 0.0
    return _largest(most, lambda batch: curve.step_milliseconds(batch) <= objective.tpot_milliseconds)


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


def attaining_rate(curve: Curve, request: Request, objective: Objective, replicas: int = 1) -> float:
    """Requests/s per replica at which the wanted share of requests attains (μ), with `replicas` that share the load."""
    batch = full_batch(curve, request, objective)
    if batch < 1:
        return 0.0
    slack = objective.tpot_milliseconds / curve.step_milliseconds(batch)
    most = attained_share(slack, replicas, objective.attainment_percent) * saturation_rate(curve, request, objective)
    # Where the objective itself bounds the batch there is less slack than was simulated: the mean has to keep it, too.
    return _largest(most, lambda rate: predicted_tpot_milliseconds(curve, request, rate) <= objective.tpot_milliseconds)


def attained_share(slack: float, replicas: int, attainment_percent: float) -> float:
    """Share of saturation that can be used (φ), between the simulated points; beyond them the nearest one."""
    part = min(1.0, max(0.0, (attainment_percent - 95.0) / 4.0))
    shares = [
        _between(math.log2(max(1, replicas)), _REPLICAS, [a + part * (b - a) for a, b in zip(some, more, strict=True)])
        for some, more in zip(_ATTAINED_95, _ATTAINED_99, strict=True)
    ]
    return _between(slack, _SLACK, shares)


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
    batch = _largest(most, lambda b: b * free <= steps * curve.step_milliseconds(b))
    return curve.step_milliseconds(batch) / free


def _prefill(curve: Curve, request: Request) -> float:
    return curve.prefill_milliseconds + curve.prefill_milliseconds_per_token * request.prompt_tokens


def _largest(most: float, holds: Callable[[float], bool]) -> float:
    """The largest value up to `most` for which something holds that holds for all smaller ones, by bisection."""
    if holds(most):
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _between(at: float, points: Sequence[float], values: Sequence[float]) -> float:
    """Linear between points (ascending), constant beyond them."""
    if at <= points[0]:
        return values[0]
    for (x0, x1), (y0, y1) in zip(itertools.pairwise(points), itertools.pairwise(values), strict=True):
        if at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return values[-1]
