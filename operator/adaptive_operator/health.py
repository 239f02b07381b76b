"""/healthz, which proves progress, and /metrics.

A process that leads has to finish passes; one that stands by has to keep looking at the Lease. Whether passes *succeed*
is no question of health: an API server that is away is not cured by a restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

_PERIODS: Final = 4  # so many passes may be missed


class Leadership(Protocol):
    """What health wants to know of the Lease."""

    @property
    def is_leading(self) -> bool: ...

    @property
    def tried_at(self) -> float: ...


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """Times in seconds."""

    period_seconds: float  # of passes
    pass_timeout_seconds: float
    lease_seconds: float

    @property
    def longest_silence_seconds(self) -> float:
        """Longest time between two finished passes of a process that works."""
        return _PERIODS * self.period_seconds + self.pass_timeout_seconds


class Health:
    """The verdict."""

    def __init__(
        self,
        settings: HealthSettings,
        leadership: Leadership,
        pass_finished_at: Callable[[], float | None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._leadership, self._pass_finished_at = settings, leadership, pass_finished_at
        self._monotonic = monotonic
        self._leading_since: float | None = None

    def find_trouble(self) -> str | None:
        """What is wrong, or None."""
        now = self._monotonic()
        silence = now - self._leadership.tried_at
        if silence > _PERIODS * self._settings.lease_seconds + self._settings.pass_timeout_seconds:
            return f"the Lease was not asked for for {silence:.0f} s"
        if self._leadership.is_leading:
            self._leading_since = self._leading_since or now
            last = max(self._leading_since, self._pass_finished_at() or 0.0)
            if now - last > self._settings.longest_silence_seconds:
                return f"no pass finished for {now - last:.0f} s"
            return None
        self._leading_since = None
        return None


def build_app(health: Health, registry: CollectorRegistry) -> web.Application:
    """Both routes; they are served on both ports."""

    async def answer_health(_request: web.Request) -> web.Response:
        trouble = health.find_trouble()
        return web.Response(status=503 if trouble else 200, text=f"{trouble or 'ok'}\n")

    async def answer_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", answer_health)
    app.router.add_get("/metrics", answer_metrics)
    return app


async def start_server(app: web.Application, address: str, ports: tuple[int, ...]) -> web.AppRunner:
    """Serve; raises OSError when a port is taken."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for port in sorted(set(ports)):
        await web.TCPSite(runner, address, port).start()
    return runner
