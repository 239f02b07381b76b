"""Synthetic traces: a rate over time, Gamma-distributed gaps between requests, lengths drawn from a log-normal.

The same seed gives the same trace. Knows no files.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from adaptive_operator.simulate.requests import LONGEST_SECONDS, TraceRow

Rate = Callable[[float], float]  # seconds -> requests/s

# Azure's conversation trace: means 1,155 and 211, medians 1,020 and 129.
_LONGEST_PROMPT: Final = 14_000
_LONGEST_OUTPUT: Final = 1_000
_LOOKS: Final = 1000  # at a rate, to see whether it changes
_STEP_SECONDS: Final = 0.1  # in which a rate is taken
_MOST_TOKENS: Final = 50_000.0  # on average: the longest requests have twelve times as many


class GeneratorError(ValueError):
    """The description of a generator makes no sense; the text names what is there."""


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Log-normal lengths by median and mean, in tokens, and the longest that are drawn."""

    prompt_median: float = 1020.0
    prompt_mean: float = 1155.0
    output_median: float = 129.0
    output_mean: float = 211.0
    longest_prompt: int = _LONGEST_PROMPT
    longest_output: int = _LONGEST_OUTPUT

    @classmethod
    def of_means(cls, prompt: float, output: float) -> LengthDistribution:
        """As varied as the trace's lengths, with these means (before the longest are cut)."""
        usual = cls()
        of_prompts, of_outputs = prompt / usual.prompt_mean, output / usual.output_mean
        return cls(
            prompt_median=usual.prompt_median * of_prompts,
            prompt_mean=prompt,
            output_median=usual.output_median * of_outputs,
            output_mean=output,
            longest_prompt=math.ceil(_LONGEST_PROMPT * of_prompts),
            longest_output=math.ceil(_LONGEST_OUTPUT * of_outputs),
        )

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """(prompt, output) of one request, clipped to what the trace has."""
        prompt = _log_normal(rng, self.prompt_median, self.prompt_mean)
        output = _log_normal(rng, self.output_median, self.output_mean)
        return min(max(round(prompt), 1), self.longest_prompt), min(max(round(output), 1), self.longest_output)


def generate(
    rate: Rate, seconds: float, seed: int, variation: float = 1.0, lengths: LengthDistribution | None = None
) -> tuple[TraceRow, ...]:
    """Requests over `seconds` at `rate(t)`; `variation` = coefficient of variation of the gaps (1: Poisson).

    Gaps are Gamma-distributed in units of work time: the integral of the rate between two requests has mean 1 and the
    given variation, so that any rate keeps its mean.
    """
    rng, lengths = random.Random(seed), lengths or LengthDistribution()  # noqa: S311 a simulation, no secret
    shape = 1.0 / variation**2
    rows: list[TraceRow] = []
    now, step, due = 0.0, _STEP_SECONDS, rng.gammavariate(shape, 1 / shape)
    while now < seconds:
        mass = rate(now + step / 2) * step
        spent = 0.0
        while due <= mass - spent:  # a request lies within this step
            spent += due
            rows.append(TraceRow(now + step * spent / mass, *lengths.draw(rng)))
            due = rng.gammavariate(shape, 1 / shape)
        due -= mass - spent
        now += step
    return tuple(row for row in rows if row.arrival < seconds)


def steady(rate: float) -> Rate:
    """Always the same."""
    return lambda _t: rate


def square_wave(low: float, high: float, half_period: float) -> Rate:
    """`half_period` seconds low, then as long high, and so on."""
    return lambda t: high if int(t // half_period) % 2 else low


def step(low: float, high: float, at: float) -> Rate:
    """Low before `at` seconds, high from then on."""
    return lambda t: high if t >= at else low


def flash_crowd(base: float, peak: float, at: float, rise: float = 10.0, decay: float = 120.0) -> Rate:
    """Rises within `rise` seconds to the peak at `at` + `rise`, then decays to the base with time constant `decay`."""

    def rate(t: float) -> float:
        if t < at:
            return base
        if t < at + rise:
            return base + (peak - base) * (t - at) / rise
        return base + (peak - base) * math.exp(-(t - at - rise) / decay)

    return rate


def sinusoid(low: float, high: float, period: float) -> Rate:
    """Between low and high, from the middle upwards."""
    return lambda t: low + (high - low) * (1 + math.sin(2 * math.pi * t / period)) / 2


def day_and_night(night: float, day: float, period: float = 86_400.0) -> Rate:
    """Night for a third of the period, then up, a plateau by day, and down: ramps of a sixth each."""

    def rate(t: float) -> float:
        phase = (t % period) / period
        up = min(max((phase - 1 / 3) * 6, 0.0), 1.0)
        down = min(max((phase - 5 / 6) * 6, 0.0), 1.0)
        return night + (day - night) * (up - down)

    return rate


def _log_normal(rng: random.Random, median: float, mean: float) -> float:
    sigma = math.sqrt(2 * math.log(max(mean / median, 1.0)))
    return rng.lognormvariate(math.log(median), sigma)


_DEFAULT_SECONDS: Final = 3600.0
# Name -> (the rate, its parameters in order with their defaults; None: has to be given).
_SHAPES: Final[Mapping[str, tuple[Callable[..., Rate], Mapping[str, float | None]]]] = {
    "steady": (steady, {"rate": None}),
    "square": (square_wave, {"low": None, "high": None, "half-period": None}),
    "step": (step, {"low": None, "high": None, "at": 1200.0}),
    "flash": (flash_crowd, {"base": None, "peak": None, "at": 1200.0, "rise": 10.0, "decay": 120.0}),
    "sinusoid": (sinusoid, {"low": None, "high": None, "period": 3600.0}),
    "day": (day_and_night, {"night": None, "day": None, "period": 86_400.0}),
}
GENERATORS: Final = tuple(_SHAPES)
_COMMON: Final[Mapping[str, float]] = {
    "seconds": _DEFAULT_SECONDS,
    "variation": 1.0,
    "prompt": LengthDistribution().prompt_mean,
    "output": LengthDistribution().output_mean,
}
# Beyond these nothing is drawn that floats can tell apart; rates are taken in steps of 0.1 s.
_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "seconds": (0.0, LONGEST_SECONDS),
    "variation": (0.01, 100.0),
    "period": (1.0, math.inf),
    "half-period": (1.0, math.inf),
    "prompt": (1.0, _MOST_TOKENS),
    "output": (1.0, _MOST_TOKENS),
}


