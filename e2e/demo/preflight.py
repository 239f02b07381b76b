"""Checks what the demo needs before it starts anything, so that a missing tool is one line and not a traceback."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys

from e2e.demo.settings import ROOT, DemoError, Settings

MODULES = ("aiohttp", "huggingface_hub", "kubernetes", "matplotlib", "prometheus_client", "rich", "yaml")
OWN_CLUSTER_TOOLS = {"ip": "iproute2", "nsenter": "util-linux", "mount": "mount"}
EXISTING_CLUSTER_TOOLS = {"kubectl": "kubectl", "helm": "helm"}


def missing(settings: Settings) -> list[str]:
    """What is missing, each with its remedy; empty when the demo can start."""
    found = [_module(name) for name in MODULES] + [_file(settings)]
    if settings.is_own_cluster:
        found += [_machine(), _root(), *(_tool(*pair) for pair in OWN_CLUSTER_TOOLS.items())]
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
