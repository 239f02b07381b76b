"""A tier's profile for the simulator, measured from outside as its users can: over HTTP, without a look at the engine.

A prompt that is read alone gives the prefill, streams that decode together give a step. The profile is written as the
YAML that `kubectl adaptive simulate --profile` reads.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
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
        }
        return yaml.safe_dump({"base": curve, "tiers": {tier: {}}}, sort_keys=False)

    def write(self, path: Path, tier: str, limits: EngineLimits) -> None:
        path.write_text(self.as_yaml(tier, limits), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ProfilePlan:
    """What is measured. `prompts`: lengths read alone; `batches`: streams at once, each after `context` tokens."""

    prompts: tuple[int, ...]
    batches: tuple[int, ...]
    context: int
    repeats: int


async def measure_profile(
    endpoint: Endpoint, step_tokens: int, plan: ProfilePlan, seed: int, wait: Callable[[], object]
) -> StepProfile:
    """Medians over the repeats; each repeat measures everything once, so that a disturbance spoils a few of each.

    `wait` is called before each repeat: it returns when the machine is idle.
    """
    firsts: dict[int, list[float]] = {size: [] for size in plan.prompts}
    steps: dict[int, list[float]] = {size: [] for size in plan.batches}
    for repeat in range(plan.repeats):
        wait()
        for size, found in firsts.items():
            found.append(await _first_token_seconds(endpoint, size, seed + 1000 * repeat + size))
        for size, found in steps.items():
            found.append(await _step_seconds(endpoint, size, plan.context, seed + 1000 * repeat + 500 + size))
    read = [(size, statistics.median(found)) for size, found in firsts.items()]
    prefill, per_token = fit_prefill(read, step_tokens)
    points = never_falling([(size, statistics.median(found)) for size, found in steps.items()])
    return StepProfile(1000 * prefill, 1000 * per_token, tuple((size, 1000 * seconds) for size, seconds in points))


async def _first_token_seconds(endpoint: Endpoint, prompt_tokens: int, seed: int) -> float:
    (alone,) = await run_load(endpoint, LoadShape(1, 1, prompt_tokens, 1), seed)
    return alone.ttft_seconds


async def _step_seconds(endpoint: Endpoint, streams: int, context: int, seed: int) -> float:
    return step_of(await run_load(endpoint, LoadShape(streams, 1, context, 40), seed))


def step_of(times: Sequence[StreamTimes]) -> float:
    """Seconds between two frames of a stream, the median while all streams have begun and none has ended.

    Raises ValueError when they were never all there at once.
    """
    begin, end = max(one.first for one in times), min(one.last for one in times)
    inside = [[at for at in one.frames if begin <= at <= end] for one in times]
    gaps = [later - earlier for frames in inside for earlier, later in pairwise(frames)]
    if not gaps:
        raise ValueError(f"{len(times)} streams never decoded together: the engine's batch is smaller")
    return statistics.median(gaps)


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
