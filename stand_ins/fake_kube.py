"""An API server in memory: versions, preconditions, errors on demand. Its apply merges nothing: the integration tests
have a real one."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from adaptive_operator.kube import ConflictError, NotFoundError

Raw = dict[str, Any]


class FakeKube:
    def __init__(self, objects: Iterable[Raw] = ()) -> None:
        self._versions = itertools.count(1000)
        self.objects: dict[tuple[str, str, str], Raw] = {_key(raw): copy.deepcopy(raw) for raw in objects}
        self.calls: list[tuple[str, str, str]] = []  # verb, kind, name
        self.forces: list[bool] = []
        self.fail: Callable[[str, str, str], Exception | None] = lambda _verb, _kind, _name: None

    @property
    def writes(self) -> list[tuple[str, str, str]]:
        return [call for call in self.calls if call[0] not in ("get", "list")]

    async def get(self, kind: str, namespace: str, name: str) -> Raw:
        self._note("get", kind, name)
        return copy.deepcopy(self._find("get", (kind, namespace, name)))

    async def list(self, kind: str, namespace: str | None, label_selector: str | None = None) -> list[Raw]:
        self._note("list", kind, "")
        label, _, value = (label_selector or "").partition("=")
        return [
            copy.deepcopy(raw)
            for (of_kind, of_namespace, _), raw in self.objects.items()
            if of_kind == kind and namespace in (None, of_namespace)
            if not label or (raw["metadata"].get("labels") or {}).get(label) == value
        ]

    async def create(self, manifest: Raw) -> Raw:
        self._note("create", manifest["kind"], manifest["metadata"]["name"])
        if _key(manifest) in self.objects:
            raise ConflictError("create", manifest["kind"], 409, "already exists")
        return self._store(copy.deepcopy(manifest))

    async def replace(self, manifest: Raw, timeout_seconds: float | None = None) -> Raw:
        self._note("update", manifest["kind"], manifest["metadata"]["name"])
        self._check("update", manifest)
        return self._store(copy.deepcopy(manifest))

    async def apply(
        self, manifest: Raw, *, force: bool, subresource: str | None = None, timeout_seconds: float | None = None
    ) -> Raw:
        self._note("patch", manifest["kind"], manifest["metadata"]["name"])
        self.forces.append(force)
        key = _key(manifest)
        if key in self.objects or "resourceVersion" in manifest["metadata"]:
            self._check("patch", manifest)
        before = self.objects.get(key, {"metadata": {"uid": f"uid-{key[1]}-{key[2]}"}})
        metadata = {
            **before["metadata"],
            **manifest["metadata"],
            "resourceVersion": before["metadata"].get("resourceVersion"),
        }
        after = {**before, **manifest, "metadata": metadata}
        return copy.deepcopy(before) if after == before else self._store(after)

    async def merge(self, kind: str, namespace: str, name: str, patch: Raw) -> Raw:
        self._note("patch", kind, name)
        return self._store({**self._find("patch", (kind, namespace, name)), **patch})

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        uid: str,
        resource_version: str | None,
        at_once: bool = False,
        timeout_seconds: float | None = None,
    ) -> None:
        self._note("delete at once" if at_once else "delete", kind, name)
        metadata = self._find("delete", (kind, namespace, name))["metadata"]
        if metadata["uid"] != uid or (resource_version or metadata["resourceVersion"]) != metadata["resourceVersion"]:
            raise ConflictError("delete", kind, 409, "precondition failed")
        del self.objects[kind, namespace, name]

    def touch(self, kind: str, namespace: str, name: str) -> None:
        """Somebody else writes the object."""
        self._store(self.objects[kind, namespace, name])

    def _note(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        if (error := self.fail(verb, kind, name)) is not None:
            raise error

    def _find(self, verb: str, key: tuple[str, str, str]) -> Raw:
        if key not in self.objects:
            raise NotFoundError(verb, key[0], 404, f"{key[2]} not found")
        return self.objects[key]

    def _check(self, verb: str, manifest: Raw) -> None:
        wanted = manifest["metadata"].get("resourceVersion")
        if wanted not in (None, self._find(verb, _key(manifest))["metadata"]["resourceVersion"]):
            raise ConflictError(verb, manifest["kind"], 409, "the object has been modified")

    def _store(self, raw: Raw) -> Raw:
        raw["metadata"] = {**raw["metadata"], "resourceVersion": str(next(self._versions))}
        self.objects[_key(raw)] = raw
        return copy.deepcopy(raw)


def _key(raw: Raw) -> tuple[str, str, str]:
    return raw["kind"], raw["metadata"].get("namespace", ""), raw["metadata"]["name"]
