"""Fixtures: a scripted TGI server and a client for it."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from e2e.load.client import StreamClient

_spec = importlib.util.spec_from_file_location("scripted_tgi", Path(__file__).with_name("scripted_tgi.py"))
assert _spec is not None
assert _spec.loader is not None
scripted_tgi = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scripted_tgi)


@pytest.fixture
async def now() -> Callable[[], float]:
    loop = asyncio.get_running_loop()
    start = loop.time()
    return lambda: loop.time() - start


@pytest.fixture
def script() -> object:
    return scripted_tgi.ScriptedTgi()


@pytest.fixture
async def client(script: object, now: Callable[[], float]) -> AsyncIterator[StreamClient]:
    async with scripted_tgi.serving(script) as url, aiohttp.ClientSession() as session:
        yield StreamClient(session, url, now, timeout_seconds=2)
