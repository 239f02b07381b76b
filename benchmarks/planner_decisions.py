"""The operator's whole decision, from what was seen to what should run: how long it takes, and if it keeps a budget.

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

from adaptive_operator.decide.decision import PoolDecision
from adaptive_operator.decide.optimize.solve import solve
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import PoolObservation, Series
from adaptive_operator.pool_memory import PoolMemory
from adaptive_operator.simulate.generators import Rate, ahead, flash_crowd, generate, square_wave, steady
from adaptive_operator.simulate.plant import BudgetError
from adaptive_operator.simulate.policies.ours import AdaptivePolicy, Record
from adaptive_operator.simulate.run import NodeLoss, Part, RunSettings, run_pool
from adaptive_operator.simulate.scenario import load_scenario
from adaptive_operator.simulate.scrapes import Fault
from benchmarks.planner_pools import TIERS
from benchmarks.policy_scenes import EXAMPLES
from tests.operator.decide import plant as plants
from tests.operator.decide.plant import Model, Plant, demo_spec, metrics, observe_one

NOW: Final = 10_000.0
PERIOD: Final = 15.0  # of the planner (seconds)
ONE, MANY = "1 model of 6 tiers", "1,000 models, 10 % changed"
MUST: Final = {ONE: 0.020, MANY: 5.0}
_SETTLING = 8  # passes in which a pool of many goes from nothing to what its loads need
_PRECISIONS = {"full": "bf16", "int4": "int4", "nested": "int4", "distilled": "int4"}
_RUN_SECONDS = 600.0
_BUDGET = 6


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision of a pool; `asked`: the pool's program was asked in it."""

    case: str
    seconds: float
    asked: bool


@dataclass(frozen=True, slots=True)
class Kept:
    """A simulated run: pods that were made, and accelerators granted beyond what was there and not held already."""

    starts: int
    decisions: int
    beyond: int


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
    memory: PoolMemory, found: list[Decided], observation: PoolObservation, settings: DecideSettings
) -> PoolDecision:
    started = time.perf_counter()
    decided = memory.decide_pool(memory.recall(observation), settings)
    found.append(Decided(MANY, time.perf_counter() - started, decided.planned))
    return decided


def keep_budget(seeds: int) -> Iterator[Kept]:
    """Three models on one budget, three kinds of load, while metrics fail and nodes come and go."""
    for seed in range(seeds):
        for rate in (square_wave(2.0, 20.0, 60.0), flash_crowd(2.0, 30.0, 200.0, decay=100.0), steady(9.0)):
            yield _run_one(rate, seed)


def _run_one(rate: Rate, seed: int) -> Kept:
    dice = random.Random(seed)
    scenario = load_scenario(EXAMPLES / "uniform.yaml", EXAMPLES / "profile-uniform.yaml", _BUDGET)
    parts = [
        Part(replace(scenario, name=f"m{i}"), generate(ahead(rate, 70.0 * i), _RUN_SECONDS, seed + i)) for i in range(3)
    ]
    fault, since = dice.choice([*Fault]), dice.uniform(0.0, 400.0)
    losses = tuple(
        NodeLoss(dice.uniform(10.0, 550.0), dice.randint(1, 3), dice.choice((30.0, 120.0, 600.0))) for _ in range(3)
    )
    settings = RunSettings(fault_at=lambda now: fault if since <= now < since + 150 else None, losses=losses)
    policy = AdaptivePolicy(keep_records=True)
    try:
        results = run_pool(parts, policy, settings)
    except BudgetError:
        return Kept(0, len(policy.records), 1)
    beyond = max(_granted_beyond(record, losses) for record in policy.records)
    return Kept(sum(result.ledger.starts for result in results), len(policy.records), beyond)


def _granted_beyond(record: Record, losses: tuple[NodeLoss, ...]) -> int:
    """What is held when a node goes is not taken back by a decision, but nothing may come on top."""
    lost = sum(loss.accelerators for loss in losses if loss.at <= record.at < loss.at + loss.seconds)
    held = sum(held_accelerators(model) for model in record.observation.models)
    granted = sum(decision.accelerators_granted for decision in record.decision.decisions)
    return max(0, granted - max(_BUDGET - lost, held))
