"""Fixtures against a real API server. Nothing runs unless the context is named: ADAPTIVE_TEST_CONTEXT must be it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config, watch
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds" / "adaptivemodels.adaptivellm.dev.yaml"
POOL_CRD = ROOT / "crds" / "acceleratorpools.adaptivellm.dev.yaml"
CONTEXT_VARIABLE = "ADAPTIVE_TEST_CONTEXT"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse any cluster that was not named on purpose: these tests create and delete objects."""
    cause = None if session.config.option.collectonly else refusal()
    if cause is not None:
        pytest.exit(cause, returncode=4)


def refusal() -> str | None:
    """Why the current context must not be used, with the remedy; None when it is the named one."""
    named = os.environ.get(CONTEXT_VARIABLE)
    remedy = (
        "run `python -m e2e.cluster up --name integration --mode api`, then `python -m e2e.cluster exec"
        f" --name integration -- env {CONTEXT_VARIABLE}=adaptive-integration python -m pytest tests/integration`"
    )
    if not named:
        return f"{CONTEXT_VARIABLE} does not name the context to test against; {remedy}"
    try:
        current = config.list_kube_config_contexts()[1]["name"]
    except config.ConfigException as error:
        return f"there is no kubeconfig ({error}); {remedy}"
    if current != named:
        return f"{CONTEXT_VARIABLE} is {named}, but the current context is {current}; {remedy}"
    return None


@pytest.fixture(scope="session")
def context() -> str:
    """Name of the context under test; fails for any that was not named (also when the whole of tests/ is run)."""
    cause = refusal()
    if cause is not None:
        pytest.fail(cause, pytrace=False)
    return os.environ[CONTEXT_VARIABLE]


@pytest.fixture(scope="session")
def api(context: str) -> Iterator[client.ApiClient]:
    """A client of the named context, for set-up and short checks."""
    with config.new_client_from_config(context=context) as api_client:
        yield api_client


@pytest.fixture
async def aio_api(context: str) -> AsyncIterator[aio_client.ApiClient]:
    """The same through the client that the operator uses."""
    async with await aio_config.new_client_from_config(context=context) as api_client:
        yield api_client


@pytest.fixture(scope="session")
def crd(api: client.ApiClient) -> dict[str, Any]:
    """The definition of AdaptiveModels, installed by server-side apply and established."""
    return _install(api, CRD)


@pytest.fixture(scope="session")
def pool_crd(api: client.ApiClient) -> dict[str, Any]:
    """The same of AcceleratorPools."""
    return _install(api, POOL_CRD)


def _install(api: client.ApiClient, path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    definitions = client.ApiextensionsV1Api(api)
    definitions.patch_custom_resource_definition(
        manifest["metadata"]["name"],
        manifest,
        field_manager="integration-tests",
        force=True,
        _content_type="application/apply-patch+yaml",
    )
    _await_established(definitions, manifest["metadata"]["name"])
    return manifest


@pytest.fixture
def namespace(api: client.ApiClient) -> Iterator[str]:
    """A namespace of the test's own."""
    core = client.CoreV1Api(api)
    name = f"test-{uuid.uuid4().hex[:10]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name)


@pytest.fixture(scope="session")
def kubectl() -> str:
    """Path of kubectl."""
    path = shutil.which("kubectl")
    if path is None:
        pytest.fail("kubectl is not on PATH; run the tests through `python -m e2e.cluster exec`, which brings it")
    return path


def _await_established(definitions: client.ApiextensionsV1Api, name: str) -> None:
    """Watch until the API server serves the new kind."""
    stream = watch.Watch().stream(
        definitions.list_custom_resource_definition, field_selector=f"metadata.name={name}", timeout_seconds=30
    )
    for event in stream:
        conditions = {c.type: c.status for c in event["object"].status.conditions or []}
        if conditions.get("Established") == "True":
            return
    pytest.fail(f"the CRD {name} was not established within 30 s")
