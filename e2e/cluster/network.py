"""The cluster's own network namespace: made, checked, removed, entered. The host's network is never touched.

Knows nothing of what runs inside.
"""

from __future__ import annotations

import os
from pathlib import Path

from e2e.cluster.debian import find_command
from e2e.cluster.settings import NODE_IP, SERVICE_CIDR, Cluster, ClusterError
from e2e.cluster.shell import run


def enter(cluster: Cluster) -> list[str]:
    """Command prefix that runs the rest inside the namespace (`ip netns exec` would hide the cgroups)."""
    return [_need("nsenter", "util-linux"), f"--net={cluster.namespace_file}", "--"]


def ensure_namespace(cluster: Cluster) -> None:
    """Make the namespace with the node's address on `lo`; repeats nothing that is there."""
    ip = _need("ip", "iproute2")
    if not exists(cluster):
        cluster.namespace_file.unlink(missing_ok=True)
        run([ip, "netns", "add", cluster.context])
    run([ip, "-n", cluster.context, "link", "set", "lo", "up"])
    run([ip, "-n", cluster.context, "addr", "replace", f"{NODE_IP}/32", "dev", "lo"])
    # Without a route the node itself gets "network unreachable" before kube-proxy's rules see a service address.
    run([ip, "-n", cluster.context, "route", "replace", SERVICE_CIDR, "dev", "lo", "src", NODE_IP])
    run([*enter(cluster), "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])


def exists(cluster: Cluster) -> bool:
    """Whether the handle is there and really holds a namespace (a crash may leave an empty file)."""
    return identity(cluster) is not None and os.path.ismount(cluster.namespace_file)


def identity(cluster: Cluster) -> int | None:
    """Inode of the namespace, as /proc/PID/ns/net shows it; None if there is no namespace."""
    try:
        return cluster.namespace_file.stat().st_ino
    except FileNotFoundError:
        return None


def remove_namespace(cluster: Cluster) -> None:
    """Delete the namespace's handle; the namespace itself goes with its last process."""
    if exists(cluster):
        run([_need("ip", "iproute2"), "netns", "delete", cluster.context])
    cluster.namespace_file.unlink(missing_ok=True)


def find_processes(cluster: Cluster) -> list[int]:
    """Pids of the processes inside the namespace."""
    inode = identity(cluster) if exists(cluster) else None
    pids = (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
    return [pid for pid in pids if inode is not None and _namespace_of(pid) == inode]


def _namespace_of(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return None


def _need(command: str, package: str) -> str:
    path = find_command(command)
    if not path:
        raise ClusterError(f"{command}: not found; install the package {package}")
    return path
