"""What all our pods have in common: Pod Security `restricted`, and a writable /tmp on a read-only root."""

from __future__ import annotations

from typing import Any

from adaptive_operator.plan.settings import PlanSettings

USER_ID = 65532


def container_security() -> dict[str, Any]:
    """`restricted`, and a read-only root file system."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def pod_security() -> dict[str, Any]:
    """`restricted` for the whole pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def scrape_annotations(port: int) -> dict[str, str]:
    """Annotations that Prometheus finds the pod by."""
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": "/metrics"}


def http_probe(path: str, *, period: int, timeout: int, failures: int) -> dict[str, Any]:
    """A probe on the container's port `http`; times in seconds."""
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def common_pod_fields(settings: PlanSettings) -> dict[str, Any]:
    """Fields of the pod spec that engine and router share and that the administrator sets."""
    fields: dict[str, Any] = {"enableServiceLinks": False, "securityContext": pod_security()}
    if settings.image_pull_secrets:
        fields["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.priority_class is not None:
        fields["priorityClassName"] = settings.priority_class
    return fields
