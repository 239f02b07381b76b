"""Manifests for the tests, made from the demo's example, and what to do with them, each test in its own namespace."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import yaml

from e2e.demo.commands import kubectl
from e2e.demo.install import apply, load_example
from e2e.demo.settings import DemoError, Settings

RESOURCE = "nvidia.com/gpu"
NAMESPACES = (
    "bad-edit",
    "day-two",
    "demo",
    "edited",
    "emulated",
    "exchange",
    "killed",
    "minimal",
    "nested",
    "pool",
    "shedding",
    "two-models",
    "two-ranks",
    "unschedulable",
)  # the tests' own


def namespace_manifest(name: str) -> dict[str, Any]:
    """A namespace that enforces Pod Security restricted."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def variant(settings: Settings, namespace: str, name: str, tiers: Mapping[str, Mapping[str, Any]], **spec: Any) -> Any:
    """The example's model with only `tiers` (changes by name, merged deeply) and other spec fields replaced."""
    _, model = load_example(settings.example)
    model = copy.deepcopy(model)
    model["metadata"] = {"name": name, "namespace": namespace}
    kept = [tier for tier in model["spec"]["tiers"] if tier["name"] in tiers]
    model["spec"]["tiers"] = [merge(tier, tiers[tier["name"]]) for tier in kept]
    model["spec"] = merge(model["spec"], spec)
    return model


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged, everything else replaced; None removes."""
    merged = dict(base)
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


@contextmanager
def namespace(settings: Settings, name: str) -> Iterator[str]:
    """A fresh namespace; afterwards it and every accelerator its pods held are gone."""
    remove_namespace(settings, name)
    apply(settings, namespace_manifest(name))
    try:
        yield name
    finally:
        save_state(settings, name)
        remove_namespace(settings, name)


def remove_namespace(settings: Settings, name: str) -> None:
    """Models first, so that the operator is not left to make new pods in a dying namespace."""
    if name in kubectl(settings, "get", "namespaces", "-o", "name").replace("namespace/", "").split():
        kubectl(settings, "-n", name, "delete", "am", "--all", "--timeout=60s", timeout_seconds=90)
        kubectl(settings, "delete", "namespace", name, "--timeout=150s", timeout_seconds=180)


def save_state(settings: Settings, name: str) -> None:
    """What a failed test leaves to look at: models, pods and events as they were."""
    folder = settings.out / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, arguments in {
        "models.yaml": ("get", "am", "-o", "yaml"),
        "pods.txt": ("get", "pods,statefulsets,services", "-o", "wide"),
        "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
    }.items():
        try:
            text = kubectl(settings, "-n", name, *arguments)
        except DemoError as error:
            text = str(error)
        (folder / file).write_text(text)


def get(settings: Settings, namespace_name: str, kind: str, name: str) -> Any:
    """One object."""
    return yaml.safe_load(kubectl(settings, "-n", namespace_name, "get", kind, name, "-o", "yaml"))


def condition(model: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A condition of the status; empty when there is none yet."""
    found = [c for c in (model.get("status") or {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def tier_status(model: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A tier of the status; zeros when it is not there yet."""
    found = [t for t in (model.get("status") or {}).get("tiers", []) if t["name"] == name]
    return found[0] if found else {"name": name, "desired": 0, "ready": 0, "replicas": 0}


def decisions(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All decisions that the status remembers, the last one included."""
    status = model.get("status") or {}
    return [*status.get("history", []), *([status["lastDecision"]] if status.get("lastDecision") else [])]


def wait_ready(settings: Settings, namespace_name: str, name: str, mix: Mapping[str, int], seconds: float = 240) -> Any:
    """Until the tiers of `mix` have that many ready replicas; gives the model. DemoError shows the status if not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        model = get(settings, namespace_name, "am", name)
        ready = all(tier_status(model, tier)["ready"] == count for tier, count in mix.items())
        if ready and condition(model, "Ready").get("status") == "True":
            return model
        time.sleep(1)
    status = yaml.safe_dump(model.get("status"))
    raise DemoError(f"{name}: not {dict(mix)} within {seconds:.0f} s; its status:\n{status}")
