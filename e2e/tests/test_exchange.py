"""Two models share accelerators, and no AcceleratorPool divides them: the plan of all of them gives a busy model what
the calm one holds for quality alone, without a request lost, and the calm one has it back when the load has ended."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from asyncio import to_thread
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from e2e.demo.commands import kubectl
from e2e.demo.install import apply
from e2e.demo.kube import Kube, NotFoundError
from e2e.demo.settings import ROOT, DemoError, Settings
from e2e.load.accounting import attainment, latency
from e2e.load.open_loop import OpenLoop
from e2e.load.record import RequestRecord
from e2e.tests.budget import BudgetWatch
from e2e.tests.models import decisions, namespace, tier_status, variant, wait_ready
from e2e.tests.traffic import OUTPUT_TOKENS, eventually, traffic

NS = "exchange"
CALM, BUSY = "calm", "busy"
ACCELERATORS = 4  # of the node, and all of them are held from the beginning to the end
QUALITY = {"full": 1000, "int4": 930}
FLOOR_PERMILLE = 900
CARD_RATE = 2.0  # requests/s of a replica, by its card; its curve carries ten times that, so nothing has to fail
CALM_RATE = 0.6  # requests/s: full and int4 carry that, and int4 alone does, too
USUAL_RATE = 1.4  # of busy: one replica carries 1.8, 0.9 x its card
LOAD_RATE = 2.6  # more of it while the load lasts: three replicas carry both, two do not; and less than what operators
# take for a short burst, twice the rate of the last quarter of a minute
# Generous, because this is about requests that are lost or wait for replicas, not about the pace of a busy machine.
TTFT_SECONDS, TPOT_SECONDS, ATTAINMENT_PERCENT = 3.0, 0.3, 95
WINDOW_SECONDS = 16  # of arrivals that the operator sees as the present rate, and a scrape
PERIOD_SECONDS = 0.5
LEAST_LOOKS = 20  # ten seconds' worth of a test that takes at least a minute
QUICK = {"dwellSeconds": 5, "holdSeconds": 10, "plannerPeriodSeconds": 2, "plansInAgreement": 2}

BEFORE = {CALM: {"full": 1, "int4": 1}, BUSY: {"int4": 1}}
EXCHANGED = {CALM: {"full": 0, "int4": 1}, BUSY: {"int4": 3}}
# Two replicas while the load is only half seen, three when it is.
PLAN_OF_BUSY = re.compile(r"the pool's plan is int4 (2, 2|3, 3) accelerators; by need it would be 1\.")
Mixes = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision of a model, as its status told it."""

    model: str
    at: str  # RFC 3339, in whole seconds, so that text sorts by time
    reason: str
    message: str
    change: tuple[str, str]  # replicas before and after
    pool: str


@dataclass(frozen=True, slots=True)
class Look:
    """What the calm model's status said of its service at a moment."""

    ready: int  # replicas that serve
    quality_permille: int | None


class StatusWatch:
    """Looks at both models all the time: what was decided, in order, and how the calm one served meanwhile."""

    def __init__(self, kube: Kube) -> None:
        self.decided: dict[Decided, None] = {}  # a set that keeps the order
        self.looks: list[Look] = []
        self._kube = kube

    async def run(self) -> None:
        """Look until cancelled; one look may fail, and then counts for nothing."""
        while True:
            with suppress(NotFoundError, DemoError, aiohttp.ClientError, TimeoutError, OSError):
                await self.look()
            await asyncio.sleep(PERIOD_SECONDS)

    async def look(self) -> None:
        """One look, now."""
        models = {name: await self._kube.model(NS, name) for name in (CALM, BUSY)}
        self.looks.append(_service(models[CALM]))
        self.decided.update(dict.fromkeys(_told(models)))

    def of(self, model: str, reason: str) -> list[Decided]:
        """Decisions of a model with a reason, in order of time."""
        found = [d for d in self.decided if (d.model, d.reason) == (model, reason)]
        return sorted(found, key=lambda d: d.at)


def _service(model: Any) -> Look:
    ready = sum(tier_status(model, tier)["ready"] for tier in QUALITY)
    return Look(ready, model["status"].get("servedQualityPermille"))


