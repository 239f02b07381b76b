"""Fixtures of the end-to-end tests: the one cluster they may touch, the installed chart, and a watch on the budget.

The tests change what runs in a cluster, so they refuse any context that was not named: E2E_CONTEXT, or the cluster that
`python -m e2e.cluster exec --name …` put them in.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from e2e.demo.commands import kubectl
from e2e.demo.install import install_chart
from e2e.demo.kube import Kube, connect
from e2e.demo.settings import Settings, settings_from_environment
from e2e.tests.budget import BudgetWatch
from e2e.tests.models import NAMESPACES, RESOURCE, remove_namespace

_OWN_PREFIX = "adaptive-"


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The named context, or the end of the run."""
    context = os.environ.get("E2E_CONTEXT") or os.environ.get("ADAPTIVE_CONTEXT", "")
    if not context:
        pytest.exit(
            "no cluster is named: run `make e2e`, or set E2E_CONTEXT to the kube context that the tests may change",
            returncode=2,
        )
    out = Path(__file__).resolve().parents[1] / "out" / "e2e"
    if context == os.environ.get("ADAPTIVE_CONTEXT") and context.startswith(_OWN_PREFIX):
        return replace(settings_from_environment(), context="", cluster=context.removeprefix(_OWN_PREFIX), out=out)
    return replace(settings_from_environment(), context=context, out=out)


@pytest.fixture(scope="session", autouse=True)
def installed(settings: Settings) -> Iterator[Settings]:
    """The chart, installed once; a failure leaves everything in place to look at."""
    install_chart(settings)
    for name in NAMESPACES:
        remove_namespace(settings, name)
    others = kubectl(settings, "get", "am", "--all-namespaces", "--no-headers").split("\n")[0].split()[:2]
    if others:
        pytest.exit(f"AdaptiveModel {'/'.join(others)} holds accelerators that the tests need: remove it", returncode=2)
    yield settings
    settings.out.mkdir(parents=True, exist_ok=True)
    log = kubectl(
        settings, "-n", settings.system_namespace, "logs", f"deployment/{settings.release}-operator", "--tail=-1"
    )
    (settings.out / "operator.log").write_text(log)


@pytest_asyncio.fixture
async def kube(settings: Settings) -> AsyncIterator[Kube]:
    """A reading client."""
    async with connect(settings.kube_context) as client:
        yield client


@pytest_asyncio.fixture(autouse=True)
async def budget(kube: Kube) -> AsyncIterator[BudgetWatch]:
    """Looks at all engine pods of the cluster during every test; more than the node has fails the test."""
    watch = BudgetWatch(kube, RESOURCE)
    limit = await watch.allocatable()
    task = asyncio.create_task(watch.run())
    yield watch
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await watch.look()  # short tests too are looked at
    assert watch.most <= limit, f"{watch.most} accelerators were held, there are {limit}"
