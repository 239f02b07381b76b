"""How containerd and the pods' network are configured.

Pure but for the look at the file system's kind: builds configuration and a process specification; starts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from e2e.cluster.network import enter
from e2e.cluster.processes import ProcessSpec
from e2e.cluster.settings import POD_CIDR, Cluster
from e2e.cluster.shell import write_atomic

PAUSE_IMAGE = "localhost/adaptive-pause:1"

_CONTAINERD = """\
version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Lowering oom_score_adj needs CAP_SYS_RESOURCE, which root lacks on some machines: runc would die.
  restrict_oom_score_adj = true
  # Below our own folder, so that `down` finds them by path.
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/config/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"""


def build_containerd(cluster: Cluster, tools: Mapping[str, Path]) -> ProcessSpec:
    """Containerd with root, state and socket below the cluster's folder; also writes its configuration."""
    text = _CONTAINERD.format(
        folder=cluster.folder,
        socket=cluster.containerd_socket,
        pause=PAUSE_IMAGE,
        cni=tools["cni"],
        runc=tools["runc"],
        snapshotter=find_snapshotter(Path("/proc/self/mounts").read_text(), cluster.folder),
    )
    config, network = cluster.config / "containerd.toml", cluster.config / "cni" / "10-pods.conflist"
    write_atomic(config, text)
    write_atomic(network, json.dumps(build_pod_network(cluster), indent=1))
    argv = (str(tools["containerd"]), "--config", str(config))
    # The shim is looked up on PATH.
    path = f"{tools['containerd-shim-runc-v2'].parent}:{tools['runc'].parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    return ProcessSpec("containerd", argv, tuple(enter(cluster)), (config, network), {"PATH": path})


def build_pod_network(cluster: Cluster) -> dict[str, object]:
    """CNI: one routed veth pair per pod. Unlike a bridge it needs no br_netfilter for pods that call a service."""
    ipam = {
        "type": "host-local",
        "dataDir": str(cluster.folder / "cni"),
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {"type": "ptp", "ipMasq": False, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": cluster.context, "plugins": [plugin]}


def find_snapshotter(mounts: str, folder: Path) -> str:
    """`overlayfs`, or `native` where the folder itself lies on an overlay, which cannot be stacked."""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, filesystem = line.split()[:3]
        inside = point == "/" or str(folder) == point or str(folder).startswith(point + "/")
        if inside and len(point) >= len(best):
            best, kind = point, filesystem
    return "native" if kind == "overlay" else "overlayfs"
