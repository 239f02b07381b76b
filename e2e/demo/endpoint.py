"""How the load reaches the model: the Service's own address inside the demo's cluster, a port-forward elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from e2e.demo.kube import Kube
from e2e.demo.settings import DemoError, Settings

_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+)")


@asynccontextmanager
async def reach_model(settings: Settings, kube: Kube, namespace: str, model: str) -> AsyncIterator[str]:
    """Base URL of a model's Service."""
    if settings.is_own_cluster:
        service = await kube.json(f"/api/v1/namespaces/{namespace}/services/{model}")
        yield f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
        return
    process = await asyncio.create_subprocess_exec(
        *("kubectl", "--context", settings.kube_context, "--namespace", namespace),
        *("port-forward", "--address", "127.0.0.1", f"service/{model}", ":80"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    reading: asyncio.Task[bytes] | None = None
    try:
        first = await asyncio.wait_for(process.stdout.readline(), 30)
        found = _FORWARDING.search(first)
        if found is None:
            raise DemoError(f"kubectl port-forward to service/{model} did not start: {first.decode().strip()}")
        reading = asyncio.create_task(process.stdout.read())  # a line per connection: a full pipe stops it
        yield f"http://127.0.0.1:{int(found[1])}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading
