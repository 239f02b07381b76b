"""One look at the system: from an AdaptiveModel's status, its pods and its routers' metrics to one frozen Sample. Pure.

Reads the wire format by its published names, not through the operator's own code: what a user sees is what counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MODEL = "adaptivellm.dev/model"
LABEL_TIER = "adaptivellm.dev/tier"


@dataclass(frozen=True, slots=True)
class TierSample:
    """One tier at one moment."""

    name: str
    desired: int
    replicas: int
    ready: int
    weight_percent: int  # the planner's baseline
    share: float | None  # of the traffic, as the routers steer it now; None: no router could be read
    in_flight: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the planner says beside its decision, in its own words; empty where it does not know."""

    change: str = ""  # replicas before and after; empty: they stay
    binding: tuple[str, ...] = ()  # constraints without which the model would be served better
    alternative: str = ""  # the best other mix, what it would have given, and what it costs


@dataclass(frozen=True, slots=True)
class Sample:
    """The system at `at` seconds of the run."""

    at: float
    tiers: tuple[TierSample, ...]
    held: int  # accelerators of pods that exist, Terminating ones included
    budget: int | None
    queue: float
    quality_permille: int | None
    reason: str
    message: str
    decided_at: str  # RFC 3339
    swap_step: str  # empty: no swap in flight
    conditions: Mapping[str, str]  # type -> status
    routers_seen: bool
    explanation: Explanation = Explanation()

    def tier(self, name: str) -> TierSample | None:
        """The tier of that name, if the status lists it."""
        return next((tier for tier in self.tiers if tier.name == name), None)

    @property
    def mix(self) -> str:
        """Ready replicas by tier, e.g. `full 1 · int4 1`."""
        return " · ".join(f"{tier.name} {tier.ready}" for tier in self.tiers if tier.ready) or "nothing ready"

    @property
    def is_settled(self) -> bool:
        """Every tier has exactly the replicas it should, all ready, and no swap is in flight."""
        return not self.swap_step and all(t.desired == t.ready == t.replicas for t in self.tiers)


@dataclass(frozen=True, slots=True)
class RouterReading:
    """Sums over the routers of one model."""

    shares: Mapping[str, float]
    in_flight: Mapping[str, float]
    queue: float


def build_sample(at: float, model: Mapping[str, Any], pods: Iterable[Any], routers: Sequence[str]) -> Sample:
    """Put the three sources together. `routers` holds the text of each router's /metrics."""
    status = model.get("status") or {}
    name = model["metadata"]["name"]
    decision = status.get("lastDecision") or {}
    reading = read_routers(routers)
    resource = (model["spec"].get("accelerators") or {}).get("resource", "nvidia.com/gpu")
    return Sample(
        at=at,
        tiers=tuple(_tier(tier, reading, bool(routers)) for tier in status.get("tiers", [])),
        held=held_accelerators(pods, resource, name),
        budget=status.get("acceleratorsBudget"),
        queue=reading.queue,
        quality_permille=status.get("servedQualityPermille"),
        reason=decision.get("reason", ""),
        message=decision.get("message", ""),
        decided_at=decision.get("time", ""),
        swap_step=(status.get("swap") or {}).get("step", ""),
        conditions={c["type"]: c["status"] for c in status.get("conditions", [])},
        routers_seen=bool(routers),
        explanation=_explanation(decision),
    )


def _explanation(decision: Mapping[str, Any]) -> Explanation:
    before, after = decision.get("from", ""), decision.get("to", "")
    return Explanation(
        change=f"{before} → {after}" if before != after else "",
        binding=tuple(decision.get("binding") or ()),
        alternative=decision.get("alternative") or "",
    )


def held_accelerators(pods: Iterable[Any], resource: str, model: str | None = None) -> int:
    """Accelerators of the engine pods that exist; a finished pod holds none. `model` None: of all models."""
    total = 0
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        is_engine = labels.get(LABEL_COMPONENT) == "engine" and model in (None, labels.get(LABEL_MODEL))
        if is_engine and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            limits = (container.get("resources", {}).get("limits", {}) for container in pod["spec"]["containers"])
            total += sum(int(limit.get(resource, 0)) for limit in limits)
    return total


def router_pods(pods: Iterable[Any], model: str) -> list[str]:
    """Names of the model's running routers."""
    names = []
    for pod in pods:
        labels = pod["metadata"].get("labels") or {}
        if labels.get(LABEL_COMPONENT) == "router" and labels.get(LABEL_MODEL) == model:
            running = pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
            names += [pod["metadata"]["name"]] if running else []
    return names


def read_routers(texts: Sequence[str]) -> RouterReading:
    """Shares are averaged over the routers, counts are added."""
    shares: defaultdict[str, float] = defaultdict(float)
    in_flight: defaultdict[str, float] = defaultdict(float)
    queue = 0.0
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                tier = sample.labels.get("tier", "")
                if sample.name == "adaptive_router_share":
                    shares[tier] += sample.value / len(texts)
                elif sample.name == "adaptive_router_inflight":
                    in_flight[tier] += sample.value
                elif sample.name == "adaptive_router_queue_length":
                    queue += sample.value
    return RouterReading(dict(shares), dict(in_flight), queue)


def unix_seconds(rfc3339: str) -> float:
    """Seconds since the epoch of a Kubernetes time stamp."""
    return datetime.fromisoformat(rfc3339).timestamp()


def _tier(status: Mapping[str, Any], reading: RouterReading, routers_seen: bool) -> TierSample:
    name = status["name"]
    return TierSample(
        name=name,
        desired=status.get("desired", 0),
        replicas=status.get("replicas", 0),
        ready=status.get("ready", 0),
        weight_percent=status.get("weightPercent", 0),
        share=reading.shares.get(name, 0.0) if routers_seen else None,
        in_flight=reading.in_flight.get(name, 0.0),
    )
