"""Ask and tell the API server of a cluster, through kubectl inside its namespace.

Knows the few objects that a new cluster needs; nothing of processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.network import enter
from e2e.cluster.settings import ACCELERATOR_RESOURCE, Cluster, ClusterError
from e2e.cluster.shell import run

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Kubectl as the cluster's administrator."""

    cluster: Cluster
    binary: Path

    def run(self, *arguments: str, stdin: str | None = None, timeout_seconds: float = 20) -> str:
        """Standard output of kubectl; ClusterError if it fails."""
        prefix = [*enter(self.cluster), str(self.binary), f"--kubeconfig={self.cluster.kubeconfig}"]
        return run([*prefix, *arguments], stdin=stdin, timeout_seconds=timeout_seconds)

    def get(self, *arguments: str) -> dict[str, Any] | None:
        """An object as a dictionary; None if it cannot be had."""
        try:
            answer = self.run("get", *arguments, "--output=json", "--request-timeout=5s")
        except ClusterError:
            return None
        document: dict[str, Any] = json.loads(answer)
        return document

    def apply(self, objects: Sequence[Mapping[str, object]]) -> None:
        """Create or update the objects."""
        self.run("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(objects))

    def is_ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self.run("get", "--raw=/readyz", "--request-timeout=3s").strip() == "ok"
        except ClusterError:
            return False

    def is_node_ready(self) -> bool:
        """Whether the node is Ready and takes pods."""
        node = self.get("node", self.cluster.context)
        return node is not None and is_ready_node(node)

    def advertise_accelerators(self) -> None:
        """Write the accelerators into the node's status, the documented way to advertise an extended resource.

        Allocatable is written too: the kubelet would copy it only with its next report, seconds later.
        """
        node = self.get("node", self.cluster.context)
        count = str(self.cluster.accelerators)
        if node is None or has_accelerators(node, count):
            return
        resource = ACCELERATOR_RESOURCE.replace("/", "~1")
        patch = [{"op": "add", "path": f"/status/{f}/{resource}", "value": count} for f in ("capacity", "allocatable")]
        arguments = ("--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")
        self.run("patch", "node", self.cluster.context, *arguments)


def is_ready_node(node: Mapping[str, Any]) -> bool:
    """Whether a Node object has condition Ready and no not-ready taint left."""
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
    return ready and not any(t["key"].startswith("node.kubernetes.io/") for t in node["spec"].get("taints", []))


def has_accelerators(node: Mapping[str, Any], count: str) -> bool:
    """Whether a Node object advertises exactly `count` accelerators."""
    status = node["status"]
    return all(status.get(f, {}).get(ACCELERATOR_RESOURCE) == count for f in ("capacity", "allocatable"))


def wait_until(condition: Callable[[], bool], seconds: float, check: Callable[[], None]) -> bool:
    """Poll `condition`; False if it did not come true in time; `check` raises if waiting has become pointless."""
    deadline = time.monotonic() + seconds
    while not condition():
        check()
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True
