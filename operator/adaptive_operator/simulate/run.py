"""One run: traces against one policy, from the first request until the last answer is out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.failing_loads import FailingLoads
from adaptive_operator.simulate.plant import PATIENCE_FACTOR, Accelerators, Ledger
from adaptive_operator.simulate.policies.base import Policy, PoolPolicy, Separate
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
    most_held_in_pool: int  # accelerators of all models together, at any moment


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """A node with so many accelerators goes away at `at` (seconds), with its pods, and comes back after `seconds`."""

    at: float
    accelerators: int
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How the world behaves. Times in seconds."""

    scrape_seconds: float = 15.0
    fault_at: FaultAt = lambda now: None
    losses: tuple[NodeLoss, ...] = ()
    failing_loads: tuple[FailingLoads, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a pool, and what arrives for it."""

    scenario: Scenario
    trace: tuple[TraceRow, ...]


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
    return run_pool((Part(scenario, trace),), Separate((policy,)), settings, progress)[0]


def run_pool(
    parts: Sequence[Part],
    policy: PoolPolicy,
    settings: RunSettings | None = None,
    progress: Progress = lambda part: None,
) -> tuple[RunResult, ...]:
    """The same for models that share the accelerators of the first one's budget; a result per model, in order.

    Raises ValueError when two models have one name.
    """
    if len({part.scenario.name for part in parts}) < len(parts):
        raise ValueError("two models of a pool have the same name")
    settings = settings or RunSettings()
    first = parts[0].scenario
    events, shared = EventQueue(), Accelerators(first.budget, surge=first.surge)
    worlds = [_world(part.scenario, settings, events, shared) for part in parts]
    seconds = max((part.trace[-1].arrival for part in parts if part.trace), default=0.0)
    policy.begin_pool(worlds)
    for world, part in zip(worlds, parts, strict=True):
        world.start(part.trace)
    for step in range(1, _STEPS + 1):
        events.at(seconds * step / _STEPS, partial(progress, step / _STEPS))
    for loss in settings.losses:
        events.at(loss.at, partial(shared.lose, loss.accelerators))
        if loss.seconds < math.inf:
            events.at(loss.at + loss.seconds, partial(shared.give_back, loss.accelerators))
    events.run_until(seconds)
    ledgers, most = [_copy(world.plant.close()) for world in worlds], shared.most
    patience = max(PATIENCE_FACTOR * p.scenario.ttft_seconds + p.scenario.spec.routing.max_queue_seconds for p in parts)
    events.run_until(seconds + patience + _TAIL_SECONDS)
    return tuple(
        _result(policy.name, world, ledger, seconds, most) for world, ledger in zip(worlds, ledgers, strict=True)
    )


def _world(scenario: Scenario, settings: RunSettings, events: EventQueue, shared: Accelerators) -> World:
    return World(
        scenario=scenario,
        scrape_seconds=settings.scrape_seconds,
        fault_at=settings.fault_at,
        events=events,
        shared=shared,
        failing_loads=settings.failing_loads,
    )


def _result(name: str, world: World, ledger: Ledger, seconds: float, most: int) -> RunResult:
    return RunResult(
        policy=name,
        scenario=world.scenario,
        seconds=seconds,
        requests=tuple(world.requests),
        ledger=ledger,
        samples=tuple(sample for sample in world.samples if sample.at <= seconds),
        changes=tuple(change for change in world.changes if change.at <= seconds),
        plan_seconds=tuple(world.plan_seconds),
        most_held_in_pool=most,
    )


def _copy(ledger: Ledger) -> Ledger:
    """As it is at the last arrival: what is held for the tail counts for nobody."""
    return Ledger(ledger.most, ledger.held_seconds, ledger.not_ready_seconds, ledger.starts)
