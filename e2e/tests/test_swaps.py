"""Swaps that meet trouble. The swap is provoked by an edit of a tier card: no load has to be as exact as the demo's."""

from __future__ import annotations

from asyncio import to_thread
from typing import Any

import pytest

from e2e.demo.commands import kubectl
from e2e.demo.install import apply
from e2e.demo.kube import Kube
from e2e.demo.settings import Settings
from e2e.tests.budget import BudgetWatch
from e2e.tests.models import condition, decisions, namespace, tier_status, variant, wait_ready
from e2e.tests.traffic import eventually, traffic

RATE = 0.5  # requests/s, well within what the replicas really carry
PLENTY = {"card": {"capacityMilliRequestsPerSecond": 5000, "loadSeconds": 20}}
NEARLY_NOTHING = {"card": {"capacityMilliRequestsPerSecond": 100, "loadSeconds": 20}}
QUICK = {"dwellSeconds": 5, "holdSeconds": 10, "plannerPeriodSeconds": 2}
START = {"full": 1, "int4": 1}


@pytest.mark.timeout(400)
async def test_a_swap_survives_the_operators_death(settings: Settings, kube: Kube, budget: BudgetWatch) -> None:
    tiers: dict[str, Any] = {"full": PLENTY, "int8": PLENTY, "int4": NEARLY_NOTHING}
    with namespace(settings, "killed") as ns:
        three = {"accelerators": {"budget": 3}, "scaling": QUICK}
        apply(settings, variant(settings, ns, "m", tiers, **three))
        await to_thread(wait_ready, settings, ns, "m", START)
        async with traffic(settings, kube, ns, "m", RATE) as load:
            # full is now said to carry almost nothing, and no accelerator is free: it has to make room for int8.
            await to_thread(apply, settings, variant(settings, ns, "m", {**tiers, "full": NEARLY_NOTHING}, **three))
            await eventually(lambda: kube.model(ns, "m"), _swap_in_flight, "a swap is in flight", 60, period=0.2)
            await to_thread(kill_operator, settings)
            model = await eventually(
                lambda: kube.model(ns, "m"),
                lambda m: not _swap_in_flight(m) and tier_status(m, "int8")["ready"] > 0 and _ready(m, "full") == 0,
                "the swap is finished after the restart",
                150,
            )
            sent_by_then = load.sent
            await eventually(_now(load), lambda sent: sent >= sent_by_then + 5, "requests go on", 60)
        assert {record.tier_served for record in load.records[-3:]} <= {"int8", "int4"}
        assert "SwappedToCheaperTier" in [decision["reason"] for decision in decisions(model)]
        assert budget.most_of("m") <= 3


@pytest.mark.timeout(400)
async def test_a_tier_that_cannot_be_scheduled_is_rolled_back_and_said_so(settings: Settings, kube: Kube) -> None:
    unschedulable = {"replica": {"cpu": "900"}, **PLENTY}
    tiers: dict[str, Any] = {"full": PLENTY, "int8": unschedulable, "int4": NEARLY_NOTHING}
    with namespace(settings, "unschedulable") as ns:
        quick = {"scaling": {**QUICK, "startDeadlineSeconds": 25}}
        apply(settings, variant(settings, ns, "m", tiers, **quick))
        await to_thread(wait_ready, settings, ns, "m", START)
        before = {pod["metadata"]["uid"] for pod in await engine_pods(kube, ns)}
        async with traffic(settings, kube, ns, "m", RATE):
            await to_thread(apply, settings, variant(settings, ns, "m", {**tiers, "full": NEARLY_NOTHING}, **quick))
            model = await eventually(
                lambda: kube.model(ns, "m"),
                lambda m: "SwapRolledBack" in [d["reason"] for d in decisions(m)],
                "the attempt is rolled back",
                120,
            )
        said = [decision["message"] for decision in decisions(model) if decision["reason"] == "SwapRolledBack"]
        assert "Insufficient cpu" in said[-1]
        await eventually(
            lambda: kube.model(ns, "m"), lambda m: tier_status(m, "int8")["replicas"] == 0, "nothing is left of it", 60
        )
        after = {pod["metadata"]["uid"] for pod in await engine_pods(kube, ns)}
        assert before <= after, "the replicas that served were touched"
        assert condition(model, "Ready")["status"] == "True", "the old tier serves on"


@pytest.mark.timeout(400)
async def test_an_edit_that_cannot_be_scheduled_goes_back_to_the_revision_that_worked(
    settings: Settings, kube: Kube, budget: BudgetWatch
) -> None:
    one = {"replicas": {"min": 1, "max": 1}, **PLENTY}
    tiers: dict[str, Any] = {"int8": one, "int4": one}
    with namespace(settings, "bad-edit") as ns:
        full = {"accelerators": {"budget": 2}, "scaling": {**QUICK, "startDeadlineSeconds": 25}}
        apply(settings, variant(settings, ns, "m", tiers, **full))
        await to_thread(wait_ready, settings, ns, "m", {"int8": 1, "int4": 1})
        async with traffic(settings, kube, ns, "m", RATE):
            # No accelerator is free: the replica of int8 that serves has to make room for one that never starts.
            bad = variant(settings, ns, "m", {**tiers, "int8": {**one, "replica": {"cpu": "900"}}}, **full)
            await to_thread(apply, settings, bad)
            model = await eventually(
                lambda: kube.model(ns, "m"),
                lambda m: "SwapRolledBack" in [d["reason"] for d in decisions(m)] and _ready(m, "int8") == 1,
                "the edit is rolled back and the earlier revision serves",
                150,
            )
        said = [decision["message"] for decision in decisions(model) if decision["reason"] == "SwapRolledBack"]
        assert "Insufficient cpu" in said[-1]
        assert "goes back to the revision that last worked" in said[-1]
        assert "int8 goes on with its earlier revision" in condition(model, "Degraded")["message"]
        await to_thread(apply, settings, variant(settings, ns, "m", tiers, **full))
        await eventually(
            lambda: kube.model(ns, "m"),
            lambda m: condition(m, "Degraded").get("status") == "False",
            "taking the edit back heals it",
            60,
        )
        assert budget.most_of("m") <= 2


def kill_operator(settings: Settings) -> None:
    """Its pod is deleted by force, without the usual grace period: the Deployment starts another one."""
    pods = ("delete", "pods", "-l", "app.kubernetes.io/component=operator")
    kubectl(settings, "-n", settings.system_namespace, *pods, "--grace-period=0", "--force")


async def engine_pods(kube: Kube, namespace_name: str) -> list[Any]:
    """Engine pods of a namespace."""
    return await kube.pods(namespace_name, "app.kubernetes.io/component=engine")


def _swap_in_flight(model: Any) -> bool:
    return bool((model.get("status") or {}).get("swap"))


def _ready(model: Any, tier: str) -> int:
    return int(tier_status(model, tier)["ready"])


def _now(load: Any) -> Any:
    async def sent() -> int:
        return int(load.sent)

    return sent
