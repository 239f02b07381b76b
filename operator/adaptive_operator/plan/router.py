"""The router of a model: Deployment, its identity and rights, and a disruption budget when there is more than one.

Rolled with maxUnavailable 0: a ready router goes only after its successor is ready.
"""

from __future__ import annotations

from typing import Any

from adaptive_operator import names
from adaptive_operator.observe.observation import ModelObservation
from adaptive_operator.plan.metadata import build_child, model_labels
from adaptive_operator.plan.pods import common_pod_fields, container_security, http_probe, scrape_annotations
from adaptive_operator.plan.settings import PlanSettings

TABLE_DIRECTORY = "/etc/adaptive"
_GRACE_BEYOND_DRAIN_SECONDS = 15


def build_service_account(model: ModelObservation) -> dict[str, Any]:
    """The routers' identity."""
    return _build(model, "v1", "ServiceAccount", {"automountServiceAccountToken": False})


def build_role(model: ModelObservation) -> dict[str, Any]:
    """What routers may read: who is ready in their namespace, and their own routing table."""
    verbs = ["get", "list", "watch"]
    rules = [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [names.routing_table_name(model.name)],
            "verbs": verbs,
        },
    ]
    return _build(model, "rbac.authorization.k8s.io/v1", "Role", {"rules": rules})


def build_role_binding(model: ModelObservation) -> dict[str, Any]:
    """Binds the Role to the ServiceAccount of the same name."""
    name = names.router_name(model.name)
    body = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": model.namespace}],
    }
    return _build(model, "rbac.authorization.k8s.io/v1", "RoleBinding", body)


def build_disruption_budget(model: ModelObservation) -> dict[str, Any]:
    """For two routers or more: a node drain takes them one by one."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _selector(model)}}
    return _build(model, "policy/v1", "PodDisruptionBudget", {"spec": spec})


def build_deployment(model: ModelObservation, settings: PlanSettings) -> dict[str, Any]:
    """Deployment NAME-router."""
    labels = model_labels(model.name, names.COMPONENT_ROUTER)
    spec = {
        "replicas": model.spec.routing.router_replicas,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": _selector(model)},
        "template": {
            "metadata": {"labels": labels, "annotations": scrape_annotations(names.ROUTER_PORT)},
            "spec": _pod_spec(model, settings),
        },
    }
    return _build(model, "apps/v1", "Deployment", {"spec": spec})


def _build(model: ModelObservation, api_version: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    labels = model_labels(model.name, names.COMPONENT_ROUTER)
    return build_child(model, api_version, kind, names.router_name(model.name), labels, body)


def _selector(model: ModelObservation) -> dict[str, str]:
    return {names.LABEL_MODEL: model.name, names.LABEL_COMPONENT: names.COMPONENT_ROUTER}


def _pod_spec(model: ModelObservation, settings: PlanSettings) -> dict[str, Any]:
    return {
        **common_pod_fields(settings),
        "serviceAccountName": names.router_name(model.name),
        "automountServiceAccountToken": True,  # it watches the API server
        "terminationGracePeriodSeconds": settings.router_drain_seconds + _GRACE_BEYOND_DRAIN_SECONDS,
        "containers": [_container(model, settings)],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _selector(model)},
            }
        ],
        "volumes": [
            {"name": "table", "configMap": {"name": names.routing_table_name(model.name)}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(model: ModelObservation, settings: PlanSettings) -> dict[str, Any]:
    shape = {"cpu": settings.router_cpu, "memory": settings.router_memory}
    return {
        "name": "router",
        "image": settings.router_image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": _arguments(model, settings),
        "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - a directory of the pod, not of this machine
        "ports": [{"name": "http", "containerPort": names.ROUTER_PORT, "protocol": "TCP"}],
        "resources": {"requests": shape, "limits": shape},
        "readinessProbe": http_probe("/health", period=2, timeout=3, failures=2),
        "livenessProbe": http_probe("/healthz", period=10, timeout=5, failures=6),
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "table", "mountPath": TABLE_DIRECTORY, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - as above
        ],
    }


def _arguments(model: ModelObservation, settings: PlanSettings) -> list[str]:
    return [
        "--model", model.name,
        "--namespace", model.namespace,
        "--table-configmap", names.routing_table_name(model.name),
        "--table-path", f"{TABLE_DIRECTORY}/{names.TABLE_KEY}",
        "--host", "0.0.0.0",  # noqa: S104 - a pod's only network is the cluster's
        "--port", str(names.ROUTER_PORT),
        "--drain-seconds", str(settings.router_drain_seconds),
    ]  # fmt: skip
