"""The objects of one collection, kept up to date by list and watch, whatever the API server does meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from e2e.scale.api import ApiError

_LOG = logging.getLogger(__name__)
Manifest = dict[str, Any]
Key = tuple[str, str]  # namespace and name


class Source(Protocol):
    """What a mirror reads from."""

    async def call(self, method: str, path: str, **query: str) -> Manifest: ...

    def watch(self, path: str, version: str, **query: str) -> AsyncGenerator[Manifest, None]: ...


@dataclass(slots=True)
class Mirror:
    """`keep` trims an object to what is wanted of it. While the API server is away, the last view stays."""

    source: Source
    path: str
    selector: str = ""
    keep: Callable[[Manifest], Manifest] = lambda raw: raw
    retry_seconds: float = 2.0
    objects: dict[Key, Manifest] = field(default_factory=dict)
    is_known: bool = False  # listed at least once

    async def run(self) -> None:
        """Until cancelled: a lost watch begins anew with a list, an error is logged and tried again after a pause."""
        while True:
            try:
                version = await self._list()
                while True:
                    version = await self._follow(version)
            except ApiError as error:
                _LOG.warning("%s; again in %g s", error, self.retry_seconds)
                await asyncio.sleep(self.retry_seconds)

    async def _list(self) -> str:
        # From the API server's cache, at no cost to etcd.
        answer = await self.source.call("GET", self.path, resourceVersion="0", **self._query())
        self.objects = {_key(item): self.keep(item) for item in answer.get("items") or []}
        self.is_known = True
        return str(answer["metadata"]["resourceVersion"])

    async def _follow(self, version: str) -> str:
        """One watch, to its end; the version to go on from."""
        async with aclosing(self.source.watch(self.path, version, **self._query())) as events:
            async for event in events:
                version = self._note(event)
        return version

    def _note(self, event: Manifest) -> str:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":  # 410: the version is too old to go on from
            raise ApiError(f"watch {self.path}", int(item.get("code") or 0), str(item.get("message")))
        if kind == "DELETED":
            self.objects.pop(_key(item), None)
        elif kind != "BOOKMARK":
            self.objects[_key(item)] = self.keep(item)
        return str(item["metadata"]["resourceVersion"])

    def _query(self) -> dict[str, str]:
        return {"labelSelector": self.selector} if self.selector else {}


def _key(item: Manifest) -> Key:
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
