"""How Prometheus is configured and started, and the Service by which pods reach it.

Builds configuration; starts nothing. Knows nothing of the metrics themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from e2e.cluster.network import enter
from e2e.cluster.pki import kubeconfig_of
from e2e.cluster.processes import ProcessSpec
from e2e.cluster.settings import NODE_IP, PROMETHEUS_PORT, Cluster
from e2e.cluster.shell import write_atomic

NAMESPACE = "monitoring"
_ANNOTATION = "__meta_kubernetes_pod_annotation_prometheus_io"


def build_prometheus(
    cluster: Cluster, binaries: Mapping[str, Path], content: Mapping[str, object] | None = None
) -> ProcessSpec:
    """Prometheus on the node's address; also writes its configuration: `content`, else the one for pods that run."""
    config = cluster.config / "prometheus.yaml"
    kubeconfig = kubeconfig_of(cluster, "prometheus")
    content = content or build_config(cluster.scrape_interval, kubeconfig)
    write_atomic(config, yaml.safe_dump(dict(content), sort_keys=False))
    argv = (
        str(binaries["prometheus"]),
        f"--config.file={config}",
        f"--storage.tsdb.path={cluster.folder / 'prometheus'}",
        "--storage.tsdb.retention.time=12h",
        f"--web.listen-address={NODE_IP}:{PROMETHEUS_PORT}",
        "--web.enable-lifecycle",
        "--log.level=warn",
    )
    return ProcessSpec("prometheus", argv, tuple(enter(cluster)), (config, kubeconfig))


def build_config(scrape_interval: str, kubeconfig: Path) -> dict[str, object]:
    """Scrape every running pod that has the annotation prometheus.io/scrape: "true"."""
    return {
        "global": {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval},
        "scrape_configs": [
            {
                "job_name": "pods",
                "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}],
                "relabel_configs": _build_relabelling(),
            }
        ],
    }


def _build_relabelling() -> list[dict[str, object]]:
    return [
        {"source_labels": [f"{_ANNOTATION}_scrape"], "action": "keep", "regex": "true"},
        {"source_labels": ["__meta_kubernetes_pod_phase"], "action": "drop", "regex": "Pending|Succeeded|Failed"},
        # One target per pod: those of its further ports and containers get the same labels below, and so become one.
        {"source_labels": ["__meta_kubernetes_pod_container_init"], "action": "drop", "regex": "true"},
        {
            "source_labels": ["__meta_kubernetes_pod_ip", f"{_ANNOTATION}_port"],
            "action": "replace",
            "regex": "(.+);(\\d+)",
            "replacement": "$1:$2",
            "target_label": "__address__",
        },
        {"source_labels": [f"{_ANNOTATION}_path"], "regex": "(.+)", "target_label": "__metrics_path__"},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        {"source_labels": ["__meta_kubernetes_pod_node_name"], "target_label": "node"},
    ]


def build_objects() -> list[dict[str, object]]:
    """Namespace, selectorless Service and its endpoint, so that pods use http://prometheus.monitoring.svc:9090."""
    name = {"name": "prometheus", "namespace": NAMESPACE}
    port = {"name": "http", "port": PROMETHEUS_PORT, "protocol": "TCP"}
    slice_labels = {"kubernetes.io/service-name": "prometheus"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": {"ports": [port]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**name, "labels": slice_labels},
            "addressType": "IPv4",
            "ports": [port],
            "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        },
    ]
