"""How long the operator's whole decision takes, from what was seen to what should run.

Seconds are wall time of `decide_pool` with what the operator remembers, so the models' own rules, the program and the
explanations are in them; reading and writing are not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from unittest import mock

from adaptive_operator.decide.by_plan import Solver
from adaptive_operator.decide.decision import PoolDecision
from adaptive_operator.decide.optimize.solve import solve
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import PoolObservation, Series
from adaptive_operator.pool_memory import PoolMemory
from benchmarks.planner_pools import TIERS
from stand_ins import plant as plants
from stand_ins.plant import Model, Plant, demo_spec, metrics, observe_one

NOW: Final = 10_000.0
PERIOD: Final = 15.0  # of the planner (seconds)
ONE, MANY = "1 model of 6 tiers", "1,000 models, 10 % changed"
MUST: Final = {ONE: 0.020, MANY: 5.0}
_SETTLING = 8  # passes in which a pool of many goes from nothing to what its loads need
_PRECISIONS = {"full": "bf16", "int4": "int4", "nested": "int4", "distilled": "int4"}


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision of a pool; `asked`: the pool's program was asked in it."""

    case: str
    seconds: float
    asked: bool


def decide_one_model(seeds: int) -> Iterator[Decided]:
    """A model that runs something, at 0.3 to 1.5 of what that carries; the status tells no explanation yet."""
    for seed in range(-1, seeds):  # the first call loads what is imported late
        dice = random.Random(seed)
        spec = demo_spec(accelerators={}, quality={"floorPermille": 900}, tiers=_six_tiers(dice))
        rate = dice.uniform(0.3, 1.5) * 3.0
        bins = tuple(rate * dice.uniform(0.9, 1.1) for _ in range(40))
        seen = replace(metrics(rate, peak=max(bins)), history=Series(bins, PERIOD, NOW))
        model = observe_one(spec, {"full": 1, "int8": 1, "int4": 1}, seen, NOW)
        pool = PoolObservation(NOW, "nvidia.com/gpu", 16, 1, 0.0, (model,))
        started = time.perf_counter()
        decided = decide_pool(pool, DecideSettings())
        seconds = time.perf_counter() - started
        if seed >= 0:
            yield Decided(ONE, seconds, decided.planned)


def _six_tiers(dice: random.Random) -> list[dict[str, Any]]:
    return [
        {
            "name": kind.name,
            "recipe": {"precision": _PRECISIONS.get(kind.name, "int8")},
            "replica": {"accelerators": 2 if kind.memory > 0.6 else 1, "cpu": "1", "memory": "16Gi"},
            "card": {
                "qualityPermille": round(1000 * kind.quality),
                "capacityMilliRequestsPerSecond": round(1000 * kind.speed * dice.uniform(0.85, 1.15)),
                "loadSeconds": dice.choice((20, 60, 155)),
            },
        }
        for kind in TIERS
    ]


def decide_many(passes: int, models: int = 1000, seed: int = 1) -> Iterator[Decided]:
    """A pool with less than its load needs; before each pass that counts a tenth of the models gets another load."""
    dice = random.Random(seed)
    spec = demo_spec(accelerators={}, quality={"floorPermille": 900}, routing={"warmTier": "int4"})
    rates = {f"m{index:04d}": min(4.0, 0.3 * dice.paretovariate(1.2)) for index in range(models)}
    pool = [Model(name, spec, lambda now, name=name: rates[name]) for name in rates]
    plant, memory, found = Plant(pool, budget=5 * models // 2, period=PERIOD), PoolMemory(solve), list[Decided]()
    with mock.patch.object(plants, "decide_pool", partial(_timed, memory, found)):
        for turn in range(_SETTLING + passes):
            for name in dice.sample(sorted(rates), models // 10) if turn >= _SETTLING else ():
                rates[name] *= dice.uniform(0.85, 1.15)
            plant.step()
            plant.now += PERIOD
    yield from found[_SETTLING:]


def _timed(
    memory: PoolMemory, found: list[Decided], observation: PoolObservation, settings: DecideSettings, _solver: Solver
) -> PoolDecision:
    started = time.perf_counter()
    decided = memory.decide_pool(memory.recall(observation), settings)
    found.append(Decided(MANY, time.perf_counter() - started, decided.planned))
    return decided
