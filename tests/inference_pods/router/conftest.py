"""Scripted engines and a running router for the HTTP tests, all on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from inference_pods.router.app import RouterApp
from inference_pods.router.endpoints import EndpointSet, Replica
from inference_pods.router.settings import RouterSettings
from inference_pods.router.table import parse_table

Script = Callable[["FakeEngine", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


def tgi_frame(index: int, last: bool = False, text: str = "a") -> bytes:
    """One frame of TGI's stream; the last one carries the whole text and details."""
    frame: dict[str, Any] = {"index": index, "token": {"id": index, "text": text, "logprob": -0.1, "special": False}}
    frame["generated_text"] = text * index if last else None
    frame["details"] = {"finish_reason": "length", "generated_tokens": index, "seed": None} if last else None
    return b"data: " + json.dumps(frame).encode() + b"\n\n"


def openai_frame(text: str | None, role: str | None = None, finish: str | None = None) -> bytes:
    delta = ({"role": role} if role else {}) | ({"content": text} if text is not None else {})
    chunk = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


async def answer_normally(engine: FakeEngine, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """A well-behaved engine: streams `engine.tokens` tokens when asked to stream."""
    streaming = bool(body.get("stream")) or request.path == "/generate_stream"
    if not streaming:
        await asyncio.sleep(engine.token_seconds * engine.tokens)
        return web.json_response({"generated_text": "a" * engine.tokens, "served_by": engine.name})
    frames = [tgi_frame(i + 1, last=i + 1 == engine.tokens) for i in range(engine.tokens)]
    if request.path.startswith("/v1/"):
        words = [openai_frame("a") for _ in range(engine.tokens)]
        frames = [openai_frame("", role="assistant"), *words, openai_frame(None, finish="length"), b"data: [DONE]\n\n"]
    return await engine.stream(request, frames)


@dataclass
class FakeEngine:
    """An engine that follows `script`; counts what happens to it."""

    name: str
    tier: str
    script: Script = answer_normally
    tokens: int = 4
    token_seconds: float = 0.0
    calls: int = 0
    open_calls: int = 0
    cancelled: int = 0
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    runner: web.AppRunner | None = None
    port_to_reuse: int = 0
    stateful_set: str = ""

    @property
    def replica(self) -> Replica:
        return Replica(self.name, self.tier, f"http://127.0.0.1:{self.port}", self.stateful_set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        self.open_calls += 1
        raw = await request.read()
        self.bodies.append(raw)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        try:
            return await self.script(self, request, json.loads(raw) if raw else {})
        except (asyncio.CancelledError, ConnectionResetError):
            self.cancelled += 1
            raise
        finally:
            self.open_calls -= 1

    async def stream(self, request: web.Request, frames: list[bytes], end: bool = True) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for frame in frames:
            await response.write(frame)
            await asyncio.sleep(self.token_seconds)
        if end:
            await response.write_eof()
        return response

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.handle)
        self.runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port_to_reuse, reuse_address=True)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None


def build_table(generation: int = 1, **changes: Any) -> dict[str, Any]:
    """A routing table of three tiers as the operator writes it."""
    table = {
        "schemaVersion": 1,
        "generation": generation,
        "epoch": 1,
        "model": "assistant",
        "floorPermille": 750,
        "slo": {"ttftMilliseconds": 1000, "tpotMilliseconds": 100, "attainmentPercent": 90},
        "maxQueueSeconds": 5,
        "reference": {"promptTokens": 16, "outputTokens": 10},
        "routes": [
            {
                "tier": "full",
                "level": "",
                "qualityPermille": 1000,
                "mu": 50.0,
                "load": 1.0,
                "weight": 1.0,
                "price": 0.0,
            },
            {"tier": "int8", "level": "", "qualityPermille": 990, "mu": 50.0, "load": 1.0, "weight": 1.0, "price": 0.0},
            {"tier": "int4", "level": "", "qualityPermille": 780, "mu": 50.0, "load": 1.0, "weight": 1.0, "price": 0.0},
        ],
        "draining": [],
    }
    return table | changes


class RunningRouter:
    """A router that serves on loopback, with the engines it was given."""

    def __init__(self, app: RouterApp, client: aiohttp.ClientSession, base: str) -> None:
        self.app = app
        self.client = client
        self.base = base

    def offer(self, *engines: FakeEngine, routers: int = 1) -> None:
        by_tier: dict[str, tuple[Replica, ...]] = {}
        for engine in engines:
            by_tier[engine.tier] = (*by_tier.get(engine.tier, ()), engine.replica)
        self.app.fleet.offer_endpoints(EndpointSet(by_tier, routers))

    def offer_table(self, **changes: Any) -> bool:
        return self.app.fleet.offer_table(parse_table(json.dumps(build_table(**changes)), "assistant"))

    async def post(self, path: str = "/generate", body: Any = None, **headers: str) -> SimpleNamespace:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        payload = {"inputs": "hello"} if body is None else body
        async with self.client.post(self.base + path, json=payload, headers=named) as response:
            data = await response.read()
            return SimpleNamespace(status=response.status, headers=response.headers, body=data, text=data.decode())

    async def stream(self, path: str = "/generate_stream", **headers: str) -> SimpleNamespace:
        return await self.post(path, {"inputs": "hello", "stream": True}, **headers)

    async def metric(self, name: str, **labels: str) -> float:
        """The value of one series; 0.0 only if it exists."""
        async with self.client.get(self.base + "/metrics") as response:
            lines = (await response.text()).splitlines()
        for line in lines:
            series, _, value = line.rpartition(" ")
            matches = all(f'{label}="{wanted}"' in series for label, wanted in labels.items())
            if series.partition("{")[0] == name and matches:
                return float(value)
        raise AssertionError(f"no series {name}{labels}")

    def assert_idle(self) -> None:
        """Nothing is counted as in flight any more."""
        assert sum(self.app.admission.in_flight.values()) == 0
        assert self.app.admission.held == 0
        replicas = [replica for lane in self.app.fleet.lanes for replica in lane.replicas]
        assert all(self.app.fleet.book.in_flight(replica) == 0 for replica in replicas)


StartRouter = Callable[..., Awaitable[RunningRouter]]
StartEngine = Callable[..., Awaitable[FakeEngine]]


@pytest.fixture(scope="session")
def tools() -> SimpleNamespace:
    """The builders of this file, for test modules (which cannot import a conftest)."""
    return SimpleNamespace(
        tgi_frame=tgi_frame, openai_frame=openai_frame, build_table=build_table, answer_normally=answer_normally
    )


@pytest.fixture
async def resources() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def start_engine(resources: AsyncExitStack) -> StartEngine:
    async def start(name: str = "e1", tier: str = "full", **settings: Any) -> FakeEngine:
        engine = FakeEngine(name, tier, **settings)
        await engine.start()
        resources.push_async_callback(engine.stop)
        return engine

    return start


@pytest.fixture
def start_router(resources: AsyncExitStack) -> StartRouter:
    async def start(*engines: FakeEngine, table: dict[str, Any] | None = None, **settings: Any) -> RunningRouter:
        app = RouterApp(RouterSettings(model="assistant", host="127.0.0.1", port=0, **settings))
        runner = web.AppRunner(app.web_app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        resources.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        client = await resources.enter_async_context(aiohttp.ClientSession())
        router = RunningRouter(app, client, f"http://127.0.0.1:{runner.addresses[0][1]}")
        if table is None or table:
            router.offer_table(**(table or {}))
        router.offer(*engines)
        return router

    return start
