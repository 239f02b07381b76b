"""What planning only what changed saves in a large pool, and misses: `python -m benchmarks.bench_parts`.

A plant of pods that load and drain, decided every 15 s with what the operator remembers between two passes. Each
program is solved as the operator would, and once more for all models. Seconds are the CPU's, so that other work on the
machine does not count.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from unittest import mock

from adaptive_operator.decide.by_plan import Solver
from adaptive_operator.decide.decision import PoolDecision
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import PoolObservation
from adaptive_operator.pool_memory import PoolMemory
from stand_ins import plant as plants
from stand_ins.plant import Model, Plant, demo_spec

PERIOD = 15.0  # of the planner (seconds)
DAY = 1800.0  # of a load's wave (seconds)


@dataclass(frozen=True, slots=True)
class Solved:
    """One program: how many models changed (None: all were planned), and both plans' CPU seconds and worth."""

    models: int
    changed: int | None
    seconds: float
    whole_seconds: float
    missed: float  # by the plan of a part, against the plan of all: share of the weighted demand
    decided_in: float = 0.0  # seconds of the pass's deciding beside the solver


@dataclass(slots=True)
class MeasuredPool:
    """A pool's memory whose solver notes what it was asked, and solves all models once more."""

    solved: list[Solved] = field(default_factory=list)
    memory: PoolMemory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = PoolMemory(self._solve)

    def decide(self, observation: PoolObservation, settings: DecideSettings, _solver: Solver) -> PoolDecision:
        """What the operator decides, noting how long it took without the solver."""
        programs, start = len(self.solved), time.process_time()
        decision = self.memory.decide_pool(self.memory.recall(observation), settings)
        took = time.process_time() - start
        for index in range(programs, len(self.solved)):
            asked = self.solved[index]
            both = asked.seconds + (asked.whole_seconds if asked.changed is not None else 0.0)
            self.solved[index] = replace(asked, decided_in=max(0.0, took - both))
        return decision

    def _solve(self, problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        plan, seconds = _timed(problem, changed)
        whole, whole_seconds = (plan, seconds) if changed is None else _timed(problem, None)
        missed = (whole.objective - plan.objective) / problem.weighted_demand
        count = None if changed is None else len(changed)
        self.solved.append(Solved(len(problem.models), count, seconds, whole_seconds, missed))
        return plan


def _timed(problem: Problem, changed: Collection[str] | None) -> tuple[PoolPlan, float]:
    start = time.process_time()
    plan = solve(problem, changed)
    return plan, time.process_time() - start


def build_plant(models: int, swing: float, seed: int = 1) -> Plant:
    """Models with the demo's tiers and Pareto(1.2) loads that swing by a share of their mean, 2.5 accelerators each."""
    dice = random.Random(seed)
    spec = demo_spec(accelerators={}, quality={"floorPermille": 900}, routing={"warmTier": "int4"})

    def build(index: int) -> Model:
        mean, phase = min(4.0, 0.3 * dice.paretovariate(1.2)), dice.uniform(0.0, 2 * math.pi)
        noise = random.Random(index)
        wave = 2 * math.pi / DAY
        return Model(
            f"m{index:04d}",
            spec,
            lambda now: mean * (1 + swing * math.sin(now * wave + phase)) * noise.uniform(0.97, 1.03),
        )

    return Plant([build(index) for index in range(models)], budget=5 * models // 2, period=PERIOD)


def measure(models: int, passes: int, swing: float) -> list[Solved]:
    """The programs of so many passes, which begin with an empty pool."""
    plant, pool = build_plant(models, swing), MeasuredPool()
    with mock.patch.object(plants, "decide_pool", pool.decide):
        for _ in range(passes):
            plant.step()
            plant.now += PERIOD
    return pool.solved


def describe(swing: float, found: Sequence[Solved]) -> str:
    """One line of the table; medians over the programs of which only a part was planned."""
    parts = [item for item in found if item.changed is not None]
    if not parts:
        return f"| {swing:.0%} | {len(found)} | 0 | - | - | - | - | - |"
    changed = statistics.median((item.changed or 0) / item.models for item in parts)
    seconds, whole, own = (
        statistics.median(column)
        for column in zip(*((p.seconds, p.whole_seconds, p.decided_in) for p in parts), strict=True)
    )
    missed = [item.missed for item in parts]
    return (
        f"| {swing:.0%} | {len(found)} | {len(parts)} | {changed:.0%} | {seconds:.2f} | {whole:.2f} | {own:.2f}"
        f" | {statistics.median(missed):.2%} / {max(missed):.2%} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Planning what changed against planning all (CPU seconds).")
    parser.add_argument("--models", type=int, default=400)
    parser.add_argument("--passes", type=int, default=30)
    parser.add_argument("--swing", type=float, nargs="+", default=[0.5, 0.1], help="of the loads, shares of their mean")
    options = parser.parse_args(arguments)
    print("| swing | programs | of a part | changed | part s | all s | deciding beside it s | missed, median / max |")
    print("|---|---|---|---|---|---|---|---|")
    for swing in options.swing:
        print(describe(swing, measure(options.models, options.passes, swing)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
