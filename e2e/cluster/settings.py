"""Names, addresses and folders of a cluster.

Knows where things are; deliberately does not start, write or delete anything.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

KUBERNETES_VERSION = "v1.35.4"
NODE_IP = "10.200.0.1"
API_PORT = 6443
PROMETHEUS_PORT = 9090
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE_IP = "10.96.0.1"
POD_CIDR = "10.244.0.0/16"
POD_GATEWAY_IP = "10.244.0.1"
CLUSTER_DOMAIN = "cluster.local"
ACCELERATOR_RESOURCE = "nvidia.com/gpu"

# A unix socket's path holds 107 characters; the longest one below a cluster's folder is the kubelet's
# "kubelet/pod-resources/kubelet.sock" (35), and a temporary twin of it with a random suffix.
MAX_FOLDER_CHARS = 60
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?")
_DURATION = re.compile(r"[1-9][0-9]*(ms|s|m)")


class ClusterError(Exception):
    """Something a user can act on; the text names the cause and the remedy."""


class Mode(StrEnum):
    """How much of a cluster runs."""

    API = "api"  # etcd, API server, controller manager: for integration tests
    FULL = "full"  # also scheduler, containerd, kubelet, kube-proxy, CoreDNS, Prometheus


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster: its name, the folder that holds all of its state, and what was asked of it."""

    name: str
    folder: Path
    mode: Mode = Mode.FULL
    accelerators: int = 4  # units of nvidia.com/gpu that the node advertises
    scrape_interval: str = "2s"  # Prometheus duration
    large: bool = False  # thousands of pods: controllers' clients unthrottled, writes of service accounts audited

    @property
    def context(self) -> str:
        """Kubeconfig context, also the name of the network namespace, the cgroup and the node."""
        return f"adaptive-{self.name}"

    @property
    def namespace_file(self) -> Path:
        """The network namespace's handle."""
        return Path("/run/netns") / self.context

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.folder / "pki"

    @property
    def config(self) -> Path:
        """Generated configuration files of the components."""
        return self.folder / "config"

    @property
    def logs(self) -> Path:
        """One log per component, and the pods' logs."""
        return self.folder / "logs"

    @property
    def records(self) -> Path:
        """What is needed to find the started processes again."""
        return self.folder / "run"

    @property
    def audit_log(self) -> Path:
        """Writes to the API server, one JSON event a line; only of a large cluster."""
        return self.logs / "audit.jsonl"

    @property
    def containerd_socket(self) -> Path:
        """Where kubelet and ctr reach containerd."""
        return self.folder / "containerd.sock"

    @property
    def resolv_conf(self) -> Path:
        """Name resolution inside the cluster's network namespace."""
        return self.config / "resolv.conf"


def cache_folder() -> Path:
    """Folder for binaries and image layers, shared by all checkouts and clusters."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("ADAPTIVE_CACHE") or Path(base) / "adaptive-llm").absolute()


def state_folder() -> Path:
    """Folder below which every cluster has its own folder."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(os.environ.get("ADAPTIVE_STATE") or Path(base) / "adaptive-llm").absolute()


def find_cluster(name: str, mode: Mode = Mode.FULL, accelerators: int = 4, scrape_interval: str = "2s") -> Cluster:
    """Describe the cluster called `name`; raises ClusterError when name, path or a setting cannot work."""
    if not _NAME.fullmatch(name):
        raise ClusterError(f"--name {name!r}: use 1-20 lower-case letters, digits and inner hyphens")
    if not _DURATION.fullmatch(scrape_interval):
        raise ClusterError(f"--scrape-interval {scrape_interval!r}: use a duration such as 500ms, 2s or 1m")
    if accelerators < 0:
        raise ClusterError(f"--accelerators {accelerators}: must be 0 or more")
    folder = state_folder() / "clusters" / name
    if len(str(folder)) > MAX_FOLDER_CHARS:
        raise ClusterError(
            f"{folder}: longer than {MAX_FOLDER_CHARS} characters, so unix sockets below it cannot be opened; "
            "set ADAPTIVE_STATE to a shorter path"
        )
    return Cluster(name, folder, mode, accelerators, scrape_interval)


def known_clusters() -> list[str]:
    """Names of the clusters that have a folder."""
    root = state_folder() / "clusters"
    return sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
