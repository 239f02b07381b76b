"""A thin typed layer over `kubernetes.aio`: list, get, create, server-side apply, delete, with domain errors.

One table says where each kind lives. Answers stay plain JSON (manifests are Any by nature; deserialising thousands of
pods into client classes costs more than the pass itself). Knows nothing of AdaptiveModels, leases or retries: a failed
call raises, and the next pass tries anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_incluster_config, load_kube_config
from kubernetes.aio.config.config_exception import ConfigException

from adaptive_operator.names import FIELD_MANAGER, GROUP, KIND, PLURAL, POOL_KIND, POOL_PLURAL, VERSION
from adaptive_operator.pages import parse_page, parse_page_of_pods

_RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
PATHS: Final[Mapping[str, tuple[str, str]]] = {
    KIND: (f"/apis/{GROUP}/{VERSION}", PLURAL),
    POOL_KIND: (f"/apis/{GROUP}/{VERSION}", POOL_PLURAL),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Pod": ("/api/v1", "pods"),
    "Node": ("/api/v1", "nodes"),
    "Service": ("/api/v1", "services"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Event": ("/api/v1", "events"),
    "Role": (_RBAC, "roles"),
    "RoleBinding": (_RBAC, "rolebindings"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
}
_PAGE_SIZE: Final = 500
# Uncompressed, because the API server would otherwise zip every page of a list: more CPU on both sides than the wire is
# worth within a cluster.
_HEADERS: Final[Mapping[str, str]] = {"Accept": "application/json", "Accept-Encoding": "identity"}
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"

Manifest = dict[str, Any]


def api_version(kind: str) -> str:
    """`apps/v1` of a StatefulSet, `v1` of a Pod."""
    return PATHS[kind][0].removeprefix("/apis/").removeprefix("/api/")


class KubeError(Exception):
    """A call that failed. `verb` and `resource` are in the words of RBAC; `status` is 0 when there was no answer."""

    def __init__(self, verb: str, resource: str, status: int, message: str) -> None:
        super().__init__(f"{verb} {resource}: {message}" + (f" (HTTP {status})" if status else ""))
        self.verb, self.resource, self.status, self.message = verb, resource, status, message


class ConflictError(KubeError):
    """409: the object changed since it was read, exists already, or a field belongs to somebody else."""


class NotFoundError(KubeError):
    """404: the object, its namespace or its kind does not exist."""


class ForbiddenError(KubeError):
    """403: RBAC, a quota or an admission rule refused."""


class RejectedError(KubeError):
    """400 or 422: the API server finds the object invalid."""


class UnavailableError(KubeError):
    """No usable answer: refused, timed out, 401, 429 or 5xx. It may have been carried out all the same."""


_ERRORS: Final[Mapping[int, type[KubeError]]] = {
    400: RejectedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    422: RejectedError,
}


async def load_configuration() -> Configuration:
    """The pod's service account, else the kubeconfig's current context; raises ConfigException if neither works."""
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException:
        await load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


class KubeClient:
    """Calls one API server. `timeout_seconds` bounds a call, its answer included."""

    def __init__(self, configuration: Configuration, timeout_seconds: float = 10.0) -> None:
        self._api = ApiClient(configuration)
        self._timeout_seconds = timeout_seconds

    async def close(self) -> None:
        """Give the connections back."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: str, namespace: str, name: str) -> Manifest:
        """One object; raises NotFoundError."""
        return await self._call("get", "GET", kind, namespace, name)

    async def list(self, kind: str, namespace: str | None, label_selector: str | None = None) -> list[Manifest]:
        """All objects of a kind, read from the store and not from a cache; `namespace` None: all namespaces.

        Each says its kind and apiVersion, which the API server leaves out of the items of a list, and comes without
        its managedFields; a pod with no more of its spec than what it holds and where.
        """
        identity = {"apiVersion": api_version(kind), "kind": kind}
        items: list[Manifest] = []
        parse = parse_page_of_pods if kind == "Pod" else parse_page
        query = {"limit": str(_PAGE_SIZE)} | ({"labelSelector": label_selector} if label_selector else {})
        while True:
            page = await self._call("list", "GET", kind, namespace, None, query=query, parse=parse)
            items += [{**identity, **item} for item in page.get("items") or []]
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return items
            query = query | {"continue": token}

    async def create(self, manifest: Manifest) -> Manifest:
        """Create; raises ConflictError when the name is taken."""
        kind, namespace, _ = _identify(manifest)
        return await self._call(
            "create", "POST", kind, namespace, None, body=manifest, query={"fieldManager": FIELD_MANAGER}
        )

    async def replace(self, manifest: Manifest, timeout_seconds: float | None = None) -> Manifest:
        """Replace what was read; the manifest's resourceVersion is the precondition."""
        kind, namespace, name = _identify(manifest)
        query = {"fieldManager": FIELD_MANAGER}
        return await self._call(
            "update", "PUT", kind, namespace, name, manifest, query, timeout_seconds=timeout_seconds
        )

    async def apply(
        self, manifest: Manifest, *, force: bool, subresource: str | None = None, timeout_seconds: float | None = None
    ) -> Manifest:
        """Server-side apply. A resourceVersion in the manifest is a precondition. Without `force` a field that somebody
        else owns with another value makes it a ConflictError."""
        kind, namespace, name = _identify(manifest)
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return await self._call(
            "patch", "PATCH", kind, namespace, name, manifest, query, _APPLY, subresource, timeout_seconds
        )

    async def merge(self, kind: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        """JSON merge patch."""
        return await self._call("patch", "PATCH", kind, namespace, name, patch, {"fieldManager": FIELD_MANAGER}, _MERGE)

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
        """Delete this very object, its dependants in the background; raises ConflictError when it is another one.

        `at_once` removes a pod's object without its node's word that the containers have ended.
        """
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        body: Manifest = {"propagationPolicy": "Background", "preconditions": preconditions}
        if at_once:
            body["gracePeriodSeconds"] = 0
        await self._call("delete", "DELETE", kind, namespace, name, body, timeout_seconds=timeout_seconds)

    async def _call(
        self,
        verb: str,
        method: str,
        kind: str,
        namespace: str | None,
        name: str | None,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        subresource: str | None = None,
        timeout_seconds: float | None = None,
        parse: Callable[[bytes], Any] = json.loads,
    ) -> Manifest:
        path = _build_path(kind, namespace, name, subresource)
        resource = PATHS[kind][1] + (f"/{subresource}" if subresource else "") + (f' "{name}"' if name else "")
        resource += f" in namespace {namespace}" if namespace else ""
        seconds = min(self._timeout_seconds, timeout_seconds or self._timeout_seconds)
        try:
            status, text = await self._send(method, path, query, body, content_type, seconds)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(verb, resource, 0, f"no answer from the API server: {error!r}") from error
        if status >= 300:
            raise _ERRORS.get(status, UnavailableError)(verb, resource, status, _parse_message(text))
        return _parse_object(parse, verb, resource, status, text)

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Manifest | None,
        content_type: str,
        seconds: float,
    ) -> tuple[int, bytes]:
        prepared = await self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={**_HEADERS, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        response = await self._api.call_api(*prepared, _request_timeout=aiohttp.ClientTimeout(total=seconds))
        text: bytes = await response.read()  # type: ignore[no-untyped-call]
        return response.status, text


def _identify(manifest: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def _build_path(kind: str, namespace: str | None, name: str | None, subresource: str | None) -> str:
    prefix, plural = PATHS[kind]
    parts = [prefix, *(["namespaces", namespace] if namespace else []), plural]
    return "/".join([*parts, *([name] if name else []), *([subresource] if subresource else [])])


def _parse_message(text: bytes) -> str:
    """The `message` of a Status object, else the start of whatever came."""
    try:
        message = json.loads(text).get("message")
    except (ValueError, AttributeError):
        message = None
    return str(message or text.decode(errors="replace") or "no message")[:1000]


def _parse_object(parse: Callable[[bytes], Any], verb: str, resource: str, status: int, text: bytes) -> Manifest:
    try:
        value = parse(text)
    except ValueError as error:
        raise UnavailableError(verb, resource, status, "the answer is not JSON as it should be") from error
    if not isinstance(value, dict):
        raise UnavailableError(verb, resource, status, "the answer is not an object")
    return value
