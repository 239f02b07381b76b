"""Whether a pool of simulated models keeps its budget while metrics fail and nodes come and go."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.simulate.generators import Rate, ahead, flash_crowd, generate, square_wave, steady
from adaptive_operator.simulate.plant import BudgetError
from adaptive_operator.simulate.policies.ours import AdaptivePolicy, Record
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import NodeLoss, Part, RunSettings, run_pool
from adaptive_operator.simulate.scaling import cut_trace
from adaptive_operator.simulate.scenario import load_scenario
from adaptive_operator.simulate.scrapes import Fault
from benchmarks.policy_scenes import EXAMPLES

_RUN_SECONDS: Final = 600.0
_BUDGET: Final = 6


@dataclass(frozen=True, slots=True)
class Kept:
    """A simulated run: pods that were made, and accelerators granted beyond what was there and not held already."""

    starts: int
    decisions: int
    beyond: int


def keep_budget(seeds: int, trace: Sequence[TraceRow] = ()) -> Iterator[Kept]:
    """Three models on one budget, three kinds of load, while metrics fail and nodes come and go.

    With a trace there is a fourth model, with ten minutes of it: other ones for each seed.
    """
    for seed in range(seeds):
        for rate in (square_wave(2.0, 20.0, 60.0), flash_crowd(2.0, 30.0, 200.0, decay=100.0), steady(9.0)):
            yield _run_one(rate, seed, cut_minutes(trace, seed))


def cut_minutes(trace: Sequence[TraceRow], seed: int) -> tuple[TraceRow, ...]:
    """The minutes of a trace that a run of this seed simulates, times from 0; nothing of no trace."""
    spare = trace[-1].arrival - _RUN_SECONDS if trace else 0.0
    begin = random.Random(f"trace/{seed}").uniform(0.0, max(spare, 0.0))
    return cut_trace(trace, begin, begin + _RUN_SECONDS)


def _run_one(rate: Rate, seed: int, recorded: tuple[TraceRow, ...]) -> Kept:
    dice = random.Random(seed)
    scenario = load_scenario(EXAMPLES / "uniform.yaml", EXAMPLES / "profile-uniform.yaml", _BUDGET)
    parts = [
        Part(replace(scenario, name=f"m{i}"), generate(ahead(rate, 70.0 * i), _RUN_SECONDS, seed + i)) for i in range(3)
    ]
    parts += [Part(replace(scenario, name="recorded"), recorded)] if recorded else []
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
