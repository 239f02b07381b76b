"""The watches against a scripted API server that speaks list and watch over loopback."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from kubernetes.aio import client as kube

from inference_pods.router.fleet import Fleet
from inference_pods.router.settings import RouterSettings
from inference_pods.router.watch import Timing, watch_with

QUICK = Timing(watch_seconds=5, silence_seconds=0.6, backoff_first_seconds=0.02, backoff_max_seconds=0.1)


@dataclass
class Collection:
    """The objects of one resource, its version, and the queues of those who watch it."""

    items: dict[str, dict] = field(default_factory=dict)
    version: int = 10
    oldest: int = 0
    history: list[tuple[int, dict]] = field(default_factory=list)
    watchers: list[asyncio.Queue] = field(default_factory=list)
    lists: int = 0
    watches: int = 0
    selectors: set[str] = field(default_factory=set)

    def change(self, kind: str, item: dict) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        if kind == "DELETED":
            self.items.pop(item["metadata"]["name"], None)
        else:
            self.items[item["metadata"]["name"]] = item
        event = {"type": kind, "object": item}
        self.history.append((self.version, event))
        for queue in self.watchers:
            queue.put_nowait(event)

    def send(self, event: dict | None) -> None:
        for queue in self.watchers:
            queue.put_nowait(event)


class FakeApiServer:
    """List, watch, bookmarks, 410, failure: as much of an API server as a watch can see."""

    def __init__(self) -> None:
        self.slices, self.maps = Collection(), Collection()
        self.failing = False
        self.mute = False
        self.runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices", self._of(self.slices))
        app.router.add_get("/api/v1/namespaces/ns/configmaps", self._of(self.maps))
        self.runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self.runner.addresses[0][1]

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()
            self.runner = None

    def _of(self, collection: Collection):
        async def handle(request: web.Request) -> web.StreamResponse:
            collection.selectors.add(request.query.get("labelSelector", "") + request.query.get("fieldSelector", ""))
            if self.failing:
                return web.json_response({"kind": "Status", "code": 500}, status=500)
            if request.query.get("watch") in ("true", "True", "1"):
                return await self._watch(request, collection)
            collection.lists += 1
            metadata = {"resourceVersion": str(collection.version)}
            return web.json_response({"kind": "List", "metadata": metadata, "items": list(collection.items.values())})

        return handle

    async def _watch(self, request: web.Request, collection: Collection) -> web.StreamResponse:
        collection.watches += 1
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        if since < collection.oldest:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        queue: asyncio.Queue = asyncio.Queue()
        for version, event in collection.history:
            if version > since:
                queue.put_nowait(event)
        collection.watchers.append(queue)
        try:
            while (event := await queue.get()) is not None:
                if not self.mute:
                    await response.write(json.dumps(event).encode() + b"\n")
            return response
        finally:
            collection.watchers.remove(queue)


def build_slice(*ready: str, name="s-full", tier="full"):
    labels = {
        "app.kubernetes.io/component": "engine",
        "adaptivellm.dev/model": "assistant",
        "adaptivellm.dev/tier": tier,
    }
    endpoints = [
        {"addresses": [f"10.0.0.{i}"], "conditions": {"ready": True}, "targetRef": {"uid": uid}}
        for i, uid in enumerate(ready)
    ]
    return {
        "metadata": {"name": name, "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8000}],
    }


def build_map(table):
    return {"metadata": {"name": "assistant-routing"}, "data": {"table.json": json.dumps(table)}}


async def eventually(condition, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition belongs to another component
            await asyncio.sleep(0.01)


@pytest.fixture
async def api():
    server = FakeApiServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def fleet(api):
    """A fleet that is fed by the watches."""
    fed = Fleet(asyncio.get_running_loop().time)
    settings = RouterSettings(model="assistant", namespace="ns", table_configmap="assistant-routing")
    configuration = kube.Configuration(host=f"http://127.0.0.1:{api.port}")
    task = asyncio.create_task(watch_with(configuration, settings, fed, QUICK))
    yield fed
    assert not task.done(), "a watch never gives up"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def uids(fleet):
    return {replica.uid for members in fleet.endpoints.replicas.values() for replica in members}


async def test_what_is_there_and_what_comes_is_seen(api, fleet, tools):
    api.slices.change("ADDED", build_slice("a"))
    api.maps.change("ADDED", build_map(tools.build_table(generation=3)))
    await eventually(lambda: uids(fleet) == {"a"} and fleet.table is not None)
    assert fleet.table.generation == 3
    api.slices.change("MODIFIED", build_slice("a", "b"))
    api.slices.change("ADDED", build_slice("c", name="s-int4", tier="int4"))
    api.maps.change("MODIFIED", build_map(tools.build_table(generation=4)))
    await eventually(lambda: uids(fleet) == {"a", "b", "c"} and fleet.table.generation == 4)
    api.slices.change("DELETED", build_slice("a", "b"))
    await eventually(lambda: uids(fleet) == {"c"})
    assert api.slices.lists == 1
    assert api.slices.selectors == {"adaptivellm.dev/model=assistant"}
    assert api.maps.selectors == {"metadata.name=assistant-routing"}


async def test_an_older_table_from_the_watch_is_ignored_and_a_broken_one_does_no_harm(api, fleet, tools):
    api.maps.change("ADDED", build_map(tools.build_table(generation=5)))
    await eventually(lambda: fleet.table is not None)
    api.maps.change("MODIFIED", build_map(tools.build_table(generation=4)))
    api.maps.change("MODIFIED", build_map({"schemaVersion": 99}))
    api.maps.change("MODIFIED", {"metadata": {"name": "assistant-routing"}})
    api.maps.change("DELETED", build_map(tools.build_table(generation=5)))
    await asyncio.sleep(0.1)
    assert fleet.table.generation == 5
    api.maps.change("ADDED", build_map(tools.build_table(generation=6)))
    await eventually(lambda: fleet.table.generation == 6)


async def test_a_version_that_is_gone_leads_to_a_new_list(api, fleet):
    api.slices.change("ADDED", build_slice("a"))
    await eventually(lambda: uids(fleet) == {"a"})
    api.slices.items = {"s-full": build_slice("b") | {}}
    api.slices.version = api.slices.oldest = 1000
    api.slices.history.clear()
    api.slices.send(None)
    await eventually(lambda: uids(fleet) == {"b"})
    assert api.slices.lists == 2


async def test_a_watch_that_ends_is_continued_without_a_new_list(api, fleet):
    api.slices.change("ADDED", build_slice("a"))
    await eventually(lambda: uids(fleet) == {"a"})
    await eventually(lambda: api.slices.watchers)
    api.slices.send(None)
    await eventually(lambda: api.slices.watches >= 2)
    api.slices.change("MODIFIED", build_slice("b"))
    await eventually(lambda: uids(fleet) == {"b"})
    assert api.slices.lists == 1


async def test_bookmarks_move_the_version_and_change_nothing(api, fleet):
    api.slices.change("ADDED", build_slice("a"))
    await eventually(lambda: uids(fleet) == {"a"})
    await eventually(lambda: api.slices.watchers)
    api.slices.version = 500
    api.slices.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "500"}}})
    await asyncio.sleep(0.05)
    api.slices.oldest = 400
    api.slices.send(None)
    await eventually(lambda: api.slices.watches >= 2)
    assert uids(fleet) == {"a"}
    assert api.slices.lists == 1


async def test_a_silent_watch_is_taken_for_dead_and_what_was_missed_is_caught_up(api, fleet):
    api.slices.change("ADDED", build_slice("a"))
    await eventually(lambda: uids(fleet) == {"a"})
    api.mute = True
    api.slices.change("MODIFIED", build_slice("b"))
    await asyncio.sleep(0.3)
    assert uids(fleet) == {"a"}
    api.mute = False
    await eventually(lambda: uids(fleet) == {"b"})


async def test_while_the_api_server_is_gone_everything_stays_and_afterwards_goes_on(api, fleet, tools):
    api.slices.change("ADDED", build_slice("a"))
    api.maps.change("ADDED", build_map(tools.build_table(generation=3)))
    await eventually(lambda: uids(fleet) == {"a"} and fleet.table is not None)
    await api.stop()
    await asyncio.sleep(0.5)
    assert uids(fleet) == {"a"}
    assert fleet.table.generation == 3
    api.slices.change("MODIFIED", build_slice("b"))
    api.maps.change("MODIFIED", build_map(tools.build_table(generation=4)))
    await api.start()
    await eventually(lambda: uids(fleet) == {"b"} and fleet.table.generation == 4)


async def test_an_api_server_that_answers_with_errors_is_asked_again(api, fleet):
    api.failing = True
    await asyncio.sleep(0.2)
    api.slices.change("ADDED", build_slice("a"))
    api.failing = False
    await eventually(lambda: uids(fleet) == {"a"})


async def test_a_slice_that_makes_no_sense_leaves_the_known_endpoints_in_force(api, fleet):
    api.slices.change("ADDED", build_slice("a"))
    await eventually(lambda: uids(fleet) == {"a"})
    api.slices.change("ADDED", {"metadata": {"name": "odd"}, "endpoints": [{"addresses": 7}]})
    await asyncio.sleep(0.1)
    assert uids(fleet) == {"a"}