def ahead(rate: Rate, seconds: float) -> Rate:
    """The same rate, so many seconds earlier."""
    return lambda t: rate(t + seconds)


@dataclass(frozen=True, slots=True)
class _Load:
    """What a text describes."""

    rate: Rate
    seconds: float
    variation: float
    lengths: LengthDistribution


def parse_generator(text: str, seed: int, phase: float = 0.0) -> tuple[TraceRow, ...]:
    """A trace from `NAME:parameter=number,…`. Example: `square:low=2,high=6,half-period=120,seconds=7200`.

    Every shape also takes `seconds` (3600), `variation` (1) of the gaps, and the mean lengths `prompt` (1155) and
    `output` (211) in tokens. `phase` (0..1): how far ahead a periodic
    shape is, so that models of a pool do not peak together. Raises GeneratorError.
    """
    load = _parse(text, phase)
    return generate(load.rate, load.seconds, seed, load.variation, load.lengths)


def expect_requests(text: str, phase: float = 0.0) -> float:
    """How many requests `parse_generator` draws on average, without drawing them. Raises GeneratorError."""
    load = _parse(text, phase)
    steps = math.ceil(load.seconds / _STEP_SECONDS)
    return _STEP_SECONDS * sum(load.rate((i + 0.5) * _STEP_SECONDS) for i in range(steps))


def is_level(text: str, seconds: float, phase: float = 0.0) -> bool:
    """Of a generator whose rate changes: is it the same through all of these seconds? Raises GeneratorError."""
    load = _parse(text, phase)
    rates = {load.rate(seconds * i / _LOOKS) for i in range(_LOOKS + 1)}
    return len(rates) == 1 and not text.startswith("steady")


def _parse(text: str, phase: float) -> _Load:
    name, _, parameters = text.partition(":")
    if name not in _SHAPES:
        raise GeneratorError(f"no generator {name!r}; there are {', '.join(_SHAPES)}")
    shape, expected = _SHAPES[name]
    values = {**expected, **_COMMON, **_numbers(name, parameters, {**expected, **_COMMON})}
    missing = [key for key in expected if values[key] is None]
    if missing:
        raise GeneratorError(f"{name}: {', '.join(missing)} not given; e.g. {name}:{missing[0]}=2")
    seconds, variation = values["seconds"] or 0.0, values["variation"] or 0.0
    period = values.get("period") or min(2 * (values.get("half-period") or 0.0), sys.float_info.max)
    rate = ahead(shape(*(values[key] for key in expected)), phase * period)
    lengths = LengthDistribution.of_means(values["prompt"] or 0.0, values["output"] or 0.0)
    return _Load(rate, seconds, variation, lengths)


def _numbers(name: str, text: str, known: Mapping[str, float | None]) -> dict[str, float]:
    """All have to be positive: a rate of 0 is a trace without requests."""
    numbers: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        key, _, number = part.partition("=")
        if key not in known:
            raise GeneratorError(f"{name}: no parameter {key!r}; it takes {', '.join(known)}")
        if key in numbers:
            raise GeneratorError(f"{name}: {key} is there twice; remove one")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            raise GeneratorError(f"{name}: {part!r} is not PARAMETER=POSITIVE NUMBER; e.g. {key}=2")
        least, most = _RANGES.get(key, (0.0, math.inf))
        if not least <= value <= most:
            limit = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:.12g}"
            raise GeneratorError(f"{name}: {part!r} is out of range; {key} has to be {limit}")
        numbers[key] = value
    return numbers
