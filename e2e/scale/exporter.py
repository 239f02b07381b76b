"""`python -m e2e.scale.exporter --context CONTEXT`: reads models and pods, emits the series of all emulated pods.

For kwok nodes, where pods become Ready but no process runs in them. Load of each model: a sinusoid around
--requests-per-second, its phase from the model's name. `PUT /load` sets another mean for some models.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from e2e.scale.api import connect
from e2e.scale.fluid import FluidModel, read_tiers
from e2e.scale.mirror import Key, Mirror
from e2e.scale.series import Families, ModelSeries, ReadyPods
from e2e.scale.settings import positive_float
from inference_pods.protocol import COMPONENT_ENGINE, COMPONENT_ROUTER, LABEL_COMPONENT, LABEL_MODEL, LABEL_TIER

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


def trim_pod(pod: dict[str, Any]) -> dict[str, Any]:
    """What `gather_ready` reads of a pod: a small part of it."""
    meta, status = pod["metadata"], pod.get("status", {})
    kept = {name: meta[name] for name in ("namespace", "name", "labels", "deletionTimestamp") if name in meta}
    return {"metadata": kept, "status": {"conditions": status.get("conditions", [])}}


def demand(name: str, at: float, mean: float, swing: float, period_seconds: float) -> float:
    """Requests per second of a model at a time."""
    phase = zlib.crc32(name.encode()) / 2**32
    return mean * (1 + swing * math.sin(2 * math.pi * (at / period_seconds + phase)))


@dataclass(slots=True)
class _Followed:
    """What a cluster is seen through, and up to when (monotonic seconds) its load is counted."""

    models: Mirror
    pods: Mirror
    counted_until: float


class Exporter:
    """All models' series; `advance` is called period by period, `collect` at every scrape."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._models: dict[Key, ModelSeries] = {}
        self._means: dict[Key, float] = {}  # requests per second, where they were set
        self._followed: _Followed | None = None

    def set_load(self, models: Iterable[Key], requests_per_second: float) -> None:
        """Another mean load for these models, from the next interval on."""
        self._means |= dict.fromkeys(models, requests_per_second)

    def advance(self, now: float, seconds: float, models: Iterable[dict[str, Any]], pods: dict[Key, ReadyPods]) -> None:
        """Counts an interval that ends `now`; a model that is gone takes its series along."""
        present: dict[Key, ModelSeries] = {}
        for item in models:
            key = (item["metadata"]["namespace"], item["metadata"]["name"])
            present[key] = series = self._models.get(key) or ModelSeries(*key, FluidModel((), 0.0))
            series.fluid.tiers = read_tiers(item["spec"])
            series.fluid.longest_wait_seconds = float(item["spec"]["routing"]["maxQueueSeconds"])
            options = self._options
            mean = self._means.get(key, options.requests_per_second)
            rate = demand("/".join(key), now, mean, options.swing, options.period_seconds)
            series.advance(seconds, rate, pods.get(key, ReadyPods((), {})))
        self._models = present

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client asks a collector for, up to this moment."""
        self._catch_up()
        families = Families()
        for series in self._models.values():
            series.write(families)
        return families

    async def follow(self, models: Mirror, pods: Mirror) -> None:
        """Advances for ever by what is seen of the cluster; while the API server is away, by what was seen last."""
        self._followed = _Followed(models, pods, time.monotonic())
        while True:
            await asyncio.sleep(self._options.interval_seconds)
            self._catch_up()

    def _catch_up(self) -> None:
        """Count what was not counted yet, once both the models and their pods are known.

        Scrapes ask for it, too: whole intervals only would show a steady load as one that moves, for three scrapes hold
        now nine intervals of 5 s, now eight.
        """
        if (followed := self._followed) is None:
            return
        now, last = time.monotonic(), followed.counted_until
        if followed.models.is_known and followed.pods.is_known and now > last:
            ready = gather_ready(followed.pods.objects.values())
            self.advance(now, now - last, followed.models.objects.values(), ready)
        followed.counted_until = now


def parse_load(body: Mapping[str, Any]) -> tuple[list[Key], float]:
    """`{"models": ["team/a"], "requestsPerSecond": 30}`; raises KeyError, TypeError or ValueError."""
    models = [tuple(str(name).split("/")) for name in body["models"]]
    if any(len(key) != 2 for key in models):
        raise ValueError("a model is written namespace/name")
    rate = float(body["requestsPerSecond"])
    if not 0 <= rate < math.inf:
        raise ValueError("requestsPerSecond must be 0 or more")
    return [(namespace, name) for namespace, name in models], rate


def build_app(exporter: Exporter) -> web.Application:
    """`GET /metrics` and `PUT /load`."""
    registry = CollectorRegistry()
    registry.register(exporter)

    async def expose(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def set_load(request: web.Request) -> web.Response:
        try:
            exporter.set_load(*parse_load(await request.json()))
        except (KeyError, TypeError, ValueError) as error:
            return web.Response(status=400, text=f"{error!r}\n")
        return web.Response(status=204)

    app = web.Application()
    app.router.add_get("/metrics", expose)
    app.router.add_put("/load", set_load)
    return app


async def run(options: argparse.Namespace) -> None:
    """Serves until it is stopped."""
    exporter = Exporter(options)
    runner = web.AppRunner(build_app(exporter), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port).start()
        async with connect(options.context) as api, asyncio.TaskGroup() as group:
            models, pods = Mirror(api, _MODELS), Mirror(api, _PODS, _SELECTOR, trim_pod)
            group.create_task(models.run())
            group.create_task(pods.run())
            group.create_task(exporter.follow(models, pods))
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
    parser.add_argument("--period-seconds", type=positive_float, default=600.0, help="period of the load")
    parser.add_argument("--interval-seconds", type=positive_float, default=5.0, help="length of an emulated interval")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run(parse_options()))
