"""An AcceleratorPool with pods: two models borrow and give back, and stay as they are when they have no pool."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from e2e.demo.commands import kubectl
from e2e.demo.install import apply
from e2e.demo.kube import Kube, NotFoundError
from e2e.demo.settings import ROOT, Settings
from e2e.tests.budget import BudgetWatch
from e2e.tests.models import RESOURCE, condition, namespace, tier_status, variant, wait_ready
from e2e.tests.traffic import eventually, throughout, traffic

POOL, NS = "shared", "pool"
CHAT, REPORTS = "chat", "reports"
BUDGET = 3  # one less than the node has
RESERVED = 2  # of them for chat
CARD_RATE = 2.0  # requests/s of a replica, by its card; its curve carries ten times that, so nothing has to fail
BORROWING_RATE, RESERVED_RATE = 2.5, 5.0  # requests/s that ask for two replicas, and for more than three
POOL_PATH = f"/apis/adaptivellm.dev/v1alpha1/acceleratorpools/{POOL}"
QUICK = {"dwellSeconds": 5, "holdSeconds": 10, "plannerPeriodSeconds": 2, "plansInAgreement": 2}


@dataclass(frozen=True, slots=True)
class Part:
    """What one model has of the pool, by the pool's status, and what of it serves, by the model's own."""

    accelerators: int
    reason: str
    ready: int


@contextmanager
def pool(settings: Settings) -> Iterator[None]:
    """The pool, new; removed at the end, if the test has not done so."""
    remove_pool(settings)
    share = {"namespace": NS, "model": CHAT, "reservation": RESERVED}
    spec = {"budget": BUDGET, "shares": [share, {"namespace": NS, "model": REPORTS, "weight": 1}]}
    kind = {"apiVersion": "adaptivellm.dev/v1alpha1", "kind": "AcceleratorPool", "metadata": {"name": POOL}}
    apply(settings, {**kind, "spec": spec})
    try:
        yield
    finally:
        remove_pool(settings)


def remove_pool(settings: Settings) -> None:
    """Also right when it is not there."""
    kubectl(settings, "delete", "ap", POOL, "--ignore-not-found", "--timeout=30s")


def member(settings: Settings, name: str, pool_name: str = POOL) -> Any:
    """A model of the pool with one emulated tier of one accelerator: the load alone says how many it wants."""
    card = {"referencePromptTokens": 80, "referenceOutputTokens": 24, "loadSeconds": 5}
    tier = {
        "curve": {"loadSeconds": 1},
        "replicas": {"min": 1, "max": 4},
        "card": {**card, "capacityMilliRequestsPerSecond": round(1000 * CARD_RATE)},
    }
    example = replace(settings, example=ROOT / "examples" / "emulated.yaml")
    accelerators = {"pool": pool_name, "budget": None}
    return variant(example, NS, name, {"int4": tier}, accelerators=accelerators, scaling=QUICK)


@pytest.mark.timeout(300)
async def test_models_of_a_pool_borrow_what_is_idle_and_give_it_back_and_no_request_fails(
    settings: Settings, kube: Kube, budget: BudgetWatch
) -> None:
    """`traffic` fails for any request that is not answered."""
    with namespace(settings, NS), pool(settings):
        apply(settings, member(settings, CHAT), member(settings, REPORTS))
        for name in (CHAT, REPORTS):
            await to_thread(wait_ready, settings, NS, name, {"int4": 1})
        async with traffic(settings, kube, NS, REPORTS, BORROWING_RATE):
            borrowed = {CHAT: Part(1, "Satisfied", 1), REPORTS: Part(2, "Borrowing", 2)}
            await eventually(lambda: parts(kube), borrowed.__eq__, "reports borrows what chat does not want", 60)
            row = (await to_thread(kubectl, settings, "get", "ap", POOL, "--no-headers")).split()
            assert row[:5] == [POOL, "True", RESOURCE, f"{BUDGET}/{BUDGET}", "2"]
            async with traffic(settings, kube, NS, CHAT, RESERVED_RATE):
                returned = {CHAT: Part(RESERVED, "Reserved", RESERVED), REPORTS: Part(1, "Minimum", 1)}
                await eventually(lambda: parts(kube), returned.__eq__, "chat has what is reserved for it", 60)
                await without_a_pool(settings, kube)
    assert budget.most == BUDGET
    assert (budget.most_of(CHAT), budget.most_of(REPORTS)) == (RESERVED, 2)


async def without_a_pool(settings: Settings, kube: Kube) -> None:
    """A model that names an unknown pool, then both without theirs: each keeps its replicas, though it wants more."""
    kept = {CHAT: RESERVED, REPORTS: 1}
    await to_thread(apply, settings, member(settings, REPORTS, "nowhere"))
    await eventually(lambda: homeless(kube), {REPORTS}.__eq__, "reports says that its pool is unknown", 30)
    await throughout(lambda: replicas(kube), kept.__eq__, "the replicas of before", 6)
    await to_thread(remove_pool, settings)
    await eventually(lambda: homeless(kube), {CHAT, REPORTS}.__eq__, "both say that their pool is unknown", 30)
    await throughout(lambda: replicas(kube), kept.__eq__, "the replicas of before", 6)


async def parts(kube: Kube) -> Mapping[str, Part]:
    """How the pool is divided now; empty until its status says so."""
    try:
        status = (await kube.json(POOL_PATH)).get("status") or {}
    except NotFoundError:
        return {}
    ready = {name: tier_status(await kube.model(NS, name), "int4")["ready"] for name in (CHAT, REPORTS)}
    return {m["name"]: Part(m["accelerators"], m["reason"], ready[m["name"]]) for m in status.get("models", [])}


async def homeless(kube: Kube) -> set[str]:
    """The models whose condition says that their pool is unknown."""
    degraded = {name: condition(await kube.model(NS, name), "Degraded") for name in (CHAT, REPORTS)}
    return {name for name, said in degraded.items() if said.get("reason") == "UnknownPool" and said["status"] == "True"}


async def replicas(kube: Kube) -> Mapping[str, int]:
    """Engine pods of each model that are not on their way out."""
    found = {}
    for name in (CHAT, REPORTS):
        pods = await kube.pods(NS, f"app.kubernetes.io/component=engine,adaptivellm.dev/model={name}")
        found[name] = sum("deletionTimestamp" not in pod["metadata"] for pod in pods)
    return found
