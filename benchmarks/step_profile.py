"""A tier's profile for the simulator, measured from outside as its users can: over HTTP, without a look at the engine.

A prompt that is read alone gives the prefill, streams that decode together give a step. All of it is measured once per
repeat, and the profile has the means over the repeats: a queue feels how long steps take on average, pauses included.
It is written as the YAML that `kubectl adaptive simulate --profile` reads.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import yaml

from benchmarks.http_load import Endpoint, LoadShape, StreamTimes, run_load


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine was started with."""

    max_sequences: int
    step_tokens: int
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class StepProfile:
    """Milliseconds. `points`: (sequences, milliseconds of a decode step)."""

    prefill: float
    prefill_per_token: float
    points: tuple[tuple[int, float], ...]

    def as_yaml(self, tier: str, limits: EngineLimits) -> str:
        curve = {
            "prefillMilliseconds": round(self.prefill, 3),
            "prefillMillisecondsPerToken": round(self.prefill_per_token, 4),
            "stepPoints": [[size, round(step, 3)] for size, step in self.points],
            "kvTokens": limits.kv_tokens,
            "maxSequences": limits.max_sequences,
            "maxTokensPerStep": limits.step_tokens,
            # A step computes rows: one that decodes costs no less than one of a prompt.
            "besidePromptMillisecondsPerSequence": round(self.prefill_per_token, 4),
        }
        return yaml.safe_dump({"base": curve, "tiers": {tier: {}}}, sort_keys=False)

    def write(self, path: Path, tier: str, limits: EngineLimits) -> None:
        path.write_text(self.as_yaml(tier, limits), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """Of a repeat. `prompts`: lengths read alone; `batches`: streams at once, each after `context` tokens."""

    prompts: tuple[int, ...]
    batches: tuple[int, ...]
    context: int


@dataclass(frozen=True, slots=True)
class ProfileRepeat:
    """Seconds: to the first token by the length of a prompt read alone, of a decode step by sequences."""

    firsts: Mapping[int, float]
    steps: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Pace:
    """How many times faster than on average a machine reads prompts and decodes at a moment."""

    prefill: float
    decode: float


async def measure_repeat(endpoint: Endpoint, plan: ProfilePlan, seed: int) -> ProfileRepeat:
    """Everything of the plan once. Raises ValueError when streams of a batch were never all there at once."""
    firsts = {size: await _first_token_seconds(endpoint, size, seed + size) for size in plan.prompts}
    steps = {size: await _step_seconds(endpoint, size, plan.context, seed + 500 + size) for size in plan.batches}
    return ProfileRepeat(firsts, steps)


def build_profile(repeats: Sequence[ProfileRepeat], step_tokens: int) -> StepProfile:
    """Of the means over the repeats, of which there is at least one."""
    prefill, per_token = fit_prefill(_means([one.firsts for one in repeats]), step_tokens)
    points = never_falling(_means([one.steps for one in repeats]))
    return StepProfile(1000 * prefill, 1000 * per_token, tuple((size, 1000 * seconds) for size, seconds in points))


def _means(found: Sequence[Mapping[int, float]]) -> list[tuple[int, float]]:
    return [(size, statistics.fmean(one[size] for one in found)) for size in found[0]]


def paces(repeats: Sequence[ProfileRepeat]) -> list[Pace]:
    """How much faster than the mean each repeat went."""
    firsts, steps = _means([one.firsts for one in repeats]), _means([one.steps for one in repeats])
    return [Pace(1 / _share(one.firsts, firsts), 1 / _share(one.steps, steps)) for one in repeats]


def _share(found: Mapping[int, float], means: Sequence[tuple[int, float]]) -> float:
    return math.fsum(found.values()) / math.fsum(mean for _, mean in means)


async def _first_token_seconds(endpoint: Endpoint, prompt_tokens: int, seed: int) -> float:
    (alone,) = await run_load(endpoint, LoadShape(1, 1, prompt_tokens, 1), seed)
    return alone.ttft_seconds


async def _step_seconds(endpoint: Endpoint, streams: int, context: int, seed: int) -> float:
    return step_of(await run_load(endpoint, LoadShape(streams, 1, context, stream_tokens(streams)), seed))


def stream_tokens(streams: int) -> int:
    """Of each stream of a batch: more of a larger one, whose first streams decode while the others' prompts are read.

    Long enough for our engine in a slow moment, when it reads 8 tokens of a prompt of 64 a step.
    """
    return 24 + 8 * streams


def step_of(times: Sequence[StreamTimes]) -> float:
    """Mean seconds between two frames of a stream while all streams have begun and none has ended.

    Raises ValueError when they were never all there at once.
    """
    begin, end = max(one.first for one in times), min(one.last for one in times)
    inside = [[at for at in one.frames if begin <= at <= end] for one in times]
    gaps = [later - earlier for frames in inside for earlier, later in pairwise(frames)]
    if not gaps:
        raise ValueError(f"{len(times)} streams never decoded together: the engine's batch is smaller")
    return statistics.fmean(gaps)


def fit_prefill(firsts: Sequence[tuple[int, float]], step_tokens: int) -> tuple[float, float]:
    """(seconds of a step, seconds per token) by least squares, neither below 0.

    A prompt of n tokens takes ceil(n / step_tokens) steps. Example: 64 tokens a step, 0.074 s for 64 tokens and 0.148 s
    for 128, 0.042 s for 32: 0.010 s and 0.001 s.
    """
    rows = [(-(-n // step_tokens), n, seconds) for n, seconds in firsts]
    cc, cn, nn = (sum(r[i] * r[j] for r in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    cs, ns = (sum(r[i] * r[2] for r in rows) for i in (0, 1))
    determinant = cc * nn - cn * cn
    step, token = (cs * nn - ns * cn) / determinant, (ns * cc - cs * cn) / determinant
    if step < 0:
        return 0.0, ns / nn
    return step, max(token, 0.0)


def never_falling(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """A larger batch takes no less time: what scatters below a smaller one is raised to it."""
    rising: list[tuple[int, float]] = []
    for size, seconds in points:
        rising.append((size, max(seconds, rising[-1][1]) if rising else seconds))
    return rising
