"""The cluster of a scale run: a real control plane with scheduler and Prometheus, and kwok for its nodes and pods."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from e2e.cluster import binaries, controlplane, lifecycle, network, prometheus
from e2e.cluster.processes import ProcessSpec
from e2e.cluster.settings import Cluster, Mode, find_cluster
from e2e.demo.settings import ROOT
from e2e.scale.manifests import base_load, load_swing
from e2e.scale.settings import CLUSTER, EXPORTER_PORT, ScaleSettings

STAGES = Path(__file__).parent / "stages.yaml"
_FOR_EVER = 1e12  # seconds: each model's load is where its phase has it, and stays there
_WANTED = (*binaries.BINARIES, binaries.KWOK)


def describe_cluster() -> Cluster:
    """The run's own cluster."""
    return replace(find_cluster(CLUSTER, Mode.API), large=True)


def bring_up(settings: ScaleSettings) -> Cluster:
    """Everything but the operator."""
    cluster = describe_cluster()
    binaries.build_binaries(_WANTED)
    lifecycle.bring_up(cluster)
    paths = binaries.find_binaries(_WANTED)
    config = build_scrape_config(settings.scrape_seconds)
    specs = [
        controlplane.build_scheduler(cluster, paths),
        build_kwok(cluster, paths),
        build_exporter(cluster, base_load(settings), load_swing(settings)),
        prometheus.build_prometheus(cluster, paths, config),
    ]
    lifecycle.start_also(cluster, specs)
    return cluster


def build_kwok(cluster: Cluster, paths: Mapping[str, Path]) -> ProcessSpec:
    """It plays all nodes there are."""
    argv = (
        str(paths["kwok"]),
        f"--kubeconfig={cluster.kubeconfig}",
        f"--config={STAGES}",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=40",
        "--server-address=127.0.0.1:10247",
        "--v=WARN",
    )
    return ProcessSpec("kwok", argv, tuple(network.enter(cluster)), (STAGES,))


def build_exporter(cluster: Cluster, requests_per_second: float, swing: float) -> ProcessSpec:
    """The series of all emulated pods, under loads that stay as they are until they are set.

    `swing`: how far the models' loads are from their mean, as a share of it.
    """
    options = {
        "context": cluster.context,
        "port": EXPORTER_PORT,
        "requests-per-second": requests_per_second,
        "swing": swing,
        "period-seconds": _FOR_EVER,
    }
    argv = (sys.executable, "-m", "e2e.scale.exporter", *(f"--{name}={value}" for name, value in options.items()))
    env = {"KUBECONFIG": str(cluster.kubeconfig), "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}"}
    return ProcessSpec("exporter", argv, tuple(network.enter(cluster)), env=env)


def build_scrape_config(interval_seconds: int) -> dict[str, object]:
    """One target has the series of all pods, with `namespace` and `pod` of their own."""
    interval = f"{interval_seconds}s"
    target = {"targets": [f"127.0.0.1:{EXPORTER_PORT}"]}
    job = {"job_name": "emulated", "honor_labels": True, "static_configs": [target]}
    return {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": [job]}
