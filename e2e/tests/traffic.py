"""Steady requests beside a test, and waiting for what the cluster should come to. Bounded in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from e2e.demo.endpoint import reach_model
from e2e.demo.kube import Kube
from e2e.demo.settings import Settings
from e2e.load.accounting import account, errors
from e2e.load.arrivals import Pattern, Step, draw_arrivals
from e2e.load.client import Due, Prompt, StreamClient
from e2e.load.open_loop import OpenLoop
from e2e.load.prompts import prompt_for
from e2e.load.record import RequestRecord

T = TypeVar("T")
LONGEST_SECONDS = 600.0
OUTPUT_TOKENS = 24


@asynccontextmanager
async def traffic(settings: Settings, kube: Kube, namespace: str, model: str, rate: float) -> AsyncIterator[OpenLoop]:
    """Constant load for as long as the block runs; leaving it waits for the answers, and none may have failed."""
    start = time.monotonic()
    stop = asyncio.Event()
    async with _client(settings, kube, namespace, model, start) as (client, now):
        load = OpenLoop(client, now, OUTPUT_TOKENS)
        sending = asyncio.create_task(
            load.run(draw_arrivals([Step(rate, LONGEST_SECONDS)], Pattern.CONSTANT, seed=1), stop)
        )
        try:
            yield load
            stop.set()
            await sending
        finally:
            sending.cancel()
    assert load.sent > 0
    assert account(load.records).failed == 0, errors(load.records)
    assert account(load.records).sent == load.sent


async def run_steps(
    settings: Settings, kube: Kube, namespace: str, model: str, steps: Sequence[Step], output_tokens: int
) -> tuple[float, list[RequestRecord]]:
    """Constant load step by step: when the first step began, and every request, on the same clock in seconds."""
    async with _client(settings, kube, namespace, model, time.monotonic()) as (client, now):
        load = OpenLoop(client, now, output_tokens)
        begun = now()
        await load.run(draw_arrivals(steps, Pattern.CONSTANT, seed=1), asyncio.Event())
    assert account(load.records).sent == load.sent
    return begun, load.records


async def ask(settings: Settings, kube: Kube, namespace: str, model: str, tier: str = "") -> RequestRecord:
    """One request through the model's Service."""
    async with _client(settings, kube, namespace, model, time.monotonic()) as (client, now):
        return await client.send(Prompt(prompt_for(0), OUTPUT_TOKENS, tier), Due(0, 0, now()))


async def eventually(
    look: Callable[[], Awaitable[T]], holds: Callable[[T], Any], what: str, seconds: float, period: float = 1.0
) -> T:
    """The first look for which `holds`; AssertionError with `what` and the last look if there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        seen = await look()
        if holds(seen):
            return seen
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; last seen: {seen}"
        await asyncio.sleep(period)


async def throughout(
    look: Callable[[], Awaitable[T]], holds: Callable[[T], Any], what: str, seconds: float, period: float = 1.0
) -> None:
    """`holds` at every look for that long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = await look()
        assert holds(seen), f"no longer: {what}; seen: {seen}"
        await asyncio.sleep(period)


@asynccontextmanager
async def _client(
    settings: Settings, kube: Kube, namespace: str, model: str, start: float
) -> AsyncIterator[tuple[StreamClient, Callable[[], float]]]:
    def now() -> float:
        return time.monotonic() - start

    async with (
        reach_model(settings, kube, namespace, model) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield StreamClient(session, url, now, settings.request_timeout_seconds), now