def _told(models: Mapping[str, Any]) -> Iterator[Decided]:
    for name, model in models.items():
        for entry in decisions(model):
            change = (entry["from"], entry["to"])
            yield Decided(name, entry["time"], entry["reason"], entry["message"], change, entry.get("pool", ""))


@asynccontextmanager
async def watched(kube: Kube) -> AsyncIterator[StatusWatch]:
    """A watch on both models for as long as the block runs."""
    watch = StatusWatch(kube)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
        await watch.look()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def sharing(settings: Settings, name: str, most: Mapping[str, int]) -> Any:
    """A model without pool and budget of its own, with the tiers of `most` and at most so many replicas of each.

    full takes two accelerators, int4 one. One of int4 always stays.
    """
    reference = {"referencePromptTokens": 80, "referenceOutputTokens": OUTPUT_TOKENS, "loadSeconds": 5}
    tiers = {
        tier: {
            "curve": {"loadSeconds": 1},
            "replicas": {"min": int(tier == "int4"), "max": count},
            "card": {
                **reference,
                "qualityPermille": QUALITY[tier],
                "capacityMilliRequestsPerSecond": round(1000 * CARD_RATE),
            },
        }
        for tier, count in most.items()
    }
    slo = {
        "ttftMilliseconds": round(1000 * TTFT_SECONDS),
        "tpotMilliseconds": round(1000 * TPOT_SECONDS),
        "attainmentPercent": ATTAINMENT_PERCENT,
    }
    example = replace(settings, example=ROOT / "examples" / "emulated.yaml")
    quality = {"floorPermille": FLOOR_PERMILLE}
    return variant(example, NS, name, tiers, accelerators={"budget": None}, slo=slo, quality=quality, scaling=QUICK)


@pytest.mark.timeout(400)
async def test_a_calm_model_gives_its_best_tier_to_a_busy_one_and_has_it_back_after_the_load(
    settings: Settings, kube: Kube, budget: BudgetWatch
) -> None:
    """`traffic` fails for any request that is not answered."""
    with namespace(settings, NS):
        apply(settings, sharing(settings, CALM, {"full": 1, "int4": 1}))
        await to_thread(wait_ready, settings, NS, CALM, BEFORE[CALM])
        apply(settings, sharing(settings, BUSY, {"int4": 3}))
        await to_thread(wait_ready, settings, NS, BUSY, BEFORE[BUSY])
        async with (
            watched(kube) as watch,
            traffic(settings, kube, NS, CALM, CALM_RATE) as calm_load,
            traffic(settings, kube, NS, BUSY, USUAL_RATE) as usual_load,
        ):
            await sent(usual_load, round(WINDOW_SECONDS * USUAL_RATE))
            await answered_by(calm_load, "full")
            async with traffic(settings, kube, NS, BUSY, LOAD_RATE) as more_load:
                await eventually(lambda: ready_mixes(kube), EXCHANGED.__eq__, "busy has what calm gave", seconds=120)
                await answered_by(calm_load, "int4")
                explained = {name: await to_thread(explain, settings, name) for name in (CALM, BUSY)}
            await eventually(lambda: ready_mixes(kube), BEFORE.__eq__, "calm has its best tier back", seconds=120)
            await answered_by(calm_load, "full")
        events = {name: await to_thread(events_of, settings, name) for name in (CALM, BUSY)}
    check_story(watch)
    check_told(watch, explained, events)
    check_service(watch, calm_load.records, [*usual_load.records, *more_load.records])
    assert budget.most == ACCELERATORS
    assert (budget.most_of(CALM), budget.most_of(BUSY)) == (3, 3), "the same two accelerators, one after the other"


def check_story(watch: StatusWatch) -> None:
    """Both models decided what makes up the exchange, each step for what the one before it made possible."""
    (gave,), (restored,) = watch.of(CALM, "GaveToOthers"), watch.of(CALM, "RestoredTier")
    waited, added, removed = (watch.of(BUSY, reason) for reason in ("BudgetShared", "AddedReplica", "RemovedReplica"))
    assert waited, watch.decided
    assert added, watch.decided
    assert removed, watch.decided
    assert gave.change == ("full 1 · int4 1", "int4 1")
    assert restored.change == ("int4 1", "full 1 · int4 1")
    assert added[-1].change[1] == "int4 3"
    assert removed[-1].change[1] == "int4 1"
    assert gave.at <= added[0].at <= added[-1].at <= removed[0].at <= removed[-1].at <= restored.at, watch.decided


