"""How long an engine's steps take, as a function of what it works on: the profile of a tier on one replica.

A prefill of n prompt tokens takes gamma + delta·n; a decode step of b sequences is interpolated between measured points
(measured steps are convex in b: a straight line through all of them errs by 15 %). Pure; knows no requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class StepCurve:
    """Times in seconds. `points`: (sequences, seconds of a decode step), by rising number of sequences."""

    prefill_seconds: float  # gamma
    prefill_seconds_per_token: float  # delta
    points: tuple[tuple[int, float], ...]
    kv_tokens: int
    max_sequences: int
    _steps: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Tabulate the steps once. Raises ValueError for a curve that no engine can have."""
        sizes = [size for size, _ in self.points]
        if not sizes or sizes[0] < 1 or sizes != sorted(set(sizes)):
            raise ValueError("points must name at least one number of sequences, each once, in rising order")
        if self.max_sequences < 1 or self.kv_tokens < 1:
            raise ValueError("max_sequences and kv_tokens must be at least 1")
        steps = tuple(_interpolate(self.points, size) for size in range(self.max_sequences + 1))
        object.__setattr__(self, "_steps", steps)

    def prefill(self, tokens: int) -> float:
        """Seconds to read prompts of so many tokens in one go."""
        return self.prefill_seconds + self.prefill_seconds_per_token * tokens

    def step(self, sequences: int) -> float:
        """Seconds of one decode step of so many sequences, at most `max_sequences`."""
        return self._steps[sequences]

    def with_objective(self, tpot_seconds: float) -> StepCurve:
        """The curve of an engine that forms no batch whose step is longer than the objective (at least 1 sequence)."""
        fitting = [size for size in range(1, self.max_sequences + 1) if self._steps[size] <= tpot_seconds]
        largest = fitting[-1] if fitting else 1
        return StepCurve(
            self.prefill_seconds, self.prefill_seconds_per_token, self.points, self.kv_tokens, max(largest, 1)
        )

    def scaled(self, prefill: float, decode: float) -> StepCurve:
        """The curve of a tier that reads prompts and decodes so many times faster. Example: int8, 1.6 and 1.6."""
        points = tuple((size, seconds / decode) for size, seconds in self.points)
        return StepCurve(
            self.prefill_seconds / prefill,
            self.prefill_seconds_per_token / prefill,
            points,
            self.kv_tokens,
            self.max_sequences,
        )


def linear_points(
    base_seconds: float, seconds_per_sequence: float, max_sequences: int
) -> tuple[tuple[int, float], ...]:
    """The points of a decode step that takes alpha + beta·b."""
    sizes = (1,) if max_sequences == 1 else (1, max_sequences)
    return tuple((size, base_seconds + seconds_per_sequence * size) for size in sizes)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean lengths of requests, in tokens."""

    prompt: float
    output: float

    @classmethod
    def of(cls, lengths: Sequence[tuple[int, int]]) -> Lengths:
        """Means over (prompt, output) pairs. Raises ValueError when there are none."""
        if not lengths:
            raise ValueError("no request has no mean length")
        return cls(sum(p for p, _ in lengths) / len(lengths), sum(o for _, o in lengths) / len(lengths))


def saturation(curve: StepCurve, lengths: Lengths) -> float:
    """Requests/s at which one replica is busy all the time, in closed form.

    Every answer costs its prefill and, per output token after the first, its part of a full decode step:
    1 / (gamma + delta·in + (out - 1)·step(B)/B), B = what slots and KV memory allow. An upper bound: nobody attains an
    objective there. Source: the M/G/1 view of continuous batching with a stalled decode.
    """
    by_memory = curve.kv_tokens / (lengths.prompt + lengths.output / 2)
    batch = max(1, min(curve.max_sequences, int(by_memory)))
    work = curve.prefill_seconds + curve.prefill_seconds_per_token * lengths.prompt
    return 1.0 / (work + max(lengths.output - 1, 0.0) * curve.step(batch) / batch)


def _interpolate(points: Sequence[tuple[int, float]], size: int) -> float:
    """Between points linearly, beyond the last one along the last segment, below the first one as at the first."""
    if size <= points[0][0] or len(points) == 1:
        return points[0][1]
    low, high = next((pair for pair in pairwise(points) if size <= pair[1][0]), (points[-2], points[-1]))
    return low[1] + (high[1] - low[1]) * (size - low[0]) / (high[0] - low[0])
