"""Looks at the system once a second for as long as it is asked to, and keeps every look.

A look that fails (the API server is busy, a router just went away) is counted and skipped, never invented.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from e2e.demo.kube import Kube, NotFoundError
from e2e.demo.sample import Sample, build_sample, router_pods
from e2e.demo.settings import DemoError

ROUTER_PORT = 8080


class Sampler:
    """`samples` grows by one a second while `run` runs."""

    def __init__(self, kube: Kube, namespace: str, model: str, now: Callable[[], float]) -> None:
        self.samples: list[Sample] = []
        self.failures = 0
        self._kube = kube
        self._namespace = namespace
        self._model = model
        self._now = now

    async def run(self, period_seconds: float = 1.0) -> None:
        """Sample until cancelled."""
        while True:
            begin = self._now()
            try:
                self.samples.append(await self.look())
            except (NotFoundError, DemoError, aiohttp.ClientError, TimeoutError, OSError):
                self.failures += 1
            await asyncio.sleep(max(0.1, period_seconds - (self._now() - begin)))

    async def look(self) -> Sample:
        """One sample, now."""
        model, pods = await asyncio.gather(
            self._kube.model(self._namespace, self._model), self._kube.pods(self._namespace)
        )
        texts = await asyncio.gather(*(self._router(pod) for pod in router_pods(pods, self._model)))
        return build_sample(self._now(), model, pods, [text for text in texts if text])

    async def _router(self, pod: str) -> str:
        try:
            return await self._kube.pod_metrics(self._namespace, pod, ROUTER_PORT)
        except (NotFoundError, DemoError, aiohttp.ClientError, TimeoutError, OSError):
            return ""  # a router that starts or stops: the others still say how the traffic is shared
