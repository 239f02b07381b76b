"""The real operator as a process, under the chart's account, rights and environment: no kubelet would run its pod."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from e2e.demo.commands import helm, kubectl
from e2e.demo.settings import ROOT, Settings
from e2e.scale.settings import SYSTEM_NAMESPACE

Manifest = dict[str, Any]

HEALTH_PORT, METRICS_PORT = 18080, 19090
METRICS_URL = f"http://127.0.0.1:{METRICS_PORT}/metrics"
_APPLIED = ("CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_STOP_SECONDS = 20


def install(settings: Settings, scrape_seconds: int) -> tuple[str, dict[str, str]]:
    """The chart's objects but the Deployment; returns the operator's account and environment."""
    values = ("--set", f"prometheus.scrapeIntervalSeconds={scrape_seconds}")
    text = helm(settings, "template", settings.release, str(settings.chart), "--namespace", SYSTEM_NAMESPACE, *values)
    manifests: list[Manifest] = [document for document in yaml.safe_load_all(text) if document]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
    chosen = [namespace, *(m for m in manifests if m["kind"] in _APPLIED and not _is_hook(m))]
    kubectl(settings, "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(chosen))
    kubectl(settings, "wait", "--for=condition=Established", "crd/adaptivemodels.adaptivellm.dev", "--timeout=60s")
    (deployment,) = [m for m in manifests if m["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    environment = {item["name"]: item["value"] for item in pod["containers"][0]["env"]}
    return str(pod["serviceAccountName"]), environment


def _is_hook(manifest: Manifest) -> bool:
    return "helm.sh/hook" in (manifest["metadata"].get("annotations") or {})


def build_environment(chart: Mapping[str, str], kubeconfig: Path, out: Path) -> dict[str, str]:
    """The chart's, with what a process needs otherwise than a pod."""
    return {
        **os.environ,
        **chart,
        "HOME": str(out),
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(kubeconfig),
        "ADAPTIVE_LEASE_NAMESPACE": SYSTEM_NAMESPACE,  # in a pod it comes from the account's files
        "ADAPTIVE_PROMETHEUS_URL": os.environ["ADAPTIVE_PROMETHEUS_URL"],
        "ADAPTIVE_HEALTH_PORT": str(HEALTH_PORT),
        "ADAPTIVE_METRICS_PORT": str(METRICS_PORT),
        "ADAPTIVE_DECISION_LOG": str(out / "decisions.jsonl"),
    }


def write_kubeconfig(settings: Settings, account: str, path: Path) -> None:
    """The administrator's kubeconfig with the account's token instead of the certificate."""
    kubectl_arguments = ("create", "token", account, "--namespace", SYSTEM_NAMESPACE, "--duration=2h")
    token = kubectl(settings, *kubectl_arguments).strip()
    content = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    content["users"] = [{"name": user["name"], "user": {"token": token}} for user in content["users"]]
    path.write_text(yaml.safe_dump(content))
    path.chmod(0o600)


@contextmanager
def run_operator(environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """The pid of an operator that runs until the block ends."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "adaptive_operator"],
            env=dict(environment),
            cwd=log.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
