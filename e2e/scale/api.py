"""One pooled connection to the API server: plain JSON in and out, and watches. Knows no kinds."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kubernetes.aio import client, config

Manifest = dict[str, Any]
_SECONDS = 60.0  # that a call may take
WATCH_SECONDS = 300  # the API server ends a watch after so long


class ApiError(Exception):
    """The API server refused, or did not answer; `status` is 0 without an answer."""

    def __init__(self, what: str, status: int, text: str) -> None:
        super().__init__(f"{what}: {f'HTTP {status}: ' if status else ''}{text[:300]}")
        self.status = status


class Api:
    """Calls to one API server."""

    def __init__(self, configuration: client.Configuration) -> None:
        self._api = client.ApiClient(configuration)

    async def close(self) -> None:
        await self._api.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        content_type: str = "application/json",
        **query: str,
    ) -> Manifest:
        """One call's answer; raises ApiError."""
        try:
            response = await self._open(method, path, query, body, content_type, aiohttp.ClientTimeout(total=_SECONDS))
            text = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(f"{method} {path}", 0, repr(error)) from error
        if response.status >= 300:
            raise ApiError(f"{method} {path}", response.status, text.decode(errors="replace"))
        answer: Manifest = json.loads(text)
        return answer

    async def watch(self, path: str, version: str, **query: str) -> AsyncGenerator[Manifest, None]:
        """Events after `version` until the API server ends the watch; raises ApiError when it is lost."""
        query |= {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version}
        query |= {"timeoutSeconds": str(WATCH_SECONDS)}
        # A watch that the network swallowed says nothing at all: bookmarks come once a minute.
        limit = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS + 30)
        try:
            answer = await self._open("GET", path, query, None, "application/json", limit)
            async with answer.response as response:
                if response.status >= 300:
                    raise ApiError(f"watch {path}", response.status, await response.text())
                async for line in _lines(response.content):
                    yield json.loads(line)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ApiError(f"watch {path}", 0, repr(error)) from error

    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: object,
        content_type: str,
        limit: aiohttp.ClientTimeout,
    ) -> Any:
        prepared = await self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        return await self._api.call_api(*prepared, _request_timeout=limit)


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, however long (`readline` refuses those beyond its buffer)."""
    rest = bytearray()
    async for chunk in stream.iter_any():
        rest += chunk
        *whole, last = rest.split(b"\n")
        rest = last
        for line in whole:
            if line:
                yield bytes(line)


@asynccontextmanager
async def connect(context: str) -> AsyncIterator[Api]:
    """A client for exactly the context that is named; raises ApiError when the kubeconfig has none of that name."""
    configuration = client.Configuration()
    try:
        await config.load_kube_config(context=context, client_configuration=configuration)
    except config.ConfigException as error:
        raise ApiError(f"kube context {context!r}", 0, f"{error}; see kubectl config get-contexts") from error
    api = Api(configuration)
    try:
        yield api
    finally:
        await api.close()
