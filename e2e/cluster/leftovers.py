"""What a cluster leaves outside its processes: shims, sockets, mounts, links.

Found by path, never by a process's name.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from e2e.cluster import network
from e2e.cluster.debian import find_command
from e2e.cluster.processes import kill_pids
from e2e.cluster.settings import Cluster, cache_folder
from e2e.cluster.shell import is_success


def kill_strays(cluster: Cluster) -> None:
    """Kill the cluster's unrecorded processes: containerd's shims, and components inside its namespace."""
    socket, cache = str(cluster.containerd_socket), str(cache_folder())
    inside = set(network.find_processes(cluster))
    strays = []
    for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()):
        arguments = _arguments(pid)
        if is_shim(arguments, socket) or (pid in inside and _program(pid).startswith(cache)):
            strays.append(pid)
    kill_pids(strays)


def is_shim(arguments: list[str], socket: str) -> bool:
    """Whether a command line is that of a shim that serves the containerd behind `socket`."""
    with contextlib.suppress(ValueError, IndexError):
        return arguments[arguments.index("-address") + 1] == socket and "-namespace" in arguments
    return False


def unmount_below(folder: Path) -> None:
    """Unmount everything below the folder, deepest first."""
    for point in list_mounts(Path("/proc/self/mountinfo").read_text(), folder):
        if not is_success([find_command("umount") or "umount", point]):
            is_success([find_command("umount") or "umount", "--lazy", point])


def list_mounts(mountinfo: str, folder: Path) -> list[str]:
    """Mount points below the folder, later and deeper ones first; octal escapes are undone."""
    points = [line.split()[4].encode().decode("unicode_escape") for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if point.startswith(f"{folder}/")]


def remove_runtime_sockets(cluster: Cluster) -> None:
    """Remove the sockets that shims made below /run/containerd; each bundle names its own."""
    tasks = cluster.folder / "containerd" / "state" / "io.containerd.runtime.v2.task"
    for address in tasks.glob("*/*/address"):
        path = address.read_text().strip().removeprefix("unix://")
        if path.startswith("/run/containerd/s/"):
            Path(path).unlink(missing_ok=True)


def remove_outside_files(cluster: Cluster) -> None:
    """Remove the few files that components write outside the folder, at places that cannot be configured."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{cluster.folder}/"):
            link.unlink()
    for path in list_network_results(cluster, Path("/var/lib/cni/results")):
        path.unlink(missing_ok=True)


def list_network_results(cluster: Cluster, results: Path) -> list[Path]:
    """CNI's notes about this cluster's sandboxes: of its own network, and of `cni-loopback`, which all share."""
    sandboxes = cluster.folder / "containerd" / "root" / "io.containerd.grpc.v1.cri" / "sandboxes"
    loopback = [results / f"cni-loopback-{sandbox.name}-lo" for sandbox in sandboxes.glob("*")]
    return [*results.glob(f"{cluster.context}-{'[0-9a-f]' * 64}-*"), *(path for path in loopback if path.exists())]


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _program(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return ""
