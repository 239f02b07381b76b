"""`python -m e2e.scale.exporter --context CONTEXT`: reads models and pods, emits the series of all emulated pods.

For kwok nodes, where pods become Ready but no process runs in them. Load of each model: a sinusoid around
--requests-per-second, its phase from the model's name.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from e2e.demo.kube import Kube, connect
from e2e.scale.fluid import FluidModel, read_tiers
from e2e.scale.series import Families, ModelSeries, ReadyPods
from inference_pods.protocol import COMPONENT_ENGINE, COMPONENT_ROUTER, LABEL_COMPONENT, LABEL_MODEL, LABEL_TIER

Key = tuple[str, str]  # namespace and name of a model
_MODELS = "/apis/adaptivellm.dev/v1alpha1/adaptivemodels"
_PODS = "/api/v1/pods"
_SELECTOR = "app.kubernetes.io/managed-by=adaptive-llm"


def gather_ready(pods: Iterable[dict[str, Any]]) -> dict[Key, ReadyPods]:
    """Ready pods that are not on their way out, by model."""
    routers: dict[Key, list[str]] = defaultdict(list)
    engines: dict[Key, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for pod in pods:
        meta, labels = pod["metadata"], pod["metadata"].get("labels", {})
        conditions = pod.get("status", {}).get("conditions", [])
        if "deletionTimestamp" in meta or not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            continue
        key = (meta["namespace"], labels.get(LABEL_MODEL, ""))
        if labels.get(LABEL_COMPONENT) == COMPONENT_ROUTER:
            routers[key].append(meta["name"])
        if labels.get(LABEL_COMPONENT) == COMPONENT_ENGINE:
            engines[key][labels[LABEL_TIER]].append(meta["name"])
    return {key: ReadyPods(routers[key], dict(engines[key])) for key in [*routers, *engines]}


def demand(name: str, at: float, mean: float, swing: float, period_seconds: float) -> float:
    """Requests per second of a model at a time."""
    phase = zlib.crc32(name.encode()) / 2**32
    return mean * (1 + swing * math.sin(2 * math.pi * (at / period_seconds + phase)))


class Exporter:
    """All models' series; `advance` is called period by period, `collect` at every scrape."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._models: dict[Key, ModelSeries] = {}

    def advance(self, now: float, seconds: float, models: Iterable[dict[str, Any]], pods: dict[Key, ReadyPods]) -> None:
        """Counts an interval that ends `now`; a model that is gone takes its series along."""
        present: dict[Key, ModelSeries] = {}
        for item in models:
            key = (item["metadata"]["namespace"], item["metadata"]["name"])
            present[key] = series = self._models.get(key) or ModelSeries(*key, FluidModel((), 0.0))
            series.fluid.tiers = read_tiers(item["spec"])
            series.fluid.longest_wait_seconds = float(item["spec"]["routing"]["maxQueueSeconds"])
            options = self._options
            rate = demand("/".join(key), now, options.requests_per_second, options.swing, options.period_seconds)
            series.advance(seconds, rate, pods.get(key, ReadyPods((), {})))
        self._models = present

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks a collector for."""
        families = Families()
        for series in self._models.values():
            series.write(families)
        return families

    async def follow(self, kube: Kube) -> None:
        """Looks at the cluster for ever; answers come from the API server's cache, at no cost to etcd."""
        last = time.monotonic()
        while True:
            models = await kube.json(_MODELS, resourceVersion="0")
            pods = await kube.json(_PODS, labelSelector=_SELECTOR, resourceVersion="0")
            now = time.monotonic()
            if now > last:
                self.advance(now, now - last, models["items"], gather_ready(pods["items"]))
            last = now
            await asyncio.sleep(self._options.interval_seconds)


async def run(options: argparse.Namespace) -> None:
    """Serves /metrics until it is stopped."""
    registry, exporter = CollectorRegistry(), Exporter(options)
    registry.register(exporter)

    async def expose(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/metrics", expose)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
        async with connect(options.context) as kube:
            await exporter.follow(kube)
    finally:
        await runner.cleanup()


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m e2e.scale.exporter", description=__doc__)
    parser.add_argument("--context", required=True, help="kube context to read models and pods from")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9400)
    parser.add_argument("--requests-per-second", type=float, default=5.0, help="mean load of each model")
    parser.add_argument("--swing", type=float, default=0.5, help="amplitude of the load as a share of its mean")
    parser.add_argument("--period-seconds", type=float, default=600.0, help="period of the load")
    parser.add_argument("--interval-seconds", type=float, default=5.0, help="time between two looks at the cluster")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    asyncio.run(run(parse_options()))
