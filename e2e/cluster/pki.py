"""Keys, certificates and kubeconfigs of a cluster, made with openssl; what exists is kept.

Knows who needs an identity; not how the components use it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import yaml

from e2e.cluster.debian import find_command
from e2e.cluster.settings import API_PORT, CLUSTER_DOMAIN, KUBERNETES_SERVICE_IP, NODE_IP, Cluster, ClusterError
from e2e.cluster.shell import run, write_atomic

_CONFIG = "[req]\ndistinguished_name = dn\n[dn]\n"
_MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class Identity:
    """Subject of a certificate; with `names` it serves, without it is a client."""

    file: str
    common_name: str
    organisation: str = ""
    names: tuple[str, ...] = ()  # subjectAltName entries: DNS:… or IP:…


def list_identities(cluster: Cluster) -> tuple[Identity, ...]:
    """Everyone who gets a certificate of the cluster's authority."""
    node = cluster.context
    service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{CLUSTER_DOMAIN}")
    addresses = (f"IP:{NODE_IP}", f"IP:{KUBERNETES_SERVICE_IP}", "IP:127.0.0.1")
    return (
        Identity("apiserver", "kube-apiserver", names=(*(f"DNS:{n}" for n in (*service, "localhost")), *addresses)),
        Identity("kubelet-server", node, names=(f"DNS:{node}", f"IP:{NODE_IP}")),
        Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", _MASTERS),
        Identity("admin", "kubernetes-admin", _MASTERS),
        Identity("kube-controller-manager", "system:kube-controller-manager"),
        Identity("kube-scheduler", "system:kube-scheduler"),
        Identity("kubelet", f"system:node:{node}", "system:nodes"),
        Identity("kube-proxy", "system:kube-proxy"),
        Identity("coredns", "coredns", _MASTERS),
        Identity("prometheus", "prometheus", _MASTERS),
    )


def ensure_pki(cluster: Cluster) -> None:
    """Make what is missing: authority, service-account keys, one certificate per identity, kubeconfigs."""
    cluster.pki.mkdir(parents=True, exist_ok=True)
    cluster.pki.chmod(0o700)
    write_atomic(cluster.pki / "openssl.cnf", _CONFIG)
    _ensure_authority(cluster.pki)
    _ensure_service_account_key(cluster.pki)
    for identity in list_identities(cluster):
        _ensure_certificate(cluster.pki, identity)
        if not identity.names:
            _ensure_kubeconfig(cluster, identity.file)
    if not cluster.kubeconfig.exists():
        write_atomic(cluster.kubeconfig, kubeconfig_of(cluster, "admin").read_text(), 0o600)


def kubeconfig_of(cluster: Cluster, identity: str) -> Path:
    """The kubeconfig that a component uses."""
    return cluster.pki / f"{identity}.kubeconfig"


def _openssl() -> str:
    path = find_command("openssl")
    if not path:
        raise ClusterError("openssl: not found; install the package openssl")
    return path


def _ensure_authority(folder: Path) -> None:
    extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]
    _make_certificate(folder, "ca", "/CN=adaptive-cluster-ca", extensions, [])


def _ensure_certificate(folder: Path, identity: Identity) -> None:
    subject = (f"/O={identity.organisation}" if identity.organisation else "") + f"/CN={identity.common_name}"
    usage = "serverAuth,clientAuth" if identity.names else "clientAuth"
    extensions = ["basicConstraints=critical,CA:FALSE", f"extendedKeyUsage={usage}"]
    if identity.names:
        extensions.append(f"subjectAltName={','.join(identity.names)}")
    signer = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")]
    _make_certificate(folder, identity.file, subject, extensions, signer)


def _make_certificate(folder: Path, name: str, subject: str, extensions: list[str], signer: list[str]) -> None:
    key, certificate = folder / f"{name}.key", folder / f"{name}.crt"
    if key.exists() and certificate.exists():
        return
    new_key, new_certificate = folder / f".{name}.key", folder / f".{name}.crt"
    argv = [_openssl(), "req", "-x509", "-config", str(folder / "openssl.cnf"), "-days", "3650", "-nodes"]
    argv += [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-keyout",
        str(new_key),
        "-out",
        str(new_certificate),
    ]
    argv += ["-subj", subject, *(part for e in extensions for part in ("-addext", e)), *signer]
    run(argv)
    new_key.chmod(0o600)
    new_key.replace(key)
    new_certificate.replace(certificate)


def _ensure_service_account_key(folder: Path) -> None:
    """RSA, since every verifier of service-account tokens knows RS256."""
    private, public = folder / "sa.key", folder / "sa.pub"
    if private.exists() and public.exists():
        return
    run([_openssl(), "genrsa", "-out", folder / ".sa.key", "2048"])
    run([_openssl(), "rsa", "-in", folder / ".sa.key", "-pubout", "-out", folder / ".sa.pub"])
    (folder / ".sa.key").chmod(0o600)
    (folder / ".sa.key").replace(private)
    (folder / ".sa.pub").replace(public)


def _ensure_kubeconfig(cluster: Cluster, identity: str) -> None:
    path = kubeconfig_of(cluster, identity)
    if path.exists():
        return
    context = cluster.context
    user = {"client-certificate-data": _encoded(cluster.pki / f"{identity}.crt")}
    user["client-key-data"] = _encoded(cluster.pki / f"{identity}.key")
    server = {"server": f"https://{NODE_IP}:{API_PORT}"}
    server["certificate-authority-data"] = _encoded(cluster.pki / "ca.crt")
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": server}],
        "users": [{"name": f"{context}-{identity}", "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": f"{context}-{identity}"}}],
        "current-context": context,
    }
    write_atomic(path, yaml.safe_dump(document, sort_keys=False), 0o600)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
