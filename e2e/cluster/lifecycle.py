"""Bring a cluster up, take it down, look at it.

The order of things is here; how each component is configured and started is elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from e2e.cluster import binaries, cgroups, controlplane, debian, leftovers, network, node, pki, prometheus, runtime
from e2e.cluster.kubectl import Kubectl, wait_until
from e2e.cluster.pause import ensure_pause_image
from e2e.cluster.processes import (
    BOOT_ID,
    ProcessSpec,
    check_alive,
    ensure,
    explain_death,
    read_record,
    read_records,
    stop,
)
from e2e.cluster.settings import Cluster, ClusterError, Mode, state_folder
from e2e.cluster.shell import locked, write_atomic

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager")
NODE = ("kube-scheduler", "containerd", "kubelet", "kube-proxy", "coredns", "prometheus")
_START_SECONDS = 90


def bring_up(cluster: Cluster) -> None:
    """Make the cluster as asked; what already runs as it should is left alone."""
    _require_root()
    if cluster.mode is Mode.FULL and node.has_foreign_kubelet(Path("/proc/net/unix").read_text()):
        raise ClusterError(
            "this machine is a Kubernetes node already, and a second kubelet would cut off its device plugins: "
            "use that cluster (DEMO_CONTEXT=<context>), or another machine"
        )
    with _cluster_lock(cluster):
        started = time.monotonic()
        binaries.build_binaries()
        debian.ensure_tools()
        paths = {**debian.find_tools(), **binaries.find_binaries()}
        kubectl = Kubectl(cluster, paths["kubectl"])
        _prepare(cluster)
        changed = _start_control_plane(cluster, paths, kubectl)
        if cluster.mode is Mode.FULL:
            changed += _start_node(cluster, paths, kubectl)
        what = f"started {', '.join(changed)}" if changed else "already up, nothing to do"
        print(f"{cluster.context}: {cluster.mode} mode, {what} ({time.monotonic() - started:.1f} s)", flush=True)


def take_down(cluster: Cluster) -> None:
    """Remove every trace of the cluster, also of one that was started by half or killed."""
    _require_root()
    with _cluster_lock(cluster):
        records = read_records(cluster)
        print(f"{cluster.context}: stopping {len(records)} processes and all pods", flush=True)
        # First those that would start pods anew, or miss what they depend on.
        stop([r for r in records if r.name in ("kubelet", "kube-scheduler", "kube-controller-manager")], 0)
        cgroups.remove_group(cluster)
        stop(records, 0)
        leftovers.kill_strays(cluster)
        leftovers.remove_runtime_sockets(cluster)
        leftovers.unmount_below(cluster.folder)
        leftovers.remove_outside_files(cluster)
        network.remove_namespace(cluster)
        if cluster.folder.exists():
            print(f"{cluster.context}: removing {cluster.folder}", flush=True)
            shutil.rmtree(cluster.folder)
    print(f"{cluster.context}: down")


def set_prometheus(cluster: Cluster, running: bool) -> None:
    """Stop or start Prometheus alone, for tests of missing metrics."""
    _require_root()
    with _cluster_lock(cluster):
        if running:
            _start(cluster, [prometheus.build_prometheus(cluster, binaries.find_binaries())])
            return
        record = read_record(cluster, "prometheus")
        stop([record] if record else [])


def start_also(cluster: Cluster, specs: Sequence[ProcessSpec]) -> None:
    """Start further processes in a cluster that is up; `take_down` ends them too."""
    _require_root()
    with _cluster_lock(cluster):
        _start(cluster, specs)


def describe(cluster: Cluster) -> list[str]:
    """Lines that say what runs; the first one ends in "up", "degraded" or "down"."""
    records = {r.name: r for r in read_records(cluster)}
    expected = CONTROL_PLANE + (NODE if any(name in records for name in NODE) else ())
    lines, alive = [], 0
    for name in expected:
        record = records.get(name)
        running = record is not None and record.is_alive()
        alive += running
        lines.append(f"  {name:<24} {f'pid {record.pid}' if record and running else 'not running'}")
    state = "up" if alive == len(expected) else "degraded" if alive else "down"
    return [f"{cluster.context}: {state}", *lines, f"  folder {cluster.folder}"]


def recorded_settings(cluster: Cluster) -> Mapping[str, str]:
    """What the last `up` was asked for: mode, accelerators, scrape_interval; empty before the first."""
    try:
        lines = (cluster.folder / "settings").read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _prepare(cluster: Cluster) -> None:
    for folder in (cluster.folder, cluster.config, cluster.logs, cluster.records):
        folder.mkdir(parents=True, exist_ok=True)
    _forget_previous_boot(cluster)
    _leave_lost_namespace(cluster)
    network.ensure_namespace(cluster)
    pki.ensure_pki(cluster)
    node.write_resolv_conf(cluster)
    settings = {"mode": cluster.mode, "accelerators": cluster.accelerators, "scrape_interval": cluster.scrape_interval}
    write_atomic(cluster.folder / "settings", "".join(f"{name}={value}\n" for name, value in settings.items()))


def _forget_previous_boot(cluster: Cluster) -> None:
    """Containerd's run-time state describes processes and mounts that did not survive a reboot."""
    marker, boot = cluster.folder / "boot", BOOT_ID.read_text()
    if marker.exists() and marker.read_text() != boot:
        shutil.rmtree(cluster.folder / "containerd" / "state", ignore_errors=True)
    write_atomic(marker, boot)


