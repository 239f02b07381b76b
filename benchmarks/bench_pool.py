"""What the pool's program is worth: several models on one budget, divided by need alone and by the program's plan.

The planner decides for a plant of pods that load and drain; what is served is the fluid limit of its cards, so the
figures show the division and nothing of queues. `python -m benchmarks.bench_pool`, about a minute.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from unittest import mock

from adaptive_operator.decide import by_plan
from adaptive_operator.decide.fill import fill
from adaptive_operator.decide.flaps import Mixes, flap_seconds, follow
from adaptive_operator.decide.optimize.problem import Limit, Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve
from adaptive_operator.observe.observation import ModelMetrics, PodPhase, Series
from adaptive_operator.observe.queries import HISTORY_BINS
from stand_ins import plant as plants
from stand_ins.plant import Model, Plant, demo_spec, metrics
from stand_ins.solver import solve_once

START = 10_000.0
PERIOD = 15  # of the planner, and of a bin (seconds)
HOLD_SECONDS = 120
STARTS_AT_ONCE = 0.2  # of a pool's accelerators, where the program limits what may start
Load = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Way:
    """How a pool is divided: by its plan, with a forecast in the readings, with a limit on what a plan starts."""

    name: str
    planned: bool = True
    forecast: bool = False
    limited: bool = False


WAYS = (
    Way("by need", planned=False),
    Way("by plan"),
    Way("with forecast", forecast=True),
    Way("starts limited", limited=True),
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Loads (requests/s over seconds since the start) of models with the demo's tiers on one budget."""

    name: str
    budget: int
    loads: tuple[Load, ...]


@dataclass(slots=True)
class Score:
    """Requests of one run."""

    asked: float = 0.0
    refused: float = 0.0
    quality: float = 0.0  # sum over what was served
    changes: int = 0
    flaps: int = 0
    _mixes: dict[str, Mixes] = field(default_factory=dict)  # by name of the model

    def figures(self) -> tuple[float, float, int, int]:
        """Refused (percent), mean quality of what was served, changes, flaps."""
        served = max(1e-9, self.asked - self.refused)
        return 100 * self.refused / self.asked, self.quality / served, self.changes, self.flaps

    def note(self, plant: Plant) -> None:
        """One step of all models: the demand filled into the replicas that are ready, best quality first."""
        for model in plant.models:
            demand = model.load(plant.now)
            ready = [p.tier for p in model.pods if plant._phase(p) is PodPhase.READY]
            cards = [(t.name, t.card) for t in model.spec.tiers if t.card is not None]
            rates = [ready.count(name) * (card.capacity_milli_requests_per_second or 0) / 1000 for name, card in cards]
            filled = fill(
                demand, rates, [card.quality_permille for _, card in cards], model.spec.quality.floor_permille
            )
            self.asked += demand
            self.refused += filled.unserved
            self.quality += filled.quality_permille / 1000 * (demand - filled.unserved)
            self._note_mix(model, plant)

    def _note_mix(self, model: Model, plant: Plant) -> None:
        before, replicas = self._mixes.get(model.name), model.decisions[-1][1].replicas
        now, is_flap = follow(before, replicas, plant.now, flap_seconds([plant.load_seconds]))
        self._mixes[model.name] = now
        self.changes += before is not None and now != before
        self.flaps += is_flap


