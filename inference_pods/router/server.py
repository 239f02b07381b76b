"""The life of the router process: start, serve, and stop without cutting a stream.

SIGTERM: /health says 503 at once; requests are still accepted for a short grace, because kube-proxy hears of the change
late; then the listener closes; running streams finish within the drain time; what is left gets an error frame; exit 0.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Final

from aiohttp import web

from inference_pods.router.app import RouterApp

logger = logging.getLogger(__name__)

ABORT_SECONDS: Final = 6.0  # for the last error frames to be written

BackgroundTask = Callable[[RouterApp], Coroutine[None, None, None]]


async def serve(app: RouterApp, background: list[BackgroundTask], started: asyncio.Event | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain. `background` tasks feed the fleet and end with the server."""
    runner = web.AppRunner(
        app.web_app, access_log=None, handler_cancellation=True, handle_signals=False, shutdown_timeout=1.0
    )
    await runner.setup()
    site = web.TCPSite(runner, app.settings.host, app.settings.port, backlog=1024, reuse_address=True)
    tasks = [asyncio.create_task(task(app)) for task in background]
    try:
        await site.start()
        logger.info("router of model %s listens on %s", app.settings.model, _addresses(runner))
        if started is not None:
            started.set()
        await _wait_for_signal()
        await drain(app, site)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()


async def drain(app: RouterApp, site: web.BaseSite) -> None:
    """Say 503 on /health, keep accepting for the grace, then finish what runs, then end it with an error frame."""
    app.draining = True
    logger.info("stopping: %d requests in progress", app.relay.active)
    await asyncio.sleep(app.settings.listener_grace_seconds)
    await site.stop()
    await app.relay.wait_until_idle(app.settings.drain_seconds)
    if app.relay.active:
        logger.warning("drain time is over: ending %d requests", app.relay.active)
        app.relay.abort_all()
        await app.relay.wait_until_idle(ABORT_SECONDS)


async def _wait_for_signal() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _addresses(runner: web.AppRunner) -> str:
    return ", ".join(f"{address[0]}:{address[1]}" for address in runner.addresses)
