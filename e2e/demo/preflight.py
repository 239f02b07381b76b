"""Checks what the demo needs before it starts anything, so that a missing tool is one line and not a traceback."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster.binaries import GO_CACHE_BYTES, GO_MODULE_BYTES, find_binaries
from e2e.cluster.pip_access import find_environment
from e2e.cluster.settings import ClusterError, cache_folder, find_cluster, state_folder
from e2e.demo.settings import ROOT, DemoError, Settings

MODULES = ("aiohttp", "huggingface_hub", "kubernetes", "matplotlib", "prometheus_client", "rich", "yaml")
OWN_CLUSTER_TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "mount": "mount"}
EXISTING_CLUSTER_TOOLS = {"kubectl": "kubectl", "helm": "helm"}
# No compiler: the images bring their own, and Go builds without C.
GB = 10**9
CACHE_BYTES = 5 * GB  # binaries (0.9 measured) and image layers (2.6), and room for an image that is being copied
STATE_BYTES = 7 * GB  # the node's copies of the images, packed and unpacked (2 x 2.3), and what its pods write
CUDA_BYTES = 5 * GB  # what PyPI's torch adds to each copy of an image; estimated from 3 GB of packed wheels


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
    by_device: dict[int, dict[str, tuple[Path, int]]] = {}
    for variable, (folder, size) in _needs().items():
        there = _existing(folder)
        by_device.setdefault(there.stat().st_dev, {})[variable] = (there, size)
    return [line for on_device in by_device.values() if (line := _space(on_device))]


def _needs() -> dict[str, tuple[Path, int]]:
    """Folders that a first run fills, and with how many bytes, by the variable that moves them."""
    environment = find_environment(os.environ, ROOT)
    cuda = 0 if any(environment.get(name) for name in ("TORCH_FIND_LINKS", "TORCH_INDEX")) else CUDA_BYTES
    needs = {
        "ADAPTIVE_CACHE": (cache_folder(), CACHE_BYTES + cuda),
        "ADAPTIVE_STATE": (state_folder(), STATE_BYTES + 2 * cuda),
    }
    try:
        find_binaries()
    except ClusterError:
        home, folders = Path.home(), os.environ
        build = Path(folders.get("GOCACHE") or Path(folders.get("XDG_CACHE_HOME") or home / ".cache") / "go-build")
        modules = Path(folders.get("GOMODCACHE") or Path(folders.get("GOPATH") or home / "go") / "pkg" / "mod")
        needs |= {"GOCACHE": (build, GO_CACHE_BYTES), "GOMODCACHE": (modules, GO_MODULE_BYTES)}
    return needs


def _space(needs: Mapping[str, tuple[Path, int]]) -> str:
    folder = next(iter(needs.values()))[0]
    needed, free = sum(size for _, size in needs.values()), shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    have = f"{folder} has {free / GB:.1f} GB free, the demo's own cluster needs {needed / GB:.0f} GB"
    return f"{have}: free some, or set {', '.join(needs)} to a folder on a larger disk"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())
