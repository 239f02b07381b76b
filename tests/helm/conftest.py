"""Runs helm for the chart's tests: rendering only, no cluster. Knows where helm may be, not what the chart holds."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.needed import give_up

CHART = Path(__file__).parents[2] / "helm" / "adaptive-llm"
MISSING = "helm is not installed: run `python -m e2e.cluster build`, or put helm on the PATH or into $HELM"
RELEASE, NAMESPACE = "adaptive-llm", "adaptive-system"
# Written in C it reads the chart's 100 kB seven times as fast as in Python.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@cache
def find_helm() -> str | None:
    """$HELM, else the newest of the binaries that e2e/cluster built, else the one on the PATH."""
    if os.environ.get("HELM"):
        return os.environ["HELM"]
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache_folder = Path(os.environ.get("ADAPTIVE_CACHE") or Path(base) / "adaptive-llm")
    built = sorted(cache_folder.glob("go/helm-*/helm"), key=lambda path: path.stat().st_mtime)
    return str(built[-1]) if built else shutil.which("helm")


def run_helm(*arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm with the values on its standard input, in an empty environment, so that no kubeconfig can be met."""
    helm = find_helm()
    assert helm, MISSING
    return subprocess.run(
        [helm, *arguments, *(["--values", "-"] if values is not None else [])],
        input=yaml.safe_dump(dict(values)) if values is not None else None,
        # Without garbage collection a run that ends at once takes two thirds of its CPU time.
        env={"HOME": "/nonexistent", "PATH": os.environ.get("PATH", ""), "GOGC": "off"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture(autouse=True)
def _needs_helm(request: pytest.FixtureRequest) -> None:
    if "no_helm" not in request.keywords and find_helm() is None:
        give_up(MISSING)


def pytest_configure(config: pytest.Config) -> None:
    """Declare this folder's marker."""
    config.addinivalue_line("markers", "no_helm: needs no helm binary")


@pytest.fixture(scope="session")
def render() -> Render:
    """The chart's manifests for the given values."""

    @cache
    def text(values: str) -> str:
        done = run_helm("template", RELEASE, str(CHART), "--namespace", NAMESPACE, values=yaml.safe_load(values))
        assert done.returncode == 0, done.stderr
        return done.stdout

    @cache
    def parsed(values: str) -> list[Manifest]:
        return [manifest for manifest in yaml.load_all(text(values), LOADER) if manifest]

    def manifests(values: Mapping[str, Any] | None = None) -> list[Manifest]:
        return copy.deepcopy(parsed(yaml.safe_dump(dict(values or {}))))  # a test may change what it got

    return manifests


@pytest.fixture(scope="session")
def refusal() -> Callable[[Mapping[str, Any]], str]:
    """What helm says when it refuses the given values."""

    def message(values: Mapping[str, Any]) -> str:
        done = run_helm("template", RELEASE, str(CHART), values=values)
        assert done.returncode != 0, f"accepted: {values}"
        return done.stderr

    return message


@pytest.fixture(scope="session")
def lint() -> Callable[[Mapping[str, Any]], str]:
    """What `helm lint --strict` says, when it is content."""

    def output(values: Mapping[str, Any]) -> str:
        done = run_helm("lint", str(CHART), "--strict", values=values)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return output


@pytest.fixture(scope="session")
def notes() -> Callable[[Mapping[str, Any]], str]:
    """NOTES.txt as a user sees it after `helm install`."""

    def text(values: Mapping[str, Any]) -> str:
        arguments = ("install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--dry-run=client")
        done = run_helm(*arguments, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("NOTES:", 1)[1]

    return text


EVERYTHING_ON: dict[str, Any] = {
    "images": {
        "pullSecrets": ["registry-login"],
        "engine": {"digest": "sha256:" + "a" * 64},
        "pullPolicy": "Always",
    },
    "accelerators": {"budgets": {"nvidia.com/gpu": 8, "amd.com/gpu": 0}},
    "prometheus": {"tokenSecret": {"name": "prometheus-login"}},
    "engine": {"nodeSelector": {"gpu": "a100"}, "tolerateAccelerators": False, "maxWaiting": 100000},
    "modelPriorityClassName": "models",
    "operator": {
        "replicas": 2,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "priorityClassName": "important",
        "podAnnotations": {"team": "platform"},
        "podLabels": {"team": "platform"},
    },
    "serviceAccount": {"annotations": {"example.com/role": "reader"}},
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"ports": [{"port": 443}]}],
    },
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "test": {"model": {"name": "assistant", "namespace": "demo"}},
}
NAMESPACED: dict[str, Any] = {"scope": "namespaces", "namespaces": ["team-a", "team-b"]}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything on": EVERYTHING_ON,
    "namespaces": NAMESPACED,
    "namespaces, everything on": EVERYTHING_ON | NAMESPACED,
    "only the operator": {
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "existing"},
        "networkPolicy": {"enabled": False},
        "prometheus": {"annotations": False},
    },
    "other names": {"fullnameOverride": "quality", "nameOverride": "adaptive"},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Values of one typical installation."""
    values: dict[str, Any] = request.param
    return values


@pytest.fixture(scope="session")
def everything_on() -> dict[str, Any]:
    """Values that turn every option on."""
    return EVERYTHING_ON


@pytest.fixture(scope="session")
def namespaced() -> dict[str, Any]:
    """Values that limit the operator to two namespaces."""
    return NAMESPACED
