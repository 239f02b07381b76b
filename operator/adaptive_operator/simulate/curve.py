"""How long an engine's steps take, as a function of what it works on: the profile of a tier on one replica.

A prefill of n prompt tokens takes gamma + delta·n; a decode step of b sequences is interpolated between measured points
(measured steps are convex in b: a straight line through all of them errs by 15 %). An engine that cuts prompts into
chunks reads them in the steps of the others, which pays a step's own part once. Pure; knows no requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from adaptive_operator.decide.curve import LEAST_PROMPT_TOKENS, TPOT_MARGIN, full_batch_rate, interpolate


@dataclass(frozen=True, slots=True)
class StepCurve:
    """Times in seconds. `points`: (sequences, seconds of a decode step), by rising number of sequences.

    `step_tokens`: tokens of a step, decoding sequences included, of an engine that cuts prompts into chunks; None: a
    prompt is read in one go, and the others wait for it. `planned_seconds`: what such a step may take in all.
    `beside_seconds`: the least that each sequence adds which decodes in such a step.
    """

    prefill_seconds: float  # gamma
    prefill_seconds_per_token: float  # delta
    points: tuple[tuple[int, float], ...]
    kv_tokens: int
    max_sequences: int
    step_tokens: int | None = None
    planned_seconds: float = math.inf
    beside_seconds: float = 0.0
    _steps: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Tabulate the steps once. Raises ValueError for a curve that no engine can have."""
        sizes = [size for size, _ in self.points]
        if not sizes or sizes[0] < 1 or sizes != sorted(set(sizes)):
            raise ValueError("points must name at least one number of sequences, each once, in rising order")
        if self.max_sequences < 1 or self.kv_tokens < 1:
            raise ValueError("max_sequences and kv_tokens must be at least 1")
        if self.step_tokens is not None and self.step_tokens < self.max_sequences:
            raise ValueError("step_tokens must not be below max_sequences: each sequence takes one")
        least = sizes[0]  # smaller batches take as long
        steps = tuple(interpolate(self.points, max(size, least)) for size in range(self.max_sequences + 1))
        object.__setattr__(self, "_steps", steps)

    def prefill(self, tokens: int) -> float:
        """Seconds to read prompts of so many tokens in one go."""
        return self.prefill_seconds + self.prefill_seconds_per_token * tokens

    def step(self, sequences: int) -> float:
        """Seconds of one decode step of so many sequences, at most `max_sequences`."""
        return self._steps[sequences]

    def mixed(self, sequences: int, prompt_tokens: int) -> float:
        """Seconds of a step in which so many sequences decode and so many tokens of prompts are read beside them.

        A prefill has a step's own part in it already, so the first sequence comes along for nothing and the others add
        what they add to a decode step: gamma + delta·n + step(b) - step(1), and no less than step(b). Where decode
        waits for memory and prompts for arithmetic, they add more: a sequence is a row as a token of a prompt is one.
        """
        if not sequences:
            return self.prefill(prompt_tokens)
        step = self._steps[sequences]
        return max(step, self.prefill(prompt_tokens) + self._beside(sequences, step)) if prompt_tokens else step

    def _beside(self, sequences: int, step_seconds: float) -> float:
        """What sequences that decode, in steps of `step_seconds` alone, add to a step that reads prompts.

        Below 0 where all decode at faster levels of a nested replica.
        """
        more = step_seconds - self._steps[1]
        return max(more, self.beside_seconds * sequences) if self.beside_seconds else more

    def prompt_room(self, sequences: int, step_seconds: float) -> int:
        """Prompt tokens that fit beside `sequences` that decode and take `step_seconds` alone; needs `step_tokens`.

        Without any decoding sequence nobody waits for the step, and only its tokens count.
        """
        room = (self.step_tokens or 0) - sequences
        if not sequences or not self.prefill_seconds_per_token or math.isinf(self.planned_seconds):
            return room
        spare = self.planned_seconds - self.prefill_seconds - self._beside(sequences, step_seconds)
        return min(room, max(int(spare / self.prefill_seconds_per_token), LEAST_PROMPT_TOKENS))

    def with_objective(self, tpot_seconds: float) -> StepCurve:
        """The curve of an engine that forms no batch whose step is longer than the objective (at least 1 sequence).

        With chunks the step is planned with a margin, and with the fewest tokens of a prompt beside it.
        """
        chunked = self.step_tokens is not None
        planned = TPOT_MARGIN * tpot_seconds if chunked else tpot_seconds
        beside = LEAST_PROMPT_TOKENS if chunked else 0
        fitting = [size for size in range(1, self.max_sequences + 1) if self.mixed(size, beside) <= planned]
        largest = fitting[-1] if fitting else 1
        return replace(self, max_sequences=largest, planned_seconds=planned if chunked else math.inf)

    def with_places(self, sequences: int) -> StepCurve:
        """The curve of a level whose replica forms batches of so many sequences: it has step times for all of them."""
        return self if self.max_sequences >= sequences else replace(self, max_sequences=sequences)

    def scaled(self, prefill: float, decode: float) -> StepCurve:
        """The curve of a tier that reads prompts and decodes so many times faster. Example: int8, 1.6 and 1.6."""
        return replace(
            self,
            prefill_seconds=self.prefill_seconds / prefill,
            prefill_seconds_per_token=self.prefill_seconds_per_token / prefill,
            points=tuple((size, seconds / decode) for size, seconds in self.points),
            beside_seconds=self.beside_seconds / prefill,
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
    objective there; what sequences cost beside prompts is left out. Source: the M/G/1 view of continuous batching with
    a stalled decode. Chunks are read in the steps of the others: of gamma only what is more than step(1) is left, for
    each of in / step_tokens chunks.
    """
    by_memory = curve.kv_tokens / (lengths.prompt + lengths.output / 2)
    batch = max(1, min(curve.max_sequences, int(by_memory)))
    work = curve.prefill_seconds_per_token * lengths.prompt
    if curve.step_tokens is None:
        work += curve.prefill_seconds
    else:
        work += max(0.0, curve.prefill_seconds - curve.step(1)) * lengths.prompt / curve.step_tokens
    return full_batch_rate(work, curve.step(batch), batch, lengths.output)
