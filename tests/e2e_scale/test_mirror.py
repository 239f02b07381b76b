"""A mirror against a scripted API server: watches that end, get lost or expire, and answers that are errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from e2e.scale.api import Api, ApiError
from e2e.scale.mirror import Mirror

PATH = "/api/v1/pods"


def pod(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": str(version)}, "spec": {"big": True}}


def event(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": item}


@dataclass
class Server:
    """Answers lists and watches from a script, the last entry again and again; a status stands for an error."""

    lists: list[list[dict[str, Any]] | int]
    watches: list[list[dict[str, Any]] | int]
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        version = request.query["resourceVersion"]
        if "watch" not in request.query:
            self.asked.append(f"list {version}")
            found = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
            if isinstance(found, int):
                return web.Response(status=found, text="down")
            return web.json_response({"metadata": {"resourceVersion": "10"}, "items": found})
        self.asked.append(f"watch {version}")
        events = self.watches.pop(0) if self.watches else None
        if isinstance(events, int):
            return web.Response(status=events, text="down")
        response = web.StreamResponse()
        await response.prepare(request)
        for item in events or []:
            await response.write(json.dumps(item).encode() + b"\n")
        if events is None:  # the last watch stays open
            await asyncio.sleep(60)
        return response


@asynccontextmanager
async def mirrored(server: Server, **options: Any) -> AsyncIterator[Mirror]:
    app = web.Application()
    app.router.add_get(PATH, server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    api = Api(configuration)
    mirror = Mirror(api, PATH, retry_seconds=0.01, **options)
    task = asyncio.create_task(mirror.run())
    try:
        yield mirror
        assert not task.done(), "the mirror gave up"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await api.close()
        await runner.cleanup()


async def until(condition: Callable[[], bool], wait: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await wait(0.01)


def names(mirror: Mirror) -> set[str]:
    return {name for _, name in mirror.objects}


async def test_events_change_what_was_listed_and_a_bookmark_changes_nothing() -> None:
    events = [
        event("ADDED", pod("b", 11)),
        event("DELETED", pod("a", 12)),
        event("BOOKMARK", {"metadata": {"resourceVersion": "20"}}),
    ]
    server = Server([[pod("a", 1)]], [events])
    async with mirrored(server) as mirror:
        await until(lambda: len(server.asked) == 3)
        assert names(mirror) == {"b"}
    assert server.asked == ["list 0", "watch 10", "watch 20"]


async def test_only_what_is_kept_of_an_object_stays_in_memory() -> None:
    server = Server([[pod("a", 1)]], [[event("ADDED", pod("b", 11))]])
    async with mirrored(server, keep=lambda raw: {"name": raw["metadata"]["name"]}) as mirror:
        await until(lambda: len(mirror.objects) == 2)
        assert mirror.objects == {("ns", "a"): {"name": "a"}, ("ns", "b"): {"name": "b"}}


@pytest.mark.parametrize(
    "lost",
    [
        [event("ERROR", {"code": 410, "message": "too old resource version", "metadata": {}})],
        500,
    ],
    ids=["the version expired", "the API server is down"],
)
async def test_a_lost_watch_begins_anew_with_a_list(lost: list[dict[str, Any]] | int) -> None:
    server = Server([[pod("a", 1)], [pod("b", 2)]], [lost])
    async with mirrored(server) as mirror:
        await until(lambda: server.asked[3:] != [])
        assert names(mirror) == {"b"}
    assert server.asked == ["list 0", "watch 10", "list 0", "watch 10"]


async def test_a_failed_list_is_said_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    server = Server([503, 429, [pod("a", 1)]], [])
    async with mirrored(server) as mirror:
        assert not mirror.is_known
        await until(lambda: mirror.is_known)
        assert names(mirror) == {"a"}
    assert "HTTP 503: down; again in 0.01 s" in caplog.text


async def test_while_the_api_server_is_away_the_last_view_stays() -> None:
    server = Server([[pod("a", 1)], 503], [500])
    async with mirrored(server) as mirror:
        await until(lambda: server.asked.count("list 0") >= 4)
        assert names(mirror) == {"a"}


async def test_no_connection_is_an_api_error() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:9"
    api = Api(configuration)
    with pytest.raises(ApiError, match="GET /api/v1/pods"):
        await api.call("GET", PATH)
    await api.close()
