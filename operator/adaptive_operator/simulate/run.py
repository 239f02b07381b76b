"""One run: a trace against one policy, from the first request until the last answer is out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from adaptive_operator.simulate.plant import PATIENCE_FACTOR, Ledger
from adaptive_operator.simulate.policies.base import Policy
from adaptive_operator.simulate.requests import Request, TraceRow
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.scrapes import FaultAt
from adaptive_operator.simulate.world import Change, Sample, World

_TAIL_SECONDS: Final = 120.0  # answers that still run after the last arrival
_STEPS: Final = 100  # of progress

Progress = Callable[[float], None]  # 0..1


@dataclass(frozen=True, slots=True)
class RunResult:
    """What happened. `seconds` from the first request to the last arrival."""

    policy: str
    scenario: Scenario
    seconds: float
    requests: tuple[Request, ...]
    ledger: Ledger
    samples: tuple[Sample, ...]
    changes: tuple[Change, ...]
    plan_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How the world behaves. Times in seconds."""

    scrape_seconds: float = 15.0
    fault_at: FaultAt = lambda now: None


def run(
    scenario: Scenario,
    trace: tuple[TraceRow, ...],
    policy: Policy,
    settings: RunSettings | None = None,
    progress: Progress = lambda part: None,
) -> RunResult:
    """Run the trace. Deterministic: the same arguments give the same result but for the time that plans take.

    Raises BudgetError when the policy passes the budget.
    """
    settings = settings or RunSettings()
    world = World(scenario, settings.scrape_seconds, settings.fault_at)
    seconds = trace[-1].arrival if trace else 0.0
    policy.begin(world)
    world.start(trace)
    for step in range(1, _STEPS + 1):
        world.events.at(seconds * step / _STEPS, partial(progress, step / _STEPS))
    patience = PATIENCE_FACTOR * scenario.ttft_seconds + scenario.spec.routing.max_queue_seconds
    world.events.run_until(seconds)
    ledger = _copy(world.plant.close())
    world.events.run_until(seconds + patience + _TAIL_SECONDS)
    return RunResult(
        policy=policy.name,
        scenario=scenario,
        seconds=seconds,
        requests=tuple(world.requests),
        ledger=ledger,
        samples=tuple(sample for sample in world.samples if sample.at <= seconds),
        changes=tuple(change for change in world.changes if change.at <= seconds),
        plan_seconds=tuple(world.plan_seconds),
    )


def _copy(ledger: Ledger) -> Ledger:
    """As it is at the last arrival: what is held for the tail counts for nobody."""
    return Ledger(ledger.most, ledger.held_seconds, ledger.not_ready_seconds, ledger.starts)