def check_told(
    watch: StatusWatch, explained: Mapping[str, str], events: Mapping[str, Sequence[tuple[str, str]]]
) -> None:
    """Status, Events and `kubectl adaptive explain` say what was given, at what price, and what the plan weighed."""
    (gave,) = watch.of(CALM, "GaveToOthers")
    assert "others would refuse requests: leaves them 2 accelerators" in gave.message
    assert "at 930 instead of 1000 permille of quality" in gave.message
    assert gave.pool.startswith("the pool's plan is int4 1, 1 accelerator; by need it would be 3"), gave
    lacked = [message for reason, message in events[BUSY] if reason == "BudgetShared"]
    assert any("pool: the pool's plan is int4" in message for message in lacked), events[BUSY]
    assert any(PLAN_OF_BUSY.match(d.pool) for d in watch.of(BUSY, "BudgetShared")), watch.decided
    said = [message for reason, message in events[CALM] if reason == "GaveToOthers"]
    assert len(said) == 1, events[CALM]
    assert gave.message in said[0]
    assert f"pool: {gave.pool}" in said[0]
    assert {"BudgetShared", "AddedReplica", "RemovedReplica"} <= {reason for reason, _ in events[BUSY]}
    assert "GaveToOthers" in explained[CALM]
    assert gave.message in explained[CALM]
    assert "AddedReplica" in explained[BUSY]


def check_service(watch: StatusWatch, calm: Sequence[RequestRecord], busy: Sequence[RequestRecord]) -> None:
    """The calm model always served, never below its floor, and both kept their objectives."""
    assert len(watch.looks) >= LEAST_LOOKS
    assert min(look.ready for look in watch.looks) >= 1
    told = [look.quality_permille for look in watch.looks if look.quality_permille is not None]
    assert min(told) >= FLOOR_PERMILLE
    assert {record.quality_permille for record in calm} == set(QUALITY.values())
    for name, records in ((CALM, calm), (BUSY, busy)):
        met = attainment(records, TTFT_SECONDS, TPOT_SECONDS) or 0.0
        figures = f"{name}: {len(records)} requests, {100 * met:.1f} % within the objectives, {latency(records)}"
        print(figures)
        assert 100 * met >= ATTAINMENT_PERCENT, figures


async def sent(load: OpenLoop, requests: int) -> None:
    """Until so many requests have left."""

    async def so_far() -> int:
        return load.sent

    await eventually(so_far, lambda count: count >= requests, f"{requests} requests are sent", seconds=60)


async def answered_by(load: OpenLoop, tier: str) -> None:
    """Until the last three answers are this tier's."""

    async def last_tiers() -> list[str]:
        return [record.tier_served for record in load.records[-3:]]

    await eventually(last_tiers, ([tier] * 3).__eq__, f"{tier} answers", seconds=60)


async def ready_mixes(kube: Kube) -> Mixes:
    """Ready replicas by tier of both models, as their statuses say."""
    models = {name: await kube.model(NS, name) for name in BEFORE}
    return {name: {tier: tier_status(models[name], tier)["ready"] for tier in mix} for name, mix in BEFORE.items()}


def explain(settings: Settings, name: str) -> str:
    """What `kubectl adaptive explain` says of a model; the plugin lies where this Python's commands lie."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = ["kubectl", "adaptive", "explain", f"am/{name}", "-n", NS, "--context", settings.kube_context]
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def events_of(settings: Settings, name: str) -> list[tuple[str, str]]:
    """Reason and message of each Event about a model."""
    fields = r'{range .items[*]}{.reason}{"\t"}{.message}{"\n"}{end}'
    selector = f"involvedObject.kind=AdaptiveModel,involvedObject.name={name}"
    text = kubectl(settings, "-n", NS, "get", "events", "--field-selector", selector, "-o", f"jsonpath={fields}")
    return [(reason, message) for line in text.splitlines() for reason, _, message in [line.partition("\t")]]