def square(low: float, high: float, half: float, phase: float = 0.0) -> Load:
    """`high` and `low` in turn, `half` seconds each."""
    return lambda now: high if int((now - START + phase) // half) % 2 else low


def wave(low: float, high: float, period: float, phase: float) -> Load:
    """A sine between two rates; `phase` in periods."""
    return lambda now: low + (high - low) * (1 + math.sin(2 * math.pi * ((now - START) / period + phase))) / 2


def scenarios() -> list[Scenario]:
    """The loads that are compared."""
    dice = random.Random(7)
    return [
        Scenario("one model, square", 4, (square(0.4, 1.8, 900),)),
        Scenario("two in antiphase, square", 6, (square(0.3, 2.4, 900), square(2.4, 0.3, 900))),
        Scenario("three in antiphase, sine", 9, tuple(wave(0.2, 3.2, 3600, i / 3) for i in range(3))),
        Scenario("a calm one came first, a busy one later", 6, (lambda _: 1.2, square(0.2, 2.6, 1800))),
        Scenario(
            "eight, random sines",
            20,
            tuple(wave(0.1, dice.uniform(0.5, 4), dice.uniform(1800, 5400), dice.random()) for _ in range(8)),
        ),
    ]


def draw(seed: int) -> Scenario:
    """Models at random: two to eight, sines or squares, on what about their mean loads take on the cheap tiers."""
    dice = random.Random(seed)
    loads, mean = [], 0.0
    for _ in range(dice.randint(2, 8)):
        low, high, period = dice.uniform(0.1, 1.0), dice.uniform(1.0, 4.0), dice.uniform(900, 3600)
        phase, mean = dice.random(), mean + (low + high) / 2
        is_wave = dice.random() < 0.5
        loads.append(wave(low, high, period, phase) if is_wave else square(low, high, period / 2, phase * period))
    return Scenario(f"draw {seed}", max(4, math.ceil(dice.uniform(0.9, 1.5) * mean / 0.6)), tuple(loads))


def with_history(model: Model) -> Callable[[float], ModelMetrics]:
    """The readings of a model with its arrivals in bins, as the operator would have them."""

    def read(now: float) -> ModelMetrics:
        seen = [(at, rate) for at, rate in model.arrivals if at > now - HISTORY_BINS * PERIOD]
        peak = max((rate for at, rate in seen if at >= now - HOLD_SECONDS), default=0.0)
        bins = [rate for _, rate in seen][-HISTORY_BINS:]
        return replace(metrics(model.load(now), peak=peak), history=Series(tuple(bins), PERIOD, now))

    return read


def solve_with_few_starts(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
    """The plan that starts no more than a fifth of the accelerators at once, or one largest replica."""
    budget = problem.limits[0]
    largest = max(column.accelerators for model in problem.models for column in model.columns)
    most = max(math.floor(STARTS_AT_ONCE * budget.accelerators), largest)
    return solve(replace(problem, limits=(*problem.limits, Limit(budget.shape, most, starts=True))), changed)


def run(scenario: Scenario, seconds: float, way: Way) -> Score:
    """One run. Without a plan none is ever worth following."""
    scaling = {
        **plants.DEMO_SCALING,
        "dwellSeconds": HOLD_SECONDS,
        "holdSeconds": HOLD_SECONDS,
        "plannerPeriodSeconds": PERIOD,
    }
    spec = demo_spec(accelerators={}, scaling=scaling, quality={"floorPermille": 750})
    models = [Model(f"m{i}", spec, load) for i, load in enumerate(scenario.loads)]
    for model in models if way.forecast else ():
        model.metrics = with_history(model)
    plant = Plant(models, budget=scenario.budget, period=PERIOD, now=START)
    score = Score()
    least = by_plan._LEAST_GAIN if way.planned else math.inf
    solver = solve_with_few_starts if way.limited else solve_once
    with mock.patch.object(by_plan, "_LEAST_GAIN", least), mock.patch.object(plants, "solve_once", solver):
        while plant.now < START + seconds:
            plant.step()
            score.note(plant)
            plant.now += plant.period
    return score


def compare_draws(draws: int, seconds: float) -> None:
    """Print what a limit on starts changes, over draws: mean of the paired differences, and their 95 % interval."""
    differences: dict[str, list[float]] = {"refused, % of requests": [], "quality": [], "changes": [], "flaps": []}
    for seed in range(draws):
        plain, limited = (run(draw(seed), seconds, way) for way in (Way("by plan"), Way("", limited=True)))
        pairs = [(a, b) for a, b in zip(plain.figures(), limited.figures(), strict=True)]
        for values, (before, after) in zip(differences.values(), pairs, strict=True):
            values.append(after - before)
        print(f"draw {seed}: {', '.join(f'{a:.4g} -> {b:.4g}' for a, b in pairs)}", flush=True)
    for name, values in differences.items():
        half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
        print(f"{name}: starts limited - by plan {statistics.mean(values):+.4f} +- {half:.4f}")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--draws", type=int, default=0, help="compare a limit on starts over so many random pools")
    options = parser.parse_args()
    if options.draws > 1:
        compare_draws(options.draws, options.hours * 3600)
        return 0
    print(f"{'scenario':<42}{'divided':<16}{'refused':>9}{'quality':>9}{'changes':>9}{'flaps':>7}")
    for scenario in scenarios():
        for way in WAYS:
            score = run(scenario, options.hours * 3600, way)
            refused, quality, changes, flaps = score.figures()
            print(
                f"{scenario.name:<42}{way.name:<16}{refused:>7.2f} %{quality:>9.4f}{changes:>9}{flaps:>7}", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
