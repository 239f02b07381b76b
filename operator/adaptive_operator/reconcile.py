"""One pass: observe → decide (per pool) → plan, apply (per model) → report. Level-based: nothing waits for an effect.

Knows the order of things and who may fail without hurting whom; every step itself lives elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.apply.lease import LeaseHolder, NotLeaderError
from adaptive_operator.apply.steps import ModelTarget, OutdatedPlanError, PoolTarget, StepTaker
from adaptive_operator.decide.cards import card_of, horizon_seconds
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.flaps import Mixes, flap_seconds, follow, recall
from adaptive_operator.decide.optimize.solve import solve
from adaptive_operator.decide.period import planner_period
from adaptive_operator.decide.room import find_coming
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.decision_log import DecisionLog
from adaptive_operator.faults import Fault, FaultReason, build_fault, is_told
from adaptive_operator.kube import ConflictError, KubeError, NotFoundError
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.observe.cluster import ClusterReader, InventoryError, Snapshot
from adaptive_operator.observe.declared import DeclaredPool, find_groups
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.inventory import NodeInventory, find_counted
from adaptive_operator.observe.last_answers import LastAnswers
from adaptive_operator.observe.models import SeenModel, with_metrics
from adaptive_operator.observe.observation import ModelObservation, PoolObservation
from adaptive_operator.observe.past_arrivals import PastArrivals
from adaptive_operator.observe.pools import BlockedModel, Pool, block_all, build_pools
from adaptive_operator.observe.queries import ModelScope, Windows, build_queries
from adaptive_operator.observe.readings import Readings, Subject
from adaptive_operator.plan.history import read_mixes
from adaptive_operator.plan.pool_status import (
    Member,
    PoolFacts,
    build_pool_status,
    dump_pool_status,
    is_told_already,
)
from adaptive_operator.policy import Policy, PoolOutcome
from adaptive_operator.pool_memory import PoolMemory
from adaptive_operator.shared_nodes import SharedNodes
from adaptive_operator.solving import SolverError

_LOG = logging.getLogger(__name__)
# More would only wait for a connection, each write against its own time limit.
_MODELS_AT_ONCE: Final = 16
# A pass that wrote for so long leaves the other models to the next one, which follows at once: else a start of hundreds
# of models holds up the edit of one, and those that are ready already would be told so only at its end.
_WRITING_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class PassSettings:
    """What one pass needs to know beside its collaborators."""

    budgets: Mapping[str, int]  # the operator's, by resource
    windows: Windows
    model_timeout_seconds: float  # one model's plan is applied within this time, or goes on in the next pass


@dataclass(slots=True)
class Reconciler:
    """The pass and its collaborators. Between passes it remembers what to say only once, and who had no turn."""

    cluster: ClusterReader
    nodes: NodeInventory
    prometheus: LastAnswers
    policy: Policy
    steps: StepTaker
    lease: LeaseHolder
    metrics: OperatorMetrics
    settings: PassSettings
    memory: PoolMemory = field(default_factory=lambda: PoolMemory(solve))
    decision_log: DecisionLog | None = None
    past: PastArrivals | None = None  # None: nobody asks for a season
    wall_clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _faults: dict[str, Fault] = field(default_factory=dict)  # by model key, until a pass succeeds
    _said: dict[str, tuple[str, ...]] = field(default_factory=dict)  # last logged decision by model key
    _mixes: dict[str, Mixes] = field(default_factory=dict)  # by key of a model that is acted for
    _gate: asyncio.Lock = field(default_factory=asyncio.Lock)  # lets one model in per turn of the event loop
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_MODELS_AT_ONCE))
    _turns_end: dict[str, float] = field(default_factory=dict)  # monotonic, by pool, from its first turn of a pass on
    _left: set[str] = field(default_factory=set)  # keys of models that the pass does not come to, or too late
    _waited: set[str] = field(default_factory=set)  # of those that the pass before did not come to
    _took: dict[str, float] = field(default_factory=dict)  # seconds of its last pass, by pool, reading included
    _defects: dict[str, str] = field(default_factory=dict)  # last logged of planning, by pool
    _on_unfinished: Callable[[], None] = lambda: None

    def call_when_unfinished(self, callback: Callable[[], None]) -> None:
        """Call this when a pass ends with models left: another one has to follow."""
        self._on_unfinished = callback

    async def run_pass(self, is_due: Callable[[str, float], bool] = lambda _resource, _period: True) -> int:
        """One pass over all pools that are due; returns how many writes changed something.

        Raises NotLeaderError, KubeError or InventoryError when there was nothing to decide on.
        """
        epoch, now, begun = self.lease.epoch, self.wall_clock(), self.monotonic()
        self._waited, self._left, self._turns_end = self._left, set(), {}
        snapshot, budgets = await self._read_cluster(epoch, now), self.settings.budgets
        groups = find_groups(snapshot.pools)
        advertised = await self.nodes.read(find_counted(snapshot.models, budgets), snapshot.pods, groups)
        # Beside the event loop: it takes 0.4 ms for each model.
        seen = await asyncio.to_thread(build_pools, snapshot, budgets, now, advertised)
        if seen.highest_epoch > epoch:
            await self.lease.raise_epoch(seen.highest_epoch)
            epoch = self.lease.epoch
        self._forget_gone([m for pool in seen.pools for m in pool.models], seen.blocked)
        self.metrics.keep_pools({(pool.resource, pool.name) for pool in seen.pools})
        if self.past is not None:
            self.past.keep({pool.key for pool in seen.pools})
        planned = {pool.key: len(pool.models) for pool in seen.pools if pool.has_plan}
        self.memory.expect(planned, {pool.key for pool in seen.pools} - set(planned))
        self._took = {pool.key: self._took.get(pool.key, 0.0) for pool in seen.pools}
        due = [pool for pool in seen.pools if is_due(pool.key, self._period_of(pool))]
        shared = SharedNodes((*seen.pools, *seen.unready))
        results = await asyncio.gather(
            *(self._run_pool_alone(pool, shared, epoch, begun) for pool in due),
            *(self._in_turn(_key(model), partial(self._report_blocked, model, epoch)) for model in seen.blocked),
            *(self._report_pool(pool, {}, now, epoch) for pool in seen.unready),
        )
        if self._left:
            self._on_unfinished()
        return sum(results)

    async def _read_cluster(self, epoch: int, now: float) -> Snapshot:
        try:
            return await self.cluster.read()
        except InventoryError as unreadable:
            blocked = block_all(unreadable.models, build_fault(unreadable.error, 0, now))
            await asyncio.gather(
                *(self._in_turn(_key(model), partial(self._report_blocked, model, epoch)) for model in blocked)
            )
            raise

    def _period_of(self, pool: Pool) -> float:
        models = [model.observation for model in pool.models]
        return planner_period(
            (model.spec.scaling.planner_period_seconds for model in models),
            self.policy.decide_settings.planner_period_seconds,
            in_flight=any(model.swap is not None for model in models),
            took=self._took[pool.key],
        )

    async def _run_pool_alone(self, pool: Pool, shared: SharedNodes, epoch: int, begun: float) -> int:
        """A defect in one pool's pass ends that pool's pass only."""
        try:
            return await self._run_pool(pool, shared, epoch)
        except (NotLeaderError, KubeError):
            raise
        except Exception as error:  # noqa: BLE001 whatever it is, the other pools go on
            self.metrics.count_failure(error)
            _LOG.error("pass over pool %s failed: %s", pool.key, error, exc_info=error)
            return 0
        finally:
            self._took[pool.key] = self.monotonic() - begun

    async def _run_pool(self, pool: Pool, shared: SharedNodes, epoch: int) -> int:
        observation = await self._observe(pool, epoch)
        self.metrics.note_pool(observation, pool.held_by_others)
        outcome = await self._decide_beside(pool, observation, shared)
        decisions = outcome.decisions
        self._note_defect(pool.key, outcome.defect)
        # Only what was decided on can be decided again: with a model that failed, a replay would fail too.
        if self.decision_log is not None and outcome.observation.models:
            told = tuple(decisions.values())
            self.decision_log.note(outcome.observation, self.policy.decide_settings, told, outcome.plan)
        for model in observation.models:
            if model.key in outcome.failed:
                self._note_failure(model.key, outcome.failed[model.key], model.generation)
        # First those that had to wait, then those that somebody waits for, then the largest replicas: small ones that
        # came before them would get their nodes. Only begun in this order: several write at once.
        pairs = sorted(
            zip(pool.models, observation.models, strict=True),
            key=lambda pair: (
                pair[1].key not in self._waited,
                _is_told(pair[1]),
                -_largest_start(pair[1], decisions.get(pair[1].key)),
            ),
        )
        budgets = {pool.resource: pool.total}
        runs = (
            self._in_turn(
                model.key,
                partial(self._run_model, was, model, decisions.get(model.key), budgets, observation.now, epoch),
                pool.key,
            )
            for was, model in pairs
        )
        return sum(await asyncio.gather(*runs, self._report_pool(pool, decisions, observation.now, epoch)))

    async def _in_turn(self, key: str, run: Callable[[], Awaitable[int]], pool: str = "") -> int:
        """A model's part of a pass, when it is its turn; its time limit begins then.

        A pool's writing begins with its first turn: what others wrote while it was read and decided is not its time.
        """
        async with self._turns:
            # Planning never waits: calls under way, and the Lease, are to wait for one model's planning at most.
            async with self._gate:
                await asyncio.sleep(0)
            now = self.monotonic()
            if now > self._turns_end.setdefault(pool, now + _WRITING_SECONDS):
                self._left.add(key)
                return 0
            return await run()

    async def _decide_beside(self, pool: Pool, observation: PoolObservation, shared: SharedNodes) -> PoolOutcome:
        """Decide for a pool; one after the other where several use the same nodes, each with what the others leave."""
        if not pool.nodes or not shared.neighbours(pool):
            return await self._decide(observation)
        async with shared.turn(pool):
            outcome = await self._decide(replace(observation, nodes=shared.left_to(pool)))
            shared.note(observation.models, outcome.decisions)
        return outcome

    async def _decide(self, observation: PoolObservation) -> PoolOutcome:
        """What was decided, and what upon. Beside the event loop, which has to go on: one large model takes seconds."""
        seen = self.memory.recall(observation)
        try:
            return await asyncio.to_thread(self.policy.decide, seen)
        except SolverError as error:
            return await asyncio.to_thread(self.policy.decide, self.memory.without_solver(seen, error))

    async def _observe(self, pool: Pool, epoch: int) -> PoolObservation:
        scopes = [
            ModelScope(m.observation.namespace, m.observation.name, m.observation.hold_seconds) for m in pool.models
        ]
        horizons = [_horizon_seconds(model, self.policy.decide_settings) for model in pool.models]
        answers = await self.prometheus.read(pool.key, build_queries(scopes, self.settings.windows))
        now = self.wall_clock()
        past = self.past.recall(pool.key, scopes, now, max(horizons, default=0.0)) if self.past is not None else None
        readings = Readings(answers, now, self.metrics.count_rejected, self.settings.windows, past)
        models = tuple(
            with_metrics(model, readings.read_model(_build_subject(model, pool.budget, horizon)))
            for model, horizon in zip(pool.models, horizons, strict=True)
        )
        shares = pool.declared.shares if pool.declared is not None else ()
        return PoolObservation(
            now=now,
            resource=pool.resource,
            budget=pool.budget,
            epoch=epoch,
            acting_since=self.lease.acting_since,
            models=models,
            name=pool.name,
            surge=pool.surge,
            shares=shares,
            division=pool.division,
            nodes=pool.nodes,
        )

    async def _run_model(
        self,
        raw: SeenModel,
        seen: ModelObservation,
        decision: Decision | None,
        budgets: Mapping[str, int],
        now: float,
        epoch: int,
    ) -> int:
        """Plan and apply for one model. Whatever happens here stays here."""
        target = ModelTarget(seen.namespace, seen.name, seen.uid, raw.resource_version, self._faults.get(seen.key))
        try:
            if decision is None:
                return await self._tell_fault(target, raw.raw_status, epoch)
            self._say_decision(seen, decision)
            self._count_flap(seen, decision, now)
            async with asyncio.timeout(self.settings.model_timeout_seconds):
                plan = self.policy.plan(seen, decision, budgets, now, epoch)
                changed = await self.steps.take_all(plan, target, epoch)
        except (NotLeaderError, ConflictError, NotFoundError, OutdatedPlanError, TimeoutError) as error:
            # Somebody else acted, or there was no time: the next pass sees what is there.
            if isinstance(error, OutdatedPlanError):
                self.metrics.count_outdated_plan()
                self._left.add(seen.key)  # it waited for long: the next pass follows at once, and begins with it
            _LOG.info("pass ended early model=%s cause=%s", seen.key, error or type(error).__name__)
            return 0
        except Exception as error:  # noqa: BLE001 one broken model never hurts its neighbours
            self._note_failure(seen.key, error, seen.generation)
            return await self._tell_fault(replace(target, fault=self._faults.get(seen.key)), raw.raw_status, epoch)
        self._faults.pop(seen.key, None)
        return changed

    def _note_defect(self, pool: str, defect: Exception | None) -> None:
        """Of planning a pool, while it is shared by need: counted in each pass, logged once."""
        if defect is None:
            self._defects.pop(pool, None)
            return
        self.metrics.count_solver_failure("Failed")
        if self._defects.get(pool) != repr(defect):
            self._defects[pool] = repr(defect)
            _LOG.error("pool %s could not be planned, it is shared by need: %r", pool, defect, exc_info=defect)

    def _note_failure(self, key: str, error: Exception, generation: int) -> None:
        self.metrics.count_failure(error)
        fault = build_fault(error, generation, self.wall_clock())
        if fault is None:
            _LOG.warning("pass failed model=%s error=%s", key, error)
            return
        if (before := self._faults.get(key)) is None or before.message != fault.message:
            trace = error if fault.reason is FaultReason.INTERNAL_ERROR else None
            _LOG.error("pass failed model=%s reason=%s error=%s", key, fault.reason, error, exc_info=trace)
            self._faults[key] = fault

    async def _report_blocked(self, model: BlockedModel, epoch: int) -> int:
        target = ModelTarget(model.namespace, model.name, model.uid, model.resource_version, model.fault)
        return await self._tell_fault(target, model.raw_status, epoch)

    async def _report_pool(self, pool: Pool, decisions: Mapping[str, Decision], now: float, epoch: int) -> int:
        """Write an AcceleratorPool's status, unless it stands there already."""
        if pool.declared is None:
            return 0
        declared = pool.declared
        status = build_pool_status(_pool_facts(pool, declared, decisions, now))
        if is_told_already(status, declared.status):
            return 0
        target = PoolTarget(declared.name, declared.uid, declared.resource_version)
        try:
            return int(await self.steps.write_pool_status(target, dump_pool_status(status), epoch))
        except (NotLeaderError, KubeError) as error:
            _LOG.warning("status of AcceleratorPool %s could not be written: %s", declared.name, error)
            return 0

    async def _tell_fault(self, target: ModelTarget, status: Mapping[str, object], epoch: int) -> int:
        """Write the fault into the status, unless it stands there already."""
        if target.fault is None or is_told(status, target.fault):
            return 0
        fault = target.fault
        _LOG.warning("fault model=%s/%s reason=%s %s", target.namespace, target.name, fault.reason, fault.message)
        try:
            return int(await self.steps.write_status(status, target, epoch))
        except (NotLeaderError, KubeError) as error:
            _LOG.warning("fault of %s/%s could not be reported: %s", target.namespace, target.name, error)
            return 0

    def _say_decision(self, model: ModelObservation, decision: Decision) -> None:
        """One line per change of decision, or of what else is to be known."""
        self.metrics.note_decision(model.namespace, model.name, decision)
        told = sorted({finding.reason for finding in decision.findings})
        said = (decision.reason, decision.message, json.dumps(dict(decision.replicas)), *told)
        if self._said.get(decision.key) == said:
            return
        self._said[decision.key] = said
        _LOG.info(
            "decision model=%s reason=%s replicas=%s message=%s inputs=%s binding=%s alternative=%s pool=%s"
            " findings=%s",
            *(decision.key, decision.reason, said[2], _quote(decision.message), _quote(decision.inputs)),
            *(_list(decision.binding), _quote(decision.alternative), _quote(decision.pool)),
            _list([f"{finding.reason}: {finding.message}" for finding in decision.findings]),
        )

    def _count_flap(self, model: ModelObservation, decision: Decision, now: float) -> None:
        """Whatever the cause: a swap that is rolled back soon is a flap, too. A new process goes on from the status."""
        if model.spec.mode is not Mode.ACTIVE:
            self._mixes.pop(model.key, None)
            return
        shortest = flap_seconds(_load_seconds(model, self.policy.decide_settings))
        before = self._mixes.get(model.key) or recall(read_mixes(model.status))
        self._mixes[model.key], is_flap = follow(before, decision.replicas, now, shortest)
        self.metrics.note_flap(model.namespace, model.name, is_flap)

    def _forget_gone(self, seen: Sequence[SeenModel], blocked: Sequence[BlockedModel]) -> None:
        models = {(m.namespace, m.name) for m in blocked}
        models |= {(m.observation.namespace, m.observation.name) for m in seen}
        keys = {f"{namespace}/{name}" for namespace, name in models}
        self.metrics.keep_models(models)
        for remembered in (self._faults, self._said, self._mixes):
            for key in set(remembered) - keys:
                del remembered[key]


