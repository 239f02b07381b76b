"""Checks what the demo needs before it starts anything, so that a missing tool is one line and not a traceback."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster.settings import ClusterError, cache_folder, find_cluster, state_folder
from e2e.demo.settings import ROOT, DemoError, Settings

MODULES = ("aiohttp", "huggingface_hub", "kubernetes", "matplotlib", "prometheus_client", "rich", "yaml")
OWN_CLUSTER_TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "mount": "mount"}
EXISTING_CLUSTER_TOOLS = {"kubectl": "kubectl", "helm": "helm"}
# No compiler: the images bring their own, and Go builds without C. Go's own build and module caches come on top.
GB = 10**9
CACHE_BYTES = 5 * GB  # binaries and image layers
STATE_BYTES = 7 * GB  # the node's copies of the images, and what its pods write


def missing(settings: Settings) -> list[str]:
    """What is missing, each with its remedy; empty when the demo can start."""
    found = [_module(name) for name in MODULES] + [_file(settings)]
    if settings.is_own_cluster:
        found += [_machine(), _root(), *(_tool(*pair) for pair in OWN_CLUSTER_TOOLS.items()), *_disk(settings)]
    else:
        found += [_tool(*pair) for pair in EXISTING_CLUSTER_TOOLS.items()]
    return [line for line in found if line]


def require(settings: Settings) -> None:
    """Raise DemoError with one line per missing thing."""
    lines = missing(settings)
    if lines:
        raise DemoError("\n".join(lines))


def _module(name: str) -> str:
    if importlib.util.find_spec(name) is not None:
        return ""
    return f"Python module {name} is missing: run `make setup` (or pip install -c constraints.txt '.[dev]')"


def _file(settings: Settings) -> str:
    gone = [path for path in (settings.example, settings.chart / "Chart.yaml") if not path.exists()]
    return f"{gone[0].relative_to(ROOT)} is missing: the checkout is not complete" if gone else ""


def _machine() -> str:
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return ""
    return "the demo's own cluster needs Linux on x86-64: set DEMO_CONTEXT to a context of an existing cluster instead"


def _root() -> str:
    if os.geteuid() == 0:
        return ""
    return "the demo's own cluster needs root (network namespace, containers): run as root, or set DEMO_CONTEXT"


def _tool(command: str, package: str) -> str:
    return "" if shutil.which(command) else f"{command} is missing: install the package {package}"


def _disk(settings: Settings) -> list[str]:
    """One line per filesystem that is too full for a first run; a cluster that is there already has its space."""
    try:
        if find_cluster(settings.cluster).folder.exists():
            return []
    except ClusterError as error:
        return [str(error)]
    needs = {"ADAPTIVE_CACHE": (_existing(cache_folder()), CACHE_BYTES)}
    needs["ADAPTIVE_STATE"] = (_existing(state_folder()), STATE_BYTES)
    by_device: dict[int, dict[str, tuple[Path, int]]] = {}
    for variable, need in needs.items():
        by_device.setdefault(need[0].stat().st_dev, {})[variable] = need
    return [line for on_device in by_device.values() if (line := _space(on_device))]


def _space(needs: Mapping[str, tuple[Path, int]]) -> str:
    folder = next(iter(needs.values()))[0]
    needed, free = sum(size for _, size in needs.values()), shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    have = f"{folder} has {free / GB:.1f} GB free, the demo's own cluster needs {needed / GB:.0f} GB"
    return f"{have}: free some, or set {' and '.join(needs)} to a folder on a larger disk"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())
