"""The cluster's own control group, on cgroup v1 and v2: made, listed, removed.

All pods of a cluster live below it, so that clusters stay apart and nothing else is ever killed or removed.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from e2e.cluster.processes import kill_pids
from e2e.cluster.settings import Cluster

ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def is_unified(root: Path = ROOT) -> bool:
    """Whether the machine has cgroup v2."""
    return (root / "cgroup.controllers").exists()


def ensure_group(cluster: Cluster, root: Path = ROOT) -> None:
    """Make the group in every hierarchy; the kubelet refuses to start without it."""
    for parent in hierarchies(root):
        group = parent / cluster.context
        group.mkdir(exist_ok=True)
        _inherit_cpuset(parent, group)
    if is_unified(root):
        _delegate(root)
        _delegate(root / cluster.context)


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Mount points of the controllers: one for v2, several for v1 (links such as cpu → cpu,cpuacct left out)."""
    if is_unified(root):
        return [root]
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.is_symlink() and p.is_mount())


def list_pids(cluster: Cluster, root: Path = ROOT) -> list[int]:
    """Pids of everything below the cluster's group: the containers' processes."""
    pids: set[int] = set()
    for parent in hierarchies(root):
        for group in _groups_below(parent / cluster.context):
            with contextlib.suppress(OSError):
                pids.update(int(line) for line in (group / "cgroup.procs").read_text().split())
    return sorted(pids)


def remove_group(cluster: Cluster, root: Path = ROOT) -> None:
    """Kill what runs below the group and remove it; a group is busy for a moment after its last process."""
    deadline = time.monotonic() + 15
    while True:
        kill_pids(list_pids(cluster, root))
        left = [parent / cluster.context for parent in hierarchies(root) if not _is_removed(parent / cluster.context)]
        if not left:
            return
        if time.monotonic() > deadline:
            raise OSError(f"cannot remove {left[0]}: still busy")
        time.sleep(0.1)


def _is_removed(group: Path) -> bool:
    if not group.is_dir():
        return True
    try:
        for path in _groups_below(group):
            path.rmdir()
    except OSError:
        return False
    return True


def _groups_below(group: Path) -> list[Path]:
    """The group and all below it, children first. Containers that end meanwhile take theirs away: no error."""
    return [Path(folder) for folder, _, _ in os.walk(group, topdown=False)]


def _delegate(group: Path) -> None:
    """Hand the controllers on to the group's children (v2)."""
    available = (group / "cgroup.controllers").read_text().split()
    for controller in _CONTROLLERS:
        if controller in available:
            with contextlib.suppress(OSError):
                (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpuset(parent: Path, group: Path) -> None:
    """A v1 cpuset takes no process until it has CPUs and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (group / name).exists() and not is_unified(parent) and not (group / name).read_text().strip():
            (group / name).write_text((parent / name).read_text())
