"""How etcd, the API server, the controller manager and the scheduler are started.

Builds process specifications, and the audit policy of a large cluster; starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from e2e.cluster.network import enter
from e2e.cluster.pki import kubeconfig_of
from e2e.cluster.processes import ProcessSpec
from e2e.cluster.settings import API_PORT, NODE_IP, SERVICE_CIDR, Cluster
from e2e.cluster.shell import write_atomic

_ETCD = "http://127.0.0.1:2379"
ISSUER = "https://kubernetes.default.svc.cluster.local"


def build_etcd(cluster: Cluster, binaries: Mapping[str, Path]) -> ProcessSpec:
    """Etcd on the namespace's loopback; without fsync, since this cluster's data may be lost in a power cut."""
    argv = (
        str(binaries["etcd"]),
        f"--data-dir={cluster.folder / 'etcd'}",
        f"--listen-client-urls={_ETCD}",
        f"--advertise-client-urls={_ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--auto-compaction-retention=10m",
        "--log-level=warn",
    )
    return ProcessSpec("etcd", argv, tuple(enter(cluster)))


def build_apiserver(cluster: Cluster, binaries: Mapping[str, Path]) -> ProcessSpec:
    """The API server on the node's address, RBAC on, Pod Security admission on (its default)."""
    pki = cluster.pki
    argv = (
        str(binaries["kube-apiserver"]),
        f"--advertise-address={NODE_IP}",
        f"--bind-address={NODE_IP}",
        f"--secure-port={API_PORT}",
        f"--etcd-servers={_ETCD}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={pki / 'sa.pub'}",
        f"--service-account-signing-key-file={pki / 'sa.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'apiserver-kubelet-client.key'}",
        # Otherwise logs and exec try to resolve the node's name.
        "--kubelet-preferred-address-types=InternalIP",
        "--profiling=false",
        "--shutdown-delay-duration=0s",
        f"--cert-dir={cluster.folder / 'apiserver'}",
        *_audit(cluster),
    )
    files = (pki / "ca.crt", pki / "apiserver.crt", pki / "sa.pub")
    return ProcessSpec("kube-apiserver", argv, tuple(enter(cluster)), files)


def _audit(cluster: Cluster) -> tuple[str, ...]:
    """Flags; also writes the policy."""
    if not cluster.large:
        return ()
    policy = cluster.config / "audit.yaml"
    write_atomic(policy, yaml.safe_dump(build_audit_policy(), sort_keys=False))
    return (f"--audit-policy-file={policy}", f"--audit-log-path={cluster.audit_log}")


def build_audit_policy() -> dict[str, object]:
    """Writes of service accounts outside kube-system; those to StatefulSets with what was sent."""
    writes = ["create", "update", "patch", "delete", "deletecollection"]
    own = {"verbs": writes, "userGroups": ["system:serviceaccounts"]}
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {"level": "Request", **own, "resources": [{"group": "apps", "resources": ["statefulsets"]}]},
            {"level": "Metadata", **own},
            {"level": "None"},
        ],
    }


def build_controller_manager(cluster: Cluster, binaries: Mapping[str, Path]) -> ProcessSpec:
    """The controller manager; it leads alone, so no election delays its start."""
    kubeconfig = kubeconfig_of(cluster, "kube-controller-manager")
    argv = (
        str(binaries["kube-controller-manager"]),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={cluster.pki / 'sa.key'}",
        f"--root-ca-file={cluster.pki / 'ca.crt'}",
        f"--cert-dir={cluster.folder / 'controller-manager'}",
        "--profiling=false",
        *_unthrottled(cluster),
    )
    return ProcessSpec("kube-controller-manager", argv, tuple(enter(cluster)), (kubeconfig,))


def build_scheduler(cluster: Cluster, binaries: Mapping[str, Path]) -> ProcessSpec:
    """The scheduler with its default profile."""
    kubeconfig = kubeconfig_of(cluster, "kube-scheduler")
    argv = (
        str(binaries["kube-scheduler"]),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        f"--cert-dir={cluster.folder / 'scheduler'}",
        "--profiling=false",
        *_unthrottled(cluster),
    )
    return ProcessSpec("kube-scheduler", argv, tuple(enter(cluster)), (kubeconfig,))


def _unthrottled(cluster: Cluster) -> tuple[str, ...]:
    """The default of 20 calls/s a controller would be all that a start of thousands of pods measures."""
    return ("--kube-api-qps=1000", "--kube-api-burst=2000") if cluster.large else ()
