"""Step curves where no profile has them, guessed from the cards: the shape of an 8B model on one accelerator, at the
speed at which a replica keeps the objective at its card's rate.

What a curve keeps is told as the planner tells it (`decide/attaining.py`), of an engine that reads prompts in chunks. A
part of the saturation would not do: a slow card's single request would pass the objective already. Knows no requests
and no time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from adaptive_operator.api.objectives import Slo
from adaptive_operator.decide.attaining import attaining_rate
from adaptive_operator.decide.curve import Curve, Objective, Request
from adaptive_operator.simulate.curve import Lengths, StepCurve, linear_points, saturation
from inference_pods.router.table import UNKNOWN_REPLICA_LIMIT

# A replica that keeps its card with nothing to spare misses it in every other run: what the planner believes of a
# curve is within 15 % of what a replica keeps, and what even an idle replica only just keeps is missed by chance.
_RATE_MARGIN: Final = 1.15
_TTFT_MARGIN: Final = 0.9
_MANY_TIMES: Final = 3.0  # more than its card's rate at saturation: the objective, not the rate, sets the speed
_SEQUENCES: Final = 64
_KV_TOKENS: Final = 400_000
_STEP_TOKENS: Final = 2048
_SPEEDS: Final = (1e-6, 1e6)  # relative to the shape, and beyond any hardware
_HALVINGS: Final = 40  # of their logarithms: to 11 digits


@dataclass(frozen=True, slots=True)
class Reference:
    """The request that cards are counted in, and whether one of them says so. Otherwise it is a guess, too, and routers
    send a replica few requests at once."""

    lengths: Lengths
    declared: bool

    @property
    def sequences(self) -> int:
        """That a replica works on at once."""
        return _SEQUENCES if self.declared else UNKNOWN_REPLICA_LIMIT


def guess_curve(rate: float, reference: Reference, slo: Slo) -> StepCurve:
    """The slowest curve of the 8B shape that keeps the objective at `rate` (requests/s) of reference requests, with a
    margin: 15 % of the rate, and 10 % of the time to the first token."""
    objective = Objective(
        float(slo.tpot_milliseconds), _TTFT_MARGIN * slo.ttft_milliseconds, float(slo.attainment_percent)
    )
    return _slowest(_RATE_MARGIN * rate, reference, objective)


@lru_cache(maxsize=1024)  # tiers, levels and models of a manifest often have the same card
def _slowest(rate: float, reference: Reference, objective: Objective) -> StepCurve:
    shape, request = _shape(reference), Request(reference.lengths.prompt, reference.lengths.output)
    low, high = (math.log(speed) for speed in _SPEEDS)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        speed = math.exp(middle)
        keeps = attaining_rate(_planned(shape.scaled(speed, speed)), request, objective) >= rate
        low, high = (low, middle) if keeps else (middle, high)
    return shape.scaled(math.exp(high), math.exp(high))


def _shape(reference: Reference) -> StepCurve:
    """An 8B model on one accelerator. A prompt is read in steps that are made anyway, so reading costs its tokens only.

    Memory holds as many requests as there are places, however long they are.
    """
    points, lengths = linear_points(0.006973, 0.000027, _SEQUENCES), reference.lengths
    memory = max(_KV_TOKENS, math.ceil(_SEQUENCES * (lengths.prompt + lengths.output)))
    return StepCurve(points[0][1], 0.00005, points, memory, reference.sequences, _STEP_TOKENS)


def _planned(curve: StepCurve) -> Curve:
    """The same curve as the planner has it."""
    return Curve(
        prefill_milliseconds=0.0,
        prefill_milliseconds_per_token=1000 * curve.prefill_seconds_per_token,
        decode=tuple((float(size), 1000 * seconds) for size, seconds in curve.points),
        kv_tokens=float(curve.kv_tokens),
        max_sequences=curve.max_sequences,
        step_tokens=float(_STEP_TOKENS),
    )


@dataclass(frozen=True, slots=True)
class Guess:
    """A curve that was guessed for a tier or level (`name`), and the rate of its card in requests/s."""

    name: str
    rate: float
    curve: StepCurve


def describe_guesses(model: str, guesses: Sequence[Guess], reference: Reference) -> tuple[str, ...]:
    """What was guessed for a model, and where that says little. A line each."""
    lines = [_describe_all(guesses, reference.lengths)]
    if not reference.declared:
        lines.append(
            "no card says which request its rate is of, so that was guessed, too, and routers send a replica"
            f" {reference.sequences} requests at once; declare referencePromptTokens and referenceOutputTokens"
        )
    carried = {guess: saturation(guess.curve, reference.lengths) for guess in guesses}
    far = {guess: most for guess, most in carried.items() if most > _MANY_TIMES * guess.rate}
    if far:
        lines.append(_describe_far(far))
    return tuple(f"{model}: {line}" for line in lines)


def _describe_all(guesses: Sequence[Guess], lengths: Lengths) -> str:
    request = f"{lengths.prompt:.0f} + {lengths.output:.0f} tokens"
    told = "; ".join(_describe(guess) for guess in guesses)
    return (
        "step times were guessed from the cards, of an 8B model's shape and as slow as replicas keep slo at the cards'"
        f" rates of requests of {request}: {told}. None of it was measured; give --profile for measured ones"
    )


def _describe(guess: Guess) -> str:
    step, token = 1000 * guess.curve.step(1), 1000 * guess.curve.prefill_seconds_per_token
    return f"{guess.name} {guess.rate:.3g} requests/s, {step:.3g} ms a decode step, {token:.2g} ms a prompt token"


def _describe_far(far: Mapping[Guess, float]) -> str:
    told = ", ".join(f"{guess.name} {most:.2g} instead of {guess.rate:.2g} requests/s" for guess, most in far.items())
    return (
        f"no curve of this shape keeps slo and carries as little as the cards say: at saturation {told}. So loads"
        " beyond the cards are late rather than unserved; correct the cards or slo, or give --profile"
    )
