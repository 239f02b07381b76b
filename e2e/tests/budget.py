"""Counts the accelerators that engine pods hold, all the time, pods that are Pending or Terminating included."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import aiohttp

from e2e.demo.kube import Kube, NotFoundError
from e2e.demo.sample import LABEL_MODEL, held_accelerators
from e2e.demo.settings import DemoError

PERIOD_SECONDS = 0.5
LEAST_LOOKS = 10  # five seconds' worth: few enough for a slow machine, too many for a watch that never worked
_SELECTOR = "app.kubernetes.io/managed-by=adaptive-llm,app.kubernetes.io/component=engine"


class BudgetWatch:
    """The most that was ever held, together and per model. A look may fail, most may not."""

    def __init__(self, kube: Kube, resource: str) -> None:
        self.most = 0
        self.looks = 0
        self.failed_looks = 0
        self.most_by_model: defaultdict[str, int] = defaultdict(int)
        self._kube = kube
        self._resource = resource

    async def allocatable(self) -> int:
        """What all nodes together have."""
        nodes = await self._kube.json("/api/v1/nodes")
        return sum(int(node["status"].get("allocatable", {}).get(self._resource, 0)) for node in nodes["items"])

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except (NotFoundError, DemoError, aiohttp.ClientError, TimeoutError, OSError):
                self.failed_looks += 1
            await asyncio.sleep(PERIOD_SECONDS)

    def most_of(self, model: str) -> int:
        """The most that one model held; AssertionError if that was not really watched."""
        told = f"{self.failed_looks} looks failed, {self.looks} did not"
        assert self.looks >= LEAST_LOOKS, f"fewer than {LEAST_LOOKS} looks: {told}"
        assert self.looks >= self.failed_looks, f"most looks failed: {told}"
        assert self.most_by_model[model] > 0, f"{model} was never seen to hold anything"
        return self.most_by_model[model]

    async def look(self) -> None:
        """One look, now."""
        pods = (await self._kube.json("/api/v1/pods", labelSelector=_SELECTOR))["items"]
        self.most = max(self.most, held_accelerators(pods, self._resource))
        for model in {pod["metadata"]["labels"][LABEL_MODEL] for pod in pods}:
            held = held_accelerators(pods, self._resource, model)
            self.most_by_model[model] = max(self.most_by_model[model], held)
        self.looks += 1
