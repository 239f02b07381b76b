"""Reads from the API server, over one pooled connection, as plain JSON. Never writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kubernetes.aio import client, config

from e2e.demo.settings import DemoError

MODELS_PATH = "/apis/adaptivellm.dev/v1alpha1/namespaces/{namespace}/adaptivemodels"


class NotFoundError(Exception):
    """The API server answered 404."""


class Kube:
    """GET requests to one API server."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    async def text(self, path: str, **query: str) -> str:
        """Body of a GET; NotFoundError on 404, DemoError on any other failure."""
        prepared = await self._api.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, text/plain"},
            auth_settings=["BearerToken"],
        )
        response = await self._api.call_api(*prepared, _request_timeout=5)
        body = (await response.read()).decode(errors="replace")
        if response.status == 404:
            raise NotFoundError(path)
        if response.status != 200:
            raise DemoError(f"GET {path}: HTTP {response.status}: {body[:200]}")
        return body

    async def json(self, path: str, **query: str) -> dict[str, Any]:
        """The same, parsed."""
        body = json.loads(await self.text(path, **query))
        assert isinstance(body, dict)
        return body

    async def model(self, namespace: str, name: str) -> dict[str, Any]:
        """One AdaptiveModel."""
        return await self.json(f"{MODELS_PATH.format(namespace=namespace)}/{name}")

    async def pods(self, namespace: str, selector: str = "app.kubernetes.io/managed-by=adaptive-llm") -> list[Any]:
        """Pods of a namespace, Terminating ones included."""
        found = await self.json(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
        return list(found["items"])

    async def pod_metrics(self, namespace: str, pod: str, port: int) -> str:
        """A pod's /metrics, through the API server, so that it works from wherever the API server can be reached."""
        return await self.text(f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics")


@asynccontextmanager
async def connect(context: str) -> AsyncIterator[Kube]:
    """A client for exactly the context that is named; DemoError when the kubeconfig has none of that name."""
    try:
        configuration = client.Configuration()
        await config.load_kube_config(context=context, client_configuration=configuration)
    except config.ConfigException as error:
        raise DemoError(f"kube context {context!r}: {error}; see kubectl config get-contexts") from error
    api = client.ApiClient(configuration)
    try:
        yield Kube(api)
    finally:
        await api.close()