def _leave_lost_namespace(cluster: Cluster) -> None:
    """Stop what runs in another namespace than the cluster's present one (its handle was deleted by hand)."""
    alive = [r for r in read_records(cluster) if r.is_alive()]
    inside = set(network.find_processes(cluster))
    strangers = [r for r in alive if r.pid not in inside]
    if strangers:
        print(f"{cluster.context}: its network namespace was lost, restarting everything", file=sys.stderr)
        stop(strangers)
        cgroups.remove_group(cluster)
        leftovers.kill_strays(cluster)


def _start_control_plane(cluster: Cluster, paths: Mapping[str, Path], kubectl: Kubectl) -> list[str]:
    changed = _start(cluster, [controlplane.build_etcd(cluster, paths), controlplane.build_apiserver(cluster, paths)])
    _wait(cluster, kubectl.is_ready, "the API server's readiness", ("etcd", "kube-apiserver"))
    # Only now: before the API server has made its roles, the controller manager is refused and ends.
    changed += _start(cluster, [controlplane.build_controller_manager(cluster, paths)])
    if changed:
        has_account = lambda: kubectl.get("serviceaccount", "default", "--namespace=default") is not None  # noqa: E731
        _wait(cluster, has_account, "the default service account", CONTROL_PLANE)
    return changed


def _start_node(cluster: Cluster, paths: Mapping[str, Path], kubectl: Kubectl) -> list[str]:
    cgroups.ensure_group(cluster)
    containerd = runtime.build_containerd(cluster, paths)
    changed = _start(cluster, [containerd, controlplane.build_scheduler(cluster, paths)])
    ensure_pause_image(cluster, paths)
    specs = [
        node.build_kubelet(cluster, paths),
        node.build_kube_proxy(cluster, paths),
        node.build_coredns(cluster, paths),
        prometheus.build_prometheus(cluster, paths),
    ]
    changed += _start(cluster, specs)
    _wait(cluster, kubectl.is_node_ready, "the node's readiness", ("kube-apiserver", "containerd", "kubelet"))
    kubectl.advertise_accelerators()
    if changed:
        kubectl.apply(prometheus.build_objects())
    for name in NODE:
        check_alive(cluster, name)
    return changed


def _start(cluster: Cluster, specs: Sequence[ProcessSpec]) -> list[str]:
    return [spec.name for spec in specs if ensure(cluster, spec)]


def _wait(cluster: Cluster, condition: Callable[[], bool], what: str, needed: Sequence[str]) -> None:
    def check() -> None:
        for name in needed:
            check_alive(cluster, name)

    if wait_until(condition, _START_SECONDS, check):
        return
    tails = "\n".join(f"{name}:\n{explain_death(cluster, name)}" for name in needed)
    raise ClusterError(
        f"{cluster.context}: {what} did not come within {_START_SECONDS} s\n{tails}\n"
        f"  to start over: python -m e2e.cluster down --name {cluster.name}, then up"
    )


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError("needs root (network namespaces, cgroups, mounts): run it with sudo -E")


def _cluster_lock(cluster: Cluster) -> contextlib.AbstractContextManager[None]:
    path = state_folder() / "clusters" / f".{cluster.name}.lock"
    return locked(path, f"{cluster.context}: another command is at work on it; waiting")
