"""What the administrator decides about the objects of every model. Pure data; read from the environment elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Knobs of `plan/`. Nothing here restarts a running engine pod: it counts for pods made after the change."""

    engine_image: str  # image of new revisions; an existing revision keeps the image that it was made with
    router_image: str  # a change rolls the routers, one at a time, without losing a ready one
    image_pull_policy: str = "IfNotPresent"  # Always only with tags that move
    image_pull_secrets: tuple[str, ...] = ()  # names of Secrets in the model's namespace, mounted by reference
    node_selector: Mapping[str, str] = field(default_factory=dict)  # of engine pods: keeps them on accelerator nodes
    accelerator_toleration: bool = True  # engine pods tolerate a taint whose key is their accelerator resource
    priority_class: str | None = None  # of engine and router pods; the class must exist

    max_batch_size: int = 8  # sequences that an engine decodes at once
    max_waiting: int = 256  # requests that an engine queues before it answers 429; the router's own queue comes first
    startup_seconds: int = 1200  # a replica may load for so long before the kubelet restarts it

    router_cpu: str = "250m"  # request and limit of one router
    router_memory: str = "256Mi"  # request and limit of one router
    router_drain_seconds: int = 30  # streams through a router that goes away may take so long

    drain_settle_seconds: float = 2.0  # a drain takes so long to reach routers: an older "0 requests" proves nothing
    weight_hysteresis: float = 0.05  # the written weights stay while no tier's share moves further than this
    stale_after_seconds: float = 30.0  # older readings make MetricsAvailable=False, and let no shrink go on
    hold_after_stale_seconds: float = 120.0  # older arrivals let nothing go on that takes a replica away
    accelerator_budgets: Mapping[str, int] = field(default_factory=dict)  # resource -> of the pool, for status
