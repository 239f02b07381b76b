"""How the kubelet, kube-proxy and CoreDNS are configured and started.

Writes their configuration files; starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from e2e.cluster.debian import find_command
from e2e.cluster.network import enter
from e2e.cluster.pki import kubeconfig_of
from e2e.cluster.processes import ProcessSpec
from e2e.cluster.settings import CLUSTER_DOMAIN, NODE_IP, POD_CIDR, Cluster
from e2e.cluster.shell import write_atomic

_COREFILE = """\
{domain}:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {address}
    errors
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig} {context}
        pods insecure
        ttl 5
    }}
    cache 5
}}
.:53 {{
    bind {address}
    errors
    ready {address}:8181
    # The namespace reaches nothing outside: say so at once instead of letting clients run into a timeout.
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def build_kubelet(cluster: Cluster, binaries: Mapping[str, Path]) -> ProcessSpec:
    """The kubelet with all of its files below the cluster's folder; also writes its configuration."""
    config = cluster.config / "kubelet.yaml"
    write_atomic(config, yaml.safe_dump(build_kubelet_config(cluster)))
    kubeconfig = kubeconfig_of(cluster, "kubelet")
    argv = (
        str(binaries["kubelet"]),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={cluster.folder / 'kubelet'}",
        f"--cert-dir={cluster.folder / 'kubelet' / 'pki'}",
        f"--hostname-override={cluster.context}",
        f"--node-ip={NODE_IP}",
    )
    return ProcessSpec("kubelet", argv, tuple(enter(cluster)), (config, kubeconfig))


def build_kubelet_config(cluster: Cluster) -> dict[str, object]:
    """KubeletConfiguration as a dictionary."""
    authority = str(cluster.pki / "ca.crt")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": authority}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(cluster.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(cluster.pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{cluster.containerd_socket}",
        # cgroupfs works on v1 and v2, with and without systemd, because the group is our own.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cluster.context}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # A quarter-core pod stalls 10-20 ms at most instead of most of a 100 ms period.
        "featureGates": {"CustomCPUCFSQuotaPeriod": True},
        "cpuCFSQuotaPeriod": "10ms",
        "clusterDNS": [NODE_IP],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(cluster.resolv_conf),
        "podLogsDir": str(cluster.logs / "pods"),
        "volumePluginDir": str(cluster.folder / "kubelet" / "volume-plugins"),
        "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        "maxPods": 250,
        "readOnlyPort": 0,
        "containerLogMaxSize": "10Mi",
    }


def build_kube_proxy(cluster: Cluster, binaries: Mapping[str, Path]) -> ProcessSpec:
    """Service addresses through nftables; also writes its configuration."""
    kubeconfig = kubeconfig_of(cluster, "kube-proxy")
    document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": NODE_IP,
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": cluster.context,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "oomScoreAdj": 0,
        # Zero: leave the machine's connection-tracking limits alone.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
    }
    config = cluster.config / "kube-proxy.yaml"
    write_atomic(config, yaml.safe_dump(document))
    argv = (str(binaries["kube-proxy"]), f"--config={config}")
    nft = Path(find_command("nft") or "/usr/sbin/nft")
    env = {"PATH": f"{nft.parent}:/usr/sbin:/usr/bin:/sbin:/bin"}
    return ProcessSpec("kube-proxy", argv, tuple(enter(cluster)), (config, kubeconfig), env)


def build_coredns(cluster: Cluster, binaries: Mapping[str, Path]) -> ProcessSpec:
    """Name service on the node's address; also writes its configuration and the namespace's resolv.conf."""
    kubeconfig = kubeconfig_of(cluster, "coredns")
    corefile = cluster.config / "Corefile"
    text = _COREFILE.format(domain=CLUSTER_DOMAIN, address=NODE_IP, kubeconfig=kubeconfig, context=cluster.context)
    write_atomic(corefile, text)
    argv = (str(binaries["coredns"]), "-conf", str(corefile))
    return ProcessSpec("coredns", argv, tuple(enter(cluster)), (corefile, kubeconfig))


def has_foreign_kubelet(sockets: str) -> bool:
    """Whether the host's /proc/net/unix shows a kubelet; those of our clusters live in other namespaces."""
    return any(line.endswith(" /var/lib/kubelet/device-plugins/kubelet.sock") for line in sockets.splitlines())


def write_resolv_conf(cluster: Cluster) -> None:
    """Make service names work for processes that are run inside the namespace, as in a pod of `default`."""
    search = f"default.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}"
    write_atomic(cluster.resolv_conf, f"search {search}\nnameserver {NODE_IP}\noptions ndots:5\n")
