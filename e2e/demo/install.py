"""Brings the operator and the model into the cluster, and waits until the model serves. Bounded in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from e2e.demo.commands import helm, kubectl
from e2e.demo.kube import Kube, NotFoundError
from e2e.demo.progress import Progress
from e2e.demo.sample import Sample, build_sample
from e2e.demo.settings import DemoError, Settings

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
# What the cluster of e2e/cluster is like: Prometheus scrapes every 2 s, the node has four accelerators.
OWN_CLUSTER_VALUES = (
    *("--set", "prometheus.scrapeIntervalSeconds=2"),
    *("--set-json", 'accelerators.budgets={"nvidia.com/gpu":4}'),
)


def install_chart(settings: Settings, *more: str, wait_seconds: int = 180) -> None:
    """Install or upgrade the release in a namespace that enforces Pod Security restricted; waits for the operator."""
    namespace = settings.system_namespace
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": RESTRICTED},
    }
    kubectl(settings, "apply", "-f", "-", stdin=yaml.safe_dump(manifest))
    arguments = ["upgrade", "--install", settings.release, str(settings.chart), "--namespace", namespace]
    arguments += ["--wait", "--timeout", f"{wait_seconds}s"]
    arguments += [*(OWN_CLUSTER_VALUES if settings.is_own_cluster else ()), *settings.helm_arguments, *more]
    helm(settings, *arguments, timeout_seconds=wait_seconds + 60)
    kubectl(settings, "wait", "--for=condition=Established", "crd/adaptivemodels.adaptivellm.dev", "--timeout=60s")


def load_example(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The other documents of an example file, and its AdaptiveModel."""
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    models = [document for document in documents if document["kind"] == "AdaptiveModel"]
    if len(models) != 1:
        raise DemoError(f"{path.name}: the demo needs exactly one AdaptiveModel in it, found {len(models)}")
    return [document for document in documents if document is not models[0]], models[0]


def with_cards(model: Mapping[str, Any], capacities: Mapping[str, float], mode: str = "Active") -> dict[str, Any]:
    """The model with the capacities (requests/s of one replica) in its declared cards, and a mode."""
    spec = dict(model["spec"])
    spec["mode"] = mode
    spec["tiers"] = [
        {**tier, "card": {**tier["card"], "capacityMilliRequestsPerSecond": round(1000 * capacities[tier["name"]])}}
        if tier["name"] in capacities
        else tier
        for tier in spec["tiers"]
    ]
    return {**model, "spec": spec}


def apply(settings: Settings, *documents: Mapping[str, Any]) -> str:
    """kubectl apply of documents."""
    return kubectl(settings, "apply", "-f", "-", stdin=yaml.safe_dump_all([dict(d) for d in documents]))


async def wait_for_mix(
    settings: Settings, kube: Kube, mix: Mapping[str, int], progress: Progress, timeout_seconds: float
) -> None:
    """Until exactly `mix` (ready replicas by tier) runs and nothing is in flight; DemoError says what is not ready."""
    deadline = time.monotonic() + timeout_seconds
    seen = "the operator has not reported yet"
    while time.monotonic() < deadline:
        try:
            model, pods = await asyncio.gather(
                kube.model(settings.namespace, settings.model), kube.pods(settings.namespace)
            )
            sample = build_sample(0.0, model, pods, [])
            if is_at(sample, mix) and _is_observed(model):
                return
            seen = describe_waiting(sample, pods)
            progress.tell(seen)
        except NotFoundError:
            seen = f"AdaptiveModel {settings.model} is not there yet"
        await asyncio.sleep(1)
    raise DemoError(
        f"after {timeout_seconds:.0f} s not ready: {seen}\n"
        f"    look: kubectl --context {settings.kube_context} -n {settings.namespace} describe am {settings.model}"
    )


def is_at(sample: Sample, mix: Mapping[str, int]) -> bool:
    """Whether the model is Ready with this mix and nothing moves."""
    ready = {tier.name: tier.ready for tier in sample.tiers if tier.ready}
    return sample.conditions.get("Ready") == "True" and sample.is_settled and ready == dict(mix)


def describe_waiting(sample: Sample, pods: list[Any]) -> str:
    """One line: tiers and what each unready pod waits for."""
    tiers = " · ".join(f"{t.name} {t.ready}/{t.desired}" for t in sample.tiers) or "no tiers reported"
    troubles = [text for pod in pods if (text := _trouble(pod))]
    return f"{tiers}; {sample.reason or 'no decision yet'}" + (f"; {'; '.join(troubles)}" if troubles else "")


def _trouble(pod: Mapping[str, Any]) -> str:
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"{name}: {condition.get('message', 'not scheduled')}"
    for container in status.get("containerStatuses", []):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating"):
            return f"{name}: {waiting['reason']} {waiting.get('message', '')}".strip()
    return ""


def _is_observed(model: Mapping[str, Any]) -> bool:
    return (model.get("status") or {}).get("observedGeneration") == model["metadata"]["generation"]
