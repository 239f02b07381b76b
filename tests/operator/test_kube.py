"""Calls to the API server: paths, preconditions and errors as types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from adaptive_operator.kube import (
    ConflictError,
    ForbiddenError,
    KubeClient,
    KubeError,
    NotFoundError,
    RejectedError,
    UnavailableError,
    api_version,
)


class Api:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], Any, str]] = []
        self.answers: list[web.Response] = []
        self.encodings: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        self.encodings.append(request.headers.get("Accept-Encoding", ""))
        self.seen.append((request.method, request.path, dict(request.query), body, request.content_type))
        return self.answers.pop(0) if self.answers else web.json_response({})


@pytest.fixture
async def scene() -> AsyncIterator[tuple[Api, KubeClient]]:
    api, app = Api(), web.Application()
    app.router.add_route("*", "/{tail:.*}", api.handle)
    server = TestServer(app)
    await server.start_server()
    client = KubeClient(Configuration(host=str(server.make_url("")).rstrip("/")), timeout_seconds=1.0)
    yield api, client
    await client.close()
    await server.close()


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "demo", "name": "p"}}


async def test_server_side_apply_names_its_manager_and_force(scene: tuple[Api, KubeClient]) -> None:
    api, client = scene
    await client.apply(POD, force=True, subresource="status")
    method, path, query, body, content_type = api.seen[0]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/demo/pods/p/status")
    assert query == {"fieldManager": "adaptive-operator", "force": "true"}
    assert (body, content_type) == (POD, "application/apply-patch+yaml")


@pytest.mark.parametrize(
    ("kind", "version"), [("Pod", "v1"), ("StatefulSet", "apps/v1"), ("AdaptiveModel", "adaptivellm.dev/v1alpha1")]
)
def test_each_kind_has_its_version(kind: str, version: str) -> None:
    assert api_version(kind) == version


async def test_delete_carries_its_preconditions(scene: tuple[Api, KubeClient]) -> None:
    api, client = scene
    await client.delete("StatefulSet", "demo", "s", uid="u", resource_version="7")
    assert api.seen[0][:2] == ("DELETE", "/apis/apps/v1/namespaces/demo/statefulsets/s")
    assert api.seen[0][3]["preconditions"] == {"uid": "u", "resourceVersion": "7"}


async def test_answers_are_not_asked_for_zipped(scene: tuple[Api, KubeClient]) -> None:
    """Zipping 20 MB of pods in each pass costs the API server more than sending them."""
    api, client = scene
    await client.list("Pod", None)
    assert api.encodings == ["identity"]


async def test_lists_follow_their_pages(scene: tuple[Api, KubeClient]) -> None:
    api, client = scene
    api.answers = [
        web.json_response({"items": [{"a": 1}], "metadata": {"continue": "next"}}),
        web.json_response({"items": [{"a": 2}], "metadata": {}}),
    ]
    identity = {"apiVersion": "v1", "kind": "Pod"}
    assert await client.list("Pod", None, "a=b") == [{**identity, "a": 1}, {**identity, "a": 2}]
    assert [(path, query.get("continue"), query["labelSelector"]) for _, path, query, _, _ in api.seen] == [
        ("/api/v1/pods", None, "a=b"),
        ("/api/v1/pods", "next", "a=b"),
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedError),
        (401, UnavailableError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, RejectedError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
async def test_each_status_is_a_type_that_names_verb_and_resource(
    scene: tuple[Api, KubeClient], status: int, kind: type[KubeError]
) -> None:
    api, client = scene
    api.answers = [web.json_response({"kind": "Status", "message": "because"}, status=status)]
    with pytest.raises(kind) as caught:
        await client.get("Pod", "demo", "p")
    assert (caught.value.verb, caught.value.resource) == ("get", 'pods "p" in namespace demo')
    assert (caught.value.status, caught.value.message) == (status, "because")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"5"])
async def test_an_answer_that_is_no_object_is_no_answer(scene: tuple[Api, KubeClient], body: bytes) -> None:
    api, client = scene
    api.answers = [web.Response(body=body)]
    with pytest.raises(UnavailableError):
        await client.get("Pod", "demo", "p")


async def test_a_list_comes_without_managed_fields(scene: tuple[Api, KubeClient]) -> None:
    api, client = scene
    api.answers = [web.json_response({"items": [{"metadata": {"name": "s", "managedFields": [{}]}, "spec": {"x": 1}}]})]
    (service,) = await client.list("Service", None)
    assert service == {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"x": 1}}


async def test_a_listed_pod_says_no_more_of_its_spec_than_what_it_holds_and_where(
    scene: tuple[Api, KubeClient],
) -> None:
    api, client = scene
    engine = {"name": "engine", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
    spec = {"nodeName": "n", "containers": [{**engine, "env": []}], "volumes": []}
    api.answers = [web.json_response({"items": [{"metadata": {"name": "p"}, "spec": spec}]})]
    (pod,) = await client.list("Pod", None)
    assert pod["spec"] == {"nodeName": "n", "containers": [engine]}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"items": 5}'])
async def test_a_page_that_is_no_list_is_no_answer(scene: tuple[Api, KubeClient], body: bytes) -> None:
    api, client = scene
    api.answers = [web.Response(body=body)]
    with pytest.raises(UnavailableError, match="the answer is not JSON as it should be"):
        await client.list("Pod", None)


async def test_refused_and_silent_are_no_answer() -> None:
    client = KubeClient(Configuration(host="http://127.0.0.1:9"), timeout_seconds=0.2)
    with pytest.raises(UnavailableError, match="no answer from the API server"):
        await client.get("Pod", "demo", "p")
    await client.close()
