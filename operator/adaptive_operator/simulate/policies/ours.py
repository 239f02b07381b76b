"""Ours: the operator's own observe, decide and plan on the simulated cluster; only HTTP is left out.

Between two passes nothing is kept but what the cluster holds: objects, pods and the status.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.cards import card_of, horizon_seconds
from adaptive_operator.decide.decision import Decision, PoolDecision
from adaptive_operator.decide.optimize.solve import solve
from adaptive_operator.decide.period import planner_period
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.models import SeenModel, with_metrics
from adaptive_operator.observe.observation import ModelMetrics, ModelObservation, PoolObservation
from adaptive_operator.observe.pools import Pool, build_pools
from adaptive_operator.observe.prometheus import Rows
from adaptive_operator.observe.queries import SEASON_PERIODS, ModelScope, Windows, build_queries
from adaptive_operator.observe.readings import Readings, Subject
from adaptive_operator.observe.season import Past, bins_between, compared_seconds
from adaptive_operator.plan import PlanSettings, plan_model
from adaptive_operator.pool_memory import PoolMemory
from adaptive_operator.simulate.cluster import Cluster, merge
from adaptive_operator.simulate.events import EPOCH
from adaptive_operator.simulate.scrapes import NAMESPACE, merge_answers
from adaptive_operator.simulate.world import World
from inference_pods.router.table import parse_table

_NUDGE_SECONDS: Final = (
    0.3  # the operator waits so long after a change, so that changes that come together are one pass
)
_LEASE_EPOCH: Final = 1


Adjust = Callable[[ModelMetrics, float], ModelMetrics]  # of what was read, at a time (seconds of the simulation)
EditSpec = Callable[[AdaptiveModelSpec], AdaptiveModelSpec]


@dataclass(frozen=True, slots=True)
class Record:
    """One pass: when, what was seen, and what was decided."""

    at: float
    observation: PoolObservation
    decision: PoolDecision


@dataclass(slots=True)
class _Model:
    """One model of the pool: its world, its objects, and the table that its router has."""

    world: World
    cluster: Cluster
    table: str | None = None


@dataclass(slots=True)
class AdaptivePolicy:
    """The operator, of one model or of a pool of them. `settings` None: its defaults with the world's scrape interval.

    `adjust` by model, `edit_spec`, `fast_loop` and `swap_cost` are for oracles and for runs with a part switched off.
    """

    name: str = "ours"
    settings: DecideSettings | None = None
    clock: Callable[[], float] = time.perf_counter  # for the time that a plan takes
    keep_records: bool = False
    adjust: Mapping[str, Adjust] = field(default_factory=dict)
    edit_spec: EditSpec = lambda spec: spec
    fast_loop: bool = True
    season_seconds: float = 86_400.0  # after which the load is expected to repeat itself
    swap_cost: bool = True  # whether the pool's program hears of the last plan's prices, by which starts cost
    records: list[Record] = field(default_factory=list)
    _models: dict[str, _Model] = field(init=False)
    _first: World = field(init=False)  # clock and accelerators are the same in all
    _settings: DecideSettings = field(init=False)
    _plan_settings: PlanSettings = field(init=False)
    _memory: PoolMemory = field(default_factory=lambda: PoolMemory(solve))  # of the last plan, the operator's own
    _in_flight: bool = False  # whether a swap is, after the last pass
    _planned_at: float = 0.0  # when the last pass began that no change called for
    _nudged: bool = False

    def begin(self, world: World) -> None:
        """A model alone."""
        self.begin_pool((world,))

    def begin_pool(self, worlds: Sequence[World]) -> None:
        """The first pass runs at once, the next ones every period and a moment after pods changed."""
        self._first = worlds[0]
        self._models = {
            w.scenario.name: _Model(w, Cluster(w.plant, w.scenario.name, self.edit_spec(w.scenario.spec)))
            for w in worlds
        }
        self._settings = self.settings or DecideSettings(scrape_interval_seconds=self._first.scrape_seconds)
        self._plan_settings = PlanSettings("engine:simulated", "router:simulated")
        for world in worlds:
            world.on_change.append(self._pods_changed)
            if not self.fast_loop:
                world.dispatcher.follow_weights()
        self._first.plant.shared.on_change.append(self._pods_changed)
        self._pass_for_ever()

    def _pass_for_ever(self) -> None:
        self._planned_at = self._first.events.now
        self._run_pass()
        self._await_next()

    def _await_next(self) -> None:
        """Looks again at the operator's period at the latest: a swap may have begun, and be worth a pass."""
        left = self._planned_at + self._period() - self._first.events.now
        if left <= 0:
            self._pass_for_ever()
        else:
            self._first.events.after(min(left, self._settings.planner_period_seconds), self._await_next)

    def _period(self) -> float:
        own = [model.cluster.spec.scaling.planner_period_seconds for model in self._models.values()]
        return planner_period(own, self._settings.planner_period_seconds, in_flight=self._in_flight)

    def _pods_changed(self) -> None:
        if not self._nudged:
            self._nudged = True
            self._first.events.after(_NUDGE_SECONDS, self._pass_after_nudge)

    def _pass_after_nudge(self) -> None:
        self._nudged = False
        for model in self._models.values():
            model.cluster.run_controllers()
        self._run_pass()

    def _run_pass(self) -> None:
        now = EPOCH + self._first.events.now
        observation = self._observe(now)
        if observation is None:
            return
        started = self.clock()
        decided = self._memory.decide_pool(observation, self._settings)
        self._in_flight = any(decision.swap is not None for decision in decided.decisions)
        seconds = self.clock() - started
        if self.keep_records:
            self.records.append(Record(self._first.events.now, observation, decided))
        for seen, decision in zip(observation.models, decided.decisions, strict=True):
            model = self._models[seen.name]
            model.world.plan_seconds.append(seconds)
            model.world.note_change(decision.replicas, decision.reason.value)
            self._act(model, seen, decision, now)

    def _find_pool(self, now: float) -> Pool | None:
        """The models as read; None while an AcceleratorPool has no node at all: they keep what they have."""
        resource, shared = self._first.scenario.spec.accelerators.resource, self._first.plant.shared
        named = self._first.scenario.pool
        snapshots = [model.cluster.snapshot() for model in self._models.values()]
        if named is None:
            return build_pools(merge(snapshots), {resource: shared.available}, now).pools[0]
        seen = build_pools(merge(snapshots, [named.raw(NAMESPACE)]), {}, now, named.advertised(shared.on_nodes))
        return seen.pools[0] if seen.pools else None

    def _observe(self, now: float) -> PoolObservation | None:
        pool = self._find_pool(now)
        if pool is None:
            return None
        holds = {seen.observation.name: seen.observation.hold_seconds for seen in pool.models}
        scopes = [ModelScope(NAMESPACE, name, seconds) for name, seconds in sorted(holds.items())]
        windows = Windows(self._first.scrape_seconds)
        queries = build_queries(scopes, windows)
        answers = merge_answers([model.world.scraper.answer(queries) for model in self._models.values()])
        horizons = [self._horizon(seen) for seen in pool.models]
        past = self._past(now, max(horizons), windows)
        readings = Readings(answers, now, lambda _query, _cause: None, windows, past)
        models = tuple(
            with_metrics(seen, self._read(readings, seen, pool.budget, horizon))
            for seen, horizon in zip(pool.models, horizons, strict=True)
        )
        seen = PoolObservation(
            now=now,
            resource=pool.resource,
            budget=pool.budget,
            epoch=_LEASE_EPOCH,
            acting_since=EPOCH,
            models=models,
            name=pool.name,
            surge=pool.surge,
            shares=pool.declared.shares if pool.declared is not None else (),
            division=pool.division,
        )
        remembered = self._memory.recall(seen)
        return remembered if self.swap_cost else replace(remembered, prices={})

    def _horizon(self, model: SeenModel) -> float:
        spec = model.observation.spec
        return horizon_seconds(spec, (card_of(tier, self._settings) for tier in spec.tiers), self._settings)

    def _past(self, now: float, ahead: float, windows: Windows) -> Past:
        begin, end = bins_between(now, compared_seconds(windows), ahead, windows.season_bin_seconds)
        answers = []
        for back in range(1, SEASON_PERIODS + 1):
            shift = back * self.season_seconds
            parts = [model.world.scraper.past(begin - shift, end - shift) for model in self._models.values()]
            answers.append(Rows({}, series={key: found for part in parts for key, found in part.series.items()}))
        return Past(tuple(answers), self.season_seconds)

    def _read(self, readings: Readings, model: SeenModel, budget: int, horizon: float) -> ModelMetrics:
        seen = model.observation
        subject = Subject(
            seen.namespace, seen.name, seen.spec, budget, seen.pods, model.routers, seen.hold_seconds, horizon
        )
        metrics = readings.read_model(subject)
        adjust = self.adjust.get(seen.name)
        return metrics if adjust is None else adjust(metrics, self._first.events.now)

    def _act(self, model: _Model, seen: ModelObservation, decision: Decision, now: float) -> None:
        for step in plan_model(seen, decision, self._plan_settings, now, _LEASE_EPOCH).steps:
            model.cluster.take(step)
        model.cluster.run_controllers()
        table = model.cluster.table()
        if table is not None and table != model.table:
            model.table = table
            model.world.dispatcher.offer_table(parse_table(table, seen.name))
