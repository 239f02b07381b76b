"""Ours: the operator's own observe, decide and plan on the simulated cluster; only HTTP is left out.

Between two passes nothing is kept but what the cluster holds: objects, pods and the status.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.models import with_metrics
from adaptive_operator.observe.observation import ModelMetrics, ModelObservation, PoolObservation
from adaptive_operator.observe.pools import Pool, build_pools
from adaptive_operator.observe.queries import ModelScope, Windows, build_queries
from adaptive_operator.observe.readings import Readings, Subject
from adaptive_operator.plan import PlanSettings, plan_model
from adaptive_operator.simulate.cluster import Cluster
from adaptive_operator.simulate.events import EPOCH
from adaptive_operator.simulate.world import World
from inference_pods.router.table import parse_table

_NUDGE_SECONDS: Final = (
    0.3  # the operator waits so long after a change, so that changes that come together are one pass
)
_LEASE_EPOCH: Final = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One pass: when, what was seen, and what was decided."""

    at: float
    observation: PoolObservation
    decision: Decision


@dataclass(slots=True)
class AdaptivePolicy:
    """The operator. `settings` None: its defaults with the world's scrape interval."""

    name: str = "ours"
    settings: DecideSettings | None = None
    clock: Callable[[], float] = time.perf_counter  # for the time that a plan takes
    keep_records: bool = False
    adjust: Callable[[ModelMetrics, float], ModelMetrics] = lambda metrics, now: metrics  # of what was read, at `now`
    records: list[Record] = field(default_factory=list)
    _world: World = field(init=False)
    _cluster: Cluster = field(init=False)
    _settings: DecideSettings = field(init=False)
    _plan_settings: PlanSettings = field(init=False)
    _nudged: bool = False
    _table: str | None = None

    def begin(self, world: World) -> None:
        """The first pass runs at once, the next ones every period and a moment after pods changed."""
        self._world = world
        self._cluster = Cluster(world.plant, world.scenario.name, world.scenario.spec)
        self._settings = self.settings or DecideSettings(scrape_interval_seconds=world.scrape_seconds)
        self._plan_settings = PlanSettings("engine:simulated", "router:simulated")
        world.on_change.append(self._pods_changed)
        self._pass_for_ever()

    def _pass_for_ever(self) -> None:
        self._run_pass()
        own = self._world.scenario.spec.scaling.planner_period_seconds
        self._world.events.after(own or self._settings.planner_period_seconds, self._pass_for_ever)

    def _pods_changed(self) -> None:
        if not self._nudged:
            self._nudged = True
            self._world.events.after(_NUDGE_SECONDS, self._pass_after_nudge)

    def _pass_after_nudge(self) -> None:
        self._nudged = False
        self._cluster.run_controllers()
        self._run_pass()

    def _run_pass(self) -> None:
        now = EPOCH + self._world.events.now
        observation = self._observe(now)
        model = observation.models[0]
        started = self.clock()
        decision = decide_pool(observation, self._settings).decisions[0]
        self._world.plan_seconds.append(self.clock() - started)
        self._world.note_change(decision.replicas, decision.reason.value)
        if self.keep_records:
            self.records.append(Record(self._world.events.now, observation, decision))
        self._act(model, decision, now)

    def _observe(self, now: float) -> PoolObservation:
        scenario, windows = self._world.scenario, Windows(self._world.scrape_seconds)
        resource = scenario.spec.accelerators.resource
        pool = build_pools(self._cluster.snapshot(), {resource: scenario.budget}, now).pools[0]
        seen = pool.models[0]
        scope = ModelScope(seen.observation.namespace, seen.observation.name, scenario.spec.scaling.hold_seconds)
        answers = self._world.scraper.answer(build_queries([scope], windows))
        readings = Readings(answers, now, lambda _query, _cause: None, windows)
        metrics = self.adjust(readings.read_model(self._subject(pool)), self._world.events.now)
        model = with_metrics(seen, metrics)
        return PoolObservation(now, resource, pool.budget, _LEASE_EPOCH, EPOCH, (model,))

    def _subject(self, pool: Pool) -> Subject:
        seen, routers = pool.models[0].observation, pool.models[0].routers
        return Subject(seen.namespace, seen.name, seen.spec, pool.budget, seen.pods, routers)

    def _act(self, model: ModelObservation, decision: Decision, now: float) -> None:
        for step in plan_model(model, decision, self._plan_settings, now, _LEASE_EPOCH).steps:
            self._cluster.take(step)
        self._cluster.run_controllers()
        table = self._cluster.table()
        if table is not None and table != self._table:
            self._table = table
            self._world.dispatcher.offer_table(parse_table(table, self._world.scenario.name))
