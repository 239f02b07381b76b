"""The router's view of the API server: EndpointSlices of the model and the ConfigMap with its routing table.

List, then watch from there; on 410 list again; on any other failure wait (jittered, up to 10 s) and go on from where
it was. A watch that says nothing for longer than the server promised is taken for dead. What was learnt stays for
ever when the server is gone: only a successful answer changes anything. Deliberately does not know what the objects
mean to routing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from kubernetes.aio import client as kube
from kubernetes.aio.config import ConfigException, load_incluster_config

from inference_pods import protocol
from inference_pods.router.endpoints import SliceError, parse_endpoints
from inference_pods.router.fleet import Fleet
from inference_pods.router.settings import RouterSettings
from inference_pods.router.sources import offer_table_text

logger = logging.getLogger(__name__)

WATCH_SECONDS: Final = 30  # asked of the server: bounds how long a dead connection goes unnoticed
SILENCE_SECONDS: Final = 40.0  # a watch that has not ended by itself until then is dead
LIST_SECONDS: Final = 10.0
BACKOFF_FIRST_SECONDS: Final = 0.2
BACKOFF_MAX_SECONDS: Final = 10.0
HTTP_GONE: Final = 410
WATCH_ERRORS: Final = (
    aiohttp.ClientError,
    TimeoutError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    kube.exceptions.ApiException,
)

Objects = dict[str, dict[str, Any]]
ListCall = Callable[..., Awaitable[aiohttp.ClientResponse]]


class ExpiredError(Exception):
    """The resourceVersion to watch from is too old: list again."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient a watch is; tests are less so."""

    watch_seconds: int = WATCH_SECONDS
    silence_seconds: float = SILENCE_SECONDS
    backoff_first_seconds: float = BACKOFF_FIRST_SECONDS
    backoff_max_seconds: float = BACKOFF_MAX_SECONDS


class ObjectWatch:
    """Keeps the objects of one list call up to date and reports every change of the whole set.

    `list_call` is a generated *_without_preload_content method with its selectors bound.
    """

    def __init__(self, name: str, list_call: ListCall, publish: Callable[[Objects], None], timing: Timing) -> None:
        self._name = name
        self._list_call = list_call
        self._publish = publish
        self._timing = timing
        self._objects: Objects = {}
        self._version: str | None = None

    async def run(self) -> None:
        """Until cancelled."""
        delay = self._timing.backoff_first_seconds
        while True:
            try:
                if self._version is None:
                    await self._list()
                await self._watch(self._version or "")
                delay = self._timing.backoff_first_seconds
                await asyncio.sleep(delay * random.random())  # noqa: S311 - a server that ends watches at once
            except ExpiredError:
                logger.info("watch of %s: the version is gone, listing again", self._name)
                self._version = None
                await asyncio.sleep(self._timing.backoff_first_seconds * random.random())  # noqa: S311
            except WATCH_ERRORS as error:
                logger.warning("watch of %s failed, what is known stays: %s", self._name, _describe(error))
                await asyncio.sleep(delay * (0.5 + random.random()))  # noqa: S311
                delay = min(delay * 2, self._timing.backoff_max_seconds)

    async def _list(self) -> None:
        async with asyncio.timeout(LIST_SECONDS):
            response = await self._list_call(_request_timeout=LIST_SECONDS)
            try:
                _check_status(response)
                document = json.loads(await response.read())
            finally:
                response.release()
        self._objects = {item["metadata"]["name"]: item for item in document.get("items") or []}
        self._version = document["metadata"]["resourceVersion"]
        self._publish(self._objects)

    async def _watch(self, version: str) -> None:
        """One watch call: returns when the server ends it, which is no failure."""
        async with asyncio.timeout(LIST_SECONDS):
            response = await self._list_call(
                watch=True,
                resource_version=version,
                allow_watch_bookmarks=True,
                timeout_seconds=self._timing.watch_seconds,
                _request_timeout=self._timing.watch_seconds + LIST_SECONDS + self._timing.silence_seconds,
            )
        try:
            _check_status(response)
            while line := await self._read_line(response):
                self._apply(json.loads(line))
        finally:
            response.close()

    async def _read_line(self, response: aiohttp.ClientResponse) -> bytes:
        async with asyncio.timeout(self._timing.silence_seconds):
            return await response.content.readline()

    def _apply(self, event: Mapping[str, Any]) -> None:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            _raise_status(item.get("code", 500), item.get("message", ""))
        self._version = item["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        name = item["metadata"]["name"]
        if kind == "DELETED":
            self._objects.pop(name, None)
        else:
            self._objects[name] = item
        self._publish(self._objects)


async def watch_cluster(settings: RouterSettings, fleet: Fleet) -> None:
    """Feed the fleet from the API server of the cluster that this pod runs in, until cancelled."""
    configuration = kube.Configuration()
    while True:
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            break
        except ConfigException as error:
            logger.error("no API server: %s; serving with the mounted table, looking again in 10 s", error)
            await asyncio.sleep(BACKOFF_MAX_SECONDS)
    await watch_with(configuration, settings, fleet, Timing())


async def watch_with(configuration: kube.Configuration, settings: RouterSettings, fleet: Fleet, timing: Timing) -> None:
    """The same with a given client configuration."""
    configuration.retries = False  # this module has its own patience
    async with kube.ApiClient(configuration) as api:
        watches = [_slice_watch(api, settings, fleet, timing)]
        if settings.table_configmap:
            watches.append(_table_watch(api, settings, fleet, timing))
        await asyncio.gather(*(watch.run() for watch in watches))


def _slice_watch(api: kube.ApiClient, settings: RouterSettings, fleet: Fleet, timing: Timing) -> ObjectWatch:
    selector = f"{protocol.LABEL_MODEL}={settings.model}"

    async def call(**options: Any) -> aiohttp.ClientResponse:
        discovery = kube.DiscoveryV1Api(api)
        list_slices = discovery.list_namespaced_endpoint_slice_without_preload_content
        return await list_slices(settings.namespace, label_selector=selector, **options)

    def publish(objects: Objects) -> None:
        try:
            fleet.offer_endpoints(parse_endpoints(objects.values()))
        except SliceError as error:
            logger.error("%s: the endpoints known before stay in force", error)

    return ObjectWatch("endpoint slices", call, publish, timing)


def _table_watch(api: kube.ApiClient, settings: RouterSettings, fleet: Fleet, timing: Timing) -> ObjectWatch:
    selector = f"metadata.name={settings.table_configmap}"

    async def call(**options: Any) -> aiohttp.ClientResponse:
        list_maps = kube.CoreV1Api(api).list_namespaced_config_map_without_preload_content
        return await list_maps(settings.namespace, field_selector=selector, **options)

    def publish(objects: Objects) -> None:
        for item in objects.values():  # none: the ConfigMap was deleted; the table in force stays
            text = (item.get("data") or {}).get(protocol.TABLE_KEY)
            if text is not None:
                offer_table_text(fleet, text, settings.model, source=f"ConfigMap {settings.table_configmap}")

    return ObjectWatch("the routing table", call, publish, timing)


def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        _raise_status(response.status, response.reason or "")


def _raise_status(status: int, message: str) -> None:
    if status == HTTP_GONE:
        raise ExpiredError
    raise kube.exceptions.ApiException(status=status, reason=message)


def _describe(error: BaseException) -> str:
    if isinstance(error, kube.exceptions.ApiException):
        return f"HTTP {error.status} {error.reason}"
    return f"{type(error).__name__}: {error}"
