"""What bench_policies runs: the tier tables with cards from a held-out load, arrivals, loads for flapping and faults.

Pure but for reading the examples and the trace. Knows no targets and no results.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from adaptive_operator.simulate.cards import measure_cards
from adaptive_operator.simulate.comparison import Comparison, ModelLoad, hold_out
from adaptive_operator.simulate.generators import Rate, generate, square_wave
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import RunSettings
from adaptive_operator.simulate.scaling import cut_trace
from adaptive_operator.simulate.scenario import Scenario, load_scenario
from adaptive_operator.simulate.scrapes import Fault, FaultAt
from adaptive_operator.simulate.traces import read_trace

EXAMPLES = Path(__file__).parents[1] / "examples" / "simulate"
TABLES = ("uniform", "decode-only")
CARD_SEED = 9001
FLAP_SECONDS = 7200.0
LOW_PART = 0.45  # of what the best tier carries on all accelerators; three times as much is beyond it
HALF_PERIODS = (30.0, 60.0, 120.0, 150.0, 300.0, 345.0, 450.0, 600.0, 900.0, 1800.0)
STEADY_PARTS = (0.5, 0.9, 1.3)  # of what the best tier carries: on both sides of it
FAULT_SECONDS = 300.0
FAULT_RUN_SECONDS = 1500.0
FAULT_STARTS = tuple(float(at) for at in range(330, 1200, 70))
HOLD_SECONDS = 120.0  # samples count for so long


@dataclass(frozen=True, slots=True)
class Setup:
    """What was chosen on the command line. `trace` None: a synthetic one like the conversation trace."""

    budget: int
    trace: Path | None
    minutes: float | None


@lru_cache(maxsize=4)
def arrivals(setup: Setup) -> tuple[tuple[TraceRow, ...], tuple[TraceRow, ...]]:
    """(judged, held out)."""
    rows = read_trace(setup.trace) if setup.trace is not None else synthetic()
    return hold_out(rows if setup.minutes is None else cut_trace(rows, 0.0, 60 * setup.minutes))


def synthetic() -> tuple[TraceRow, ...]:
    """An hour of 3.2-8.4 requests/s, as the minutes of Azure's conversation trace have them."""

    def rate(t: float) -> float:
        return 5.8 + 1.7 * math.sin(2 * math.pi * t / 1700) + 0.9 * math.sin(2 * math.pi * t / 310)

    return generate(rate, 3500.0, seed=2023, variation=1.09)


@lru_cache(maxsize=8)
def scenario(table: str, setup: Setup) -> Scenario:
    """A tier table whose cards were measured on the held-out arrivals."""
    declared = load_scenario(EXAMPLES / f"{table}.yaml", EXAMPLES / f"profile-{table}.yaml", setup.budget)
    return measure_cards(declared, arrivals(setup)[1], CARD_SEED).scenario


def comparison(table: str, setup: Setup, scale: float, seed: int) -> Comparison:
    """The trace at a scale, of a seed: no copy of it stays as it is, so that every seed differs."""
    load = ModelLoad(scenario(table, setup), *arrivals(setup))
    return Comparison((load,), scale, seed, RunSettings(), resample=True)


def full_rate(setup: Setup) -> float:
    """Requests/s of the best tier on all accelerators, by its card: loads that flap have to cross it."""
    best = scenario(TABLES[0], setup).best_affordable
    return best.rate * (setup.budget // best.accelerators)


def square_load(setup: Setup, half_period: float, seed: int) -> tuple[TraceRow, ...]:
    """A square wave x3, of two hours or at least three whole waves."""
    low = LOW_PART * full_rate(setup)
    seconds = max(FLAP_SECONDS, 6 * half_period)
    return generate(square_wave(low, 3 * low, half_period), seconds, seed)


def steady_load(setup: Setup, part: float, seed: int) -> tuple[TraceRow, ...]:
    """Two hours at one rate that moves by up to 5 % every 15 s."""
    rng = random.Random(seed)
    moves = [1 + rng.uniform(-0.05, 0.05) for _ in range(math.ceil(FLAP_SECONDS / 15) + 1)]
    base = part * full_rate(setup)
    return generate(lambda t: base * moves[int(t // 15)], FLAP_SECONDS, seed)


def fault_cases() -> Iterator[tuple[Fault, str, float]]:
    """Every kind of fault, while the load rises or falls, at every start."""
    return itertools.product(Fault, ("rising", "falling"), FAULT_STARTS)


def fault_load(setup: Setup, direction: str, start: float, seed: int) -> tuple[TraceRow, ...]:
    """The load changes threefold 20 s after the metrics went."""
    low = LOW_PART * full_rate(setup)
    before, after = (low, 3 * low) if direction == "rising" else (3 * low, low)
    rate: Rate = lambda t: before if t < start + 20 else after  # noqa: E731
    return generate(rate, FAULT_RUN_SECONDS, seed)


def fault_at(fault: Fault, start: float) -> FaultAt:
    """Five minutes of it."""
    return lambda now: fault if start <= now < start + FAULT_SECONDS else None
