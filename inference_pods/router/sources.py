"""Where table and endpoints come from: the mounted file, static addresses, or the API server.

Each source is a background task that offers what it has to the fleet. Deliberately does not decide anything: the fleet
ignores tables that are older than its own.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from pathlib import Path
from typing import Final

from inference_pods.router.app import RouterApp
from inference_pods.router.endpoints import EndpointSet, Replica
from inference_pods.router.fleet import Fleet
from inference_pods.router.server import BackgroundTask
from inference_pods.router.settings import RouterSettings
from inference_pods.router.table import TableError, parse_table

logger = logging.getLogger(__name__)

FILE_PERIOD_SECONDS: Final = 5.0  # the kubelet refreshes a mounted ConfigMap about once a minute


def build_sources(settings: RouterSettings) -> list[BackgroundTask]:
    """The background tasks that the settings ask for."""
    sources: list[BackgroundTask] = []
    if settings.table_path is not None:
        sources.append(follow_table_file)
    if settings.static_endpoints:
        sources.append(offer_static_endpoints)
    else:
        sources.append(follow_cluster)
    return sources


async def follow_table_file(app: RouterApp) -> None:
    """Offer the mounted copy at start and whenever it changes: it works without API server, and is never taken if
    older."""
    path = app.settings.table_path
    seen = ""
    while path is not None:
        text = await asyncio.to_thread(_read, path)
        if text is not None and text != seen:
            seen = text
            offer_table_text(app.fleet, text, app.settings.model, source=str(path))
        await asyncio.sleep(FILE_PERIOD_SECONDS)


async def offer_static_endpoints(app: RouterApp) -> None:
    replicas = {
        tier: tuple(Replica(f"static/{address}", tier, f"http://{address}") for address in addresses)
        for tier, addresses in app.settings.static_endpoints.items()
    }
    app.fleet.offer_endpoints(EndpointSet(replicas))


async def follow_cluster(app: RouterApp) -> None:
    """Watch EndpointSlices and the table's ConfigMap. The client library takes a second of CPU to import, several in a
    small pod: in a thread, so that requests and probes are answered meanwhile."""
    watch = await asyncio.to_thread(importlib.import_module, "inference_pods.router.watch")
    await watch.watch_cluster(app.settings, app.fleet)


def offer_table_text(fleet: Fleet, text: str, model: str, source: str) -> None:
    """Parse and offer; a bad table is reported, and the one in force stays."""
    try:
        table = parse_table(text, model)
    except TableError as error:
        logger.error("routing table from %s refused, the present one stays: %s", source, error)
        return
    if fleet.offer_table(table):
        logger.info("routing table %d/%d from %s in force", table.epoch, table.generation, source)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None  # not there yet, or being replaced: the next round reads it