def _key(model: BlockedModel) -> str:
    return f"{model.namespace}/{model.name}"


def _is_told(model: ModelObservation) -> bool:
    """Whether the status is about the spec as it is now."""
    return model.status is not None and model.status.observed_generation == model.generation


def _largest_start(model: ModelObservation, decision: Decision | None) -> int:
    """Accelerators of the largest replica that is wanted and not there yet; 0 where nothing is to come."""
    coming = find_coming(model, decision.replicas, ()) if decision is not None else ()
    return max((item.accelerators for item in coming), default=0)


def _pool_facts(pool: Pool, declared: DeclaredPool, decisions: Mapping[str, Decision], now: float) -> PoolFacts:
    trouble = declared.trouble
    seen = [model.observation for model in pool.models]
    members = [
        Member(m.namespace, m.name, held_accelerators(m), decisions[m.key].part if m.key in decisions else None)
        for m in seen
    ]
    return PoolFacts(
        generation=declared.generation,
        resource=pool.resource,
        budget=None if trouble is not None else pool.total,
        surge=pool.surge,
        held=sum(member.held for member in members) + pool.held_by_others,
        shares=declared.shares,
        price_milli=declared.spec.price_per_accelerator_hour_milli,
        members=members,
        now=now,
        trouble=None if trouble is None else (trouble.reason, trouble.message),
        written=declared.status,
        named=declared.spec.budget,
    )


def _build_subject(model: SeenModel, budget: int, horizon: float) -> Subject:
    seen = model.observation
    return Subject(seen.namespace, seen.name, seen.spec, budget, seen.pods, model.routers, seen.hold_seconds, horizon)


def _horizon_seconds(model: SeenModel, settings: DecideSettings) -> float:
    spec = model.observation.spec
    return horizon_seconds(spec, (card_of(tier, settings) for tier in spec.tiers), settings)


def _load_seconds(model: ModelObservation, settings: DecideSettings) -> list[float]:
    cards = [card_of(tier, settings) for tier in model.spec.tiers]
    return [card.load_seconds if card is not None else settings.default_load_seconds for card in cards]


def _list(texts: Sequence[str]) -> str:
    return json.dumps(texts, ensure_ascii=False)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
