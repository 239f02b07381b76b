"""How long a pass holds up the event loop: `python -m benchmarks.bench_loop [--models 20 100] [--passes 10]`.

A task that wants to run every millisecond tells by how much it came late, while the real pass goes over one pool: half
of its models have too much to do, so that the program is solved in every pass. "By need" is the same pass without a
program: the difference is what the program adds. The API server is in memory, so nothing here waits for a network; the
decoding of its answers is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from adaptive_operator.apply.events import EventRecorder
from adaptive_operator.apply.lease import LeaseHolder, LeaseSettings
from adaptive_operator.apply.steps import StepTaker
from adaptive_operator.decide.decision import PoolDecision
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.observe.cluster import ClusterReader
from adaptive_operator.observe.inventory import NodeInventory
from adaptive_operator.observe.last_answers import LastAnswers
from adaptive_operator.observe.models import with_metrics
from adaptive_operator.observe.observation import Planning, PoolObservation
from adaptive_operator.observe.pools import Pool
from adaptive_operator.observe.queries import Windows
from adaptive_operator.plan.model import plan_model
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.policy import Policy
from adaptive_operator.pool_memory import PoolMemory
from adaptive_operator.reconcile import PassSettings, Reconciler
from adaptive_operator.solving import SolverProcess
from stand_ins.fake_kube import FakeKube
from stand_ins.no_prometheus import NoPrometheus
from stand_ins.plant import demo_spec, metrics, observe_one
from stand_ins.raw_objects import RESOURCE, build_model

NOW = 1767225700.0
BEAT_SECONDS = 0.001
CALM, BUSY = ({"full": 1, "int4": 1}, 0.35), ({"int8": 1, "int4": 1}, 2.5)  # replicas, requests/s
MOST_ADDED_SECONDS = 0.05  # by the program


@dataclass(slots=True)
class Beats:
    """When the event loop came round, and by how much that was late (seconds)."""

    late: list[tuple[float, float]] = field(default_factory=list)

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            now = time.perf_counter()
            self.late.append((now, now - due))

    def worst(self, start: float, end: float) -> float:
        """The longest that the loop was held up at some moment from `start` to `end`."""
        return max((late for at, late in self.late if at >= start and at - late <= end), default=0.0)


@dataclass(frozen=True, slots=True)
class Pauses:
    """Of one pass (seconds): the longest while the pool was decided, and in the whole pass; how long deciding took."""

    deciding: float
    whole: float
    decided_in: float
    solved: bool


@dataclass(slots=True)
class MeasuredPass(Reconciler):
    """The pass, on readings and replicas that keep it busy; notes when it decides."""

    planning: Planning = Planning.SOLVED
    decided: list[tuple[float, float, bool]] = field(default_factory=list)

    async def _observe(self, pool: Pool, epoch: int) -> PoolObservation:
        await asyncio.sleep(0.01)  # as an answer of Prometheus
        models = []
        for index, seen in enumerate(pool.models):
            mix, rate = BUSY if index % 2 else CALM
            model = observe_one(_SPEC, mix, metrics(rate), NOW, seen.observation.name)
            models.append(replace(with_metrics(seen, model.metrics), **_running(model)))
        return PoolObservation(NOW, pool.resource, pool.budget, epoch, 0.0, tuple(models))

    def decide_pool(self, pool: PoolObservation, settings: DecideSettings) -> PoolDecision:
        """Decide, noting when."""
        start = time.perf_counter()
        decision = self.memory.decide_pool(replace(pool, planning=self.planning), settings)
        self.decided.append((start, time.perf_counter(), decision.planned))
        return decision


_SPEC = demo_spec(accelerators={}, quality={"floorPermille": 900}, routing={"warmTier": "int4"})


def _running(model: object) -> dict[str, object]:
    names = ("spec", "memory", "swap", "status", "stateful_sets", "pods", "generation")
    return {name: getattr(model, name) for name in names}


def build_pass(models: int, planning: Planning, solver: SolverProcess) -> MeasuredPass:
    """A pool of so many models, each with two or three accelerators of the budget."""
    kube = FakeKube([build_model(f"m{i:03d}", accelerators={"resource": RESOURCE}) for i in range(models)])
    lease = LeaseHolder(kube, LeaseSettings("system", "lock", "me", 3600.0), wall_clock=lambda: NOW)
    budget = sum(
        sum(n * (2 if t == "full" else 1) for t, n in (BUSY if i % 2 else CALM)[0].items()) for i in range(models)
    )
    measured = MeasuredPass(
        cluster=ClusterReader(kube),
        nodes=NodeInventory(kube),
        prometheus=LastAnswers(NoPrometheus(), asyncio.Event()),
        policy=Policy(
            lambda pool, settings: measured.decide_pool(pool, settings),
            plan_model,
            DecideSettings(),
            PlanSettings("engine:1", "router:1"),
        ),
        steps=StepTaker(kube, lease, EventRecorder(kube, "me"), wall_clock=lambda: NOW),
        lease=lease,
        metrics=OperatorMetrics(),
        settings=PassSettings({RESOURCE: budget}, Windows(2.0), 30.0),
        memory=PoolMemory(solver.solve, prepare=solver.prepare),
        wall_clock=lambda: NOW,
        planning=planning,
    )
    return measured


async def measure(models: int, planning: Planning, passes: int) -> list[Pauses]:
    """Passes over a pool of so many models; the first, which makes everything, is left out."""
    solver = SolverProcess(60.0)
    measured = build_pass(models, planning, solver)
    await measured.lease.step()
    found = []
    try:
        for index in range(passes + 1):
            beats = Beats()
            beating = asyncio.create_task(beats.run())
            await asyncio.sleep(0.02)
            start = time.perf_counter()
            await measured.run_pass()
            end = time.perf_counter()
            await asyncio.sleep(0.02)
            beating.cancel()
            since, until, solved = measured.decided[-1]
            if index:
                found.append(Pauses(beats.worst(since, until), beats.worst(start, end), until - since, solved))
            gc.collect()
    finally:
        solver.close()
    return found


def describe(name: str, found: Sequence[Pauses]) -> str:
    """One line of the table, in milliseconds."""
    solved = sum(p.solved for p in found)
    columns = ([p.deciding for p in found], [p.whole for p in found])
    cells = [f"{1000 * statistics.median(c):.0f} / {1000 * max(c):.0f}" for c in columns]
    took = 1000 * statistics.median(p.decided_in for p in found)
    return f"| {name} | {len(found)} | {solved} | {took:.0f} | {cells[0]} | {cells[1]} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How long a pass holds up the event loop (milliseconds).")
    parser.add_argument("--models", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--passes", type=int, default=10)
    options = parser.parse_args(arguments)
    print("| pool | passes | solved | decided in | pause while deciding, median / max | in the whole pass |")
    print("|---|---|---|---|---|---|")
    missed = False
    for models in options.models:
        added = []
        for planning in (Planning.BY_NEED, Planning.SOLVED):
            found = asyncio.run(measure(models, planning, options.passes))
            added.append(statistics.median(p.deciding for p in found))
            how = "by need" if planning is Planning.BY_NEED else "by plan"
            print(describe(f"{models} models, {how}", found), flush=True)
        missed = missed or added[1] - added[0] > MOST_ADDED_SECONDS
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
