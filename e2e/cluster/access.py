"""Give a command, or a shell, access to a cluster from inside its network namespace."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from e2e.cluster import network
from e2e.cluster.binaries import find_binaries
from e2e.cluster.settings import NODE_IP, PROMETHEUS_PORT, Cluster, ClusterError

# Runs in a private mount namespace, so that service names resolve for the command and for nobody else.
_USE_CLUSTER_DNS = 'mount --bind "$0" /etc/resolv.conf 2>/dev/null; exec "$@"'


def build_environment(cluster: Cluster) -> dict[str, str]:
    """Variables that tools need: kubectl and helm first on PATH, the kubeconfig, addresses."""
    tools = find_binaries()
    folders = dict.fromkeys(str(tools[name].parent) for name in ("kubectl", "helm"))
    return {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]),
        "ADAPTIVE_CLUSTER": cluster.name,
        "ADAPTIVE_CONTEXT": cluster.context,
        "ADAPTIVE_NETNS": str(cluster.namespace_file),
        "ADAPTIVE_NODE_IP": NODE_IP,
        "ADAPTIVE_PROMETHEUS_URL": f"http://{NODE_IP}:{PROMETHEUS_PORT}",
    }


def list_exports(cluster: Cluster) -> list[str]:
    """Lines for `eval`; the API server is reached from inside the namespace only."""
    _check_there(cluster)
    return [f"export {name}={shlex.quote(value)}" for name, value in build_environment(cluster).items()]


def replace_by(cluster: Cluster, argv: Sequence[str]) -> None:
    """Become `argv` inside the namespace: terminal, signals and exit status are the command's own."""
    if not argv:
        raise ClusterError("exec: no command given; write: exec --name N -- kubectl get pods")
    _check_there(cluster)
    if os.geteuid() != 0:
        raise ClusterError("exec needs root to enter the network namespace: run it with sudo -E")
    prefix = [*network.enter(cluster), "unshare", "--mount", "--propagation", "slave"]
    command = [*prefix, "sh", "-c", _USE_CLUSTER_DNS, str(cluster.resolv_conf), *argv]
    environment = {**os.environ, **build_environment(cluster)}
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        environment.pop(name, None)  # a proxy of the host cannot be reached from inside
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted


def _check_there(cluster: Cluster) -> None:
    if not network.exists(cluster) or not cluster.kubeconfig.exists():
        raise ClusterError(f"no cluster {cluster.name!r} is up; run `python -m e2e.cluster up --name {cluster.name}`")
