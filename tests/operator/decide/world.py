"""The operator's policy and choreography on a toy cluster that keeps all state, under a load of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from adaptive_operator import names
from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.revisions import tier_inputs
from adaptive_operator.observe.observation import ModelObservation, PodPhase, PoolObservation
from adaptive_operator.observe.remembered import recall_memory, recall_swap
from adaptive_operator.plan import plan_model
from stand_ins.plant import DEMO_SETTINGS, demo_spec, metrics
from tests.operator.plan.situations import SETTINGS
from tests.operator.plan.toy_cluster import ToyCluster

BUDGET = 4
PERIOD = 5.0


@dataclass
class World:
    """An operator that forgets everything between passes, on a toy cluster, under a load (requests/s)."""

    load: Callable[[float], float]
    cluster: ToyCluster = field(
        default_factory=lambda: ToyCluster(demo_spec(), {"full": 4, "int8": 4, "int4": 4}, end_rounds=1, busy_rounds=1)
    )
    seen: list[tuple[float, float]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    born: dict[str, float] = field(default_factory=dict)
    writes: list[int] = field(default_factory=list)
    generation: int = 3

    def __post_init__(self) -> None:
        self.began = self.cluster.now

    def observe(self) -> ModelObservation:
        model = self.cluster.observe()
        rate = self.load(self.cluster.now - self.began)
        self.seen.append((self.cluster.now, rate))
        peak = max(r for at, r in self.seen if at >= self.cluster.now - 20)
        pods = tuple(
            replace(
                pod,
                created_at=self.born.setdefault(pod.uid, self.cluster.now),
                trouble="0/1 nodes are available" if pod.phase is PodPhase.STARTING else None,
            )
            for pod in model.pods
        )
        work = model.metrics.pod_work
        return replace(
            model,
            generation=self.generation,
            pods=pods,
            memory=recall_memory(model.status),
            swap=recall_swap(model.status),
            metrics=replace(metrics(rate, peak=peak), pod_work=work),
        )

    def step(self, kill_after: int | None = None) -> Decision:
        model = self.observe()
        pool = PoolObservation(self.cluster.now, "nvidia.com/gpu", BUDGET, 1, 0.0, (model,))
        decision = decide_pool(pool, DEMO_SETTINGS).decisions[0]
        steps = plan_model(model, decision, SETTINGS, self.cluster.now, 1).steps
        for step in steps[:kill_after]:
            self.cluster.take(step)
            assert self.cluster.held() <= BUDGET
        self.decisions.append(decision)
        self.writes.append(len(steps))
        return decision

    def edit(self, spec: AdaptiveModelSpec) -> None:
        """What `kubectl apply` does."""
        self.cluster.spec, self.generation = spec, self.generation + 1

    def revision(self, spec: AdaptiveModelSpec, name: str) -> str:
        """The revision of a tier under a spec."""
        tier = next(item for item in spec.tiers if item.name == name)
        return names.tier_revision("assistant", name, tier_inputs(spec, tier), SETTINGS.engine_image)

    def run(self, seconds: float, kill_after: Callable[[int], int | None] = lambda n: None) -> None:
        for i in range(int(seconds / PERIOD)):
            self.step(kill_after(i))
            self.cluster.run_controllers(PERIOD)

    def mixes(self) -> list[dict[str, int]]:
        wanted = [{t: n for t, n in d.replicas.items() if n} for d in self.decisions]
        return [mix for i, mix in enumerate(wanted) if i == 0 or wanted[i - 1] != mix]

    def history(self) -> list[str]:
        assert self.cluster.status is not None
        return [entry.reason for entry in self.cluster.status.history]


def surge(at: float) -> float:
    return 1.8 if 100 <= at < 250 else 0.4
