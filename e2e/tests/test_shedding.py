"""How fast traffic moves, and how much: at a load that two seconds can tell from chance, the router sheds within the
goal's two seconds, and from then on as much as the better tier cannot carry."""

from __future__ import annotations

import math
from asyncio import to_thread
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from statistics import median
from typing import Any

import pytest

from e2e.demo.install import apply
from e2e.demo.kube import Kube
from e2e.demo.settings import ROOT, Settings
from e2e.load.accounting import account, errors
from e2e.load.arrivals import Step
from e2e.load.record import RequestRecord
from e2e.tests.models import namespace, variant, wait_ready
from e2e.tests.traffic import run_steps

SHED_WITHIN_SECONDS = 2.0
# The router's window forgets the overload within 2 s; from there 0.3 of the way back per half second takes seconds
# more (computed: 3.4 to 6.5 s, and 0.9 to 1.8 s if it jumped back at once).
RESTORE_NOT_BEFORE_SECONDS = 2.0
RESTORE_WITHIN_SECONDS = 10.0
RESTORED_SHARE = 0.9  # at least, of full: a moment without CPU makes a burst of what is due, which may be shed

PROMPT_TOKENS, OUTPUT_TOKENS = 80, 16  # a byte of the load generator's prompts is a token of an emulated tier
FULL_RATE = 12.0  # requests/s: what one replica of full carries by its card; by its curve 24/s saturate it
CALM, OVERLOAD = 0.6 * FULL_RATE, 2.5 * FULL_RATE
STEPS = (Step(CALM, 10), *(Step(OVERLOAD, 6), Step(CALM, 14)) * 3)
OVERLOADS = range(1, len(STEPS), 2)
NEEDED_SHARE = 1 - FULL_RATE / OVERLOAD  # of int4 in an overload: what full cannot carry, 18 of 30 requests/s


def fixed(rate: float) -> dict[str, Any]:
    """One replica of a tier, no less and no more: what moves is traffic alone."""
    reference = {"referencePromptTokens": PROMPT_TOKENS, "referenceOutputTokens": OUTPUT_TOKENS}
    return {
        "replica": {"cpu": "500m"},
        "replicas": {"min": 1, "max": 1},
        "curve": {"loadSeconds": 1},
        "card": {**reference, "capacityMilliRequestsPerSecond": round(1000 * rate)},
    }


@pytest.mark.timeout(240)
async def test_traffic_moves_to_the_cheaper_tier_within_two_seconds_of_an_overload_and_comes_back(
    settings: Settings, kube: Kube
) -> None:
    example = replace(settings, example=ROOT / "examples" / "emulated.yaml")
    tiers = {"full": fixed(FULL_RATE), "int4": fixed(2 * FULL_RATE)}
    with namespace(settings, "shedding") as ns:
        apply(settings, variant(example, ns, "m", tiers))
        await to_thread(wait_ready, settings, ns, "m", {"full": 1, "int4": 1})
        begun, records = await run_steps(settings, kube, ns, "m", STEPS, OUTPUT_TOKENS)
    assert account(records).failed == 0, errors(records)
    starts = list(accumulate((step.duration_seconds for step in STEPS), initial=begun))
    shed = [shed_at(records, step) - starts[step] for step in OVERLOADS]
    back = [back_at(records, step + 1) - starts[step + 1] for step in OVERLOADS]
    cheaper = [share_of(records, "int4", step, starts[step] + SHED_WITHIN_SECONDS) for step in OVERLOADS]
    calm = [share_of(records, "full", 0, begun)]
    calm += [share_of(records, "full", step + 1, starts[step + 1] + RESTORE_WITHIN_SECONDS) for step in OVERLOADS]
    figures = (
        f"{len(records)} requests; shed: {told(shed)} s, by int4 from {SHED_WITHIN_SECONDS:g} s on: {told(cheaper)};"
        f" back: {told(back)} s; by full in calm: {told(calm)}"
    )
    print(figures)
    assert min(calm) >= RESTORED_SHARE, figures
    assert median(shed) < SHED_WITHIN_SECONDS, figures
    assert median(cheaper) >= NEEDED_SHARE, figures
    assert min(back) > RESTORE_NOT_BEFORE_SECONDS, figures


def shed_at(records: Sequence[RequestRecord], step: int) -> float:
    """First token of the first answer for which an overload moved traffic; infinite if it moved none."""
    return min((r.first_token_at for r in moved(records, step) if r.first_token_at is not None), default=math.inf)


def back_at(records: Sequence[RequestRecord], step: int) -> float:
    """When the last request of a calm was due that was still sent to the cheaper tier; before everything if none."""
    return max((record.due_at for record in moved(records, step)), default=-math.inf)


def moved(records: Sequence[RequestRecord], step: int) -> list[RequestRecord]:
    """Requests of this step that the router's shares sent to the cheaper tier: not those that full had no room for."""
    return [r for r in records if r.step == step and (r.tier_served, r.route_reason) == ("int4", "Shed")]


def share_of(records: Sequence[RequestRecord], tier: str, step: int, after: float) -> float:
    """Part of a step's requests, due from then on, that this tier answered."""
    tiers = [record.tier_served for record in records if record.step == step and record.due_at >= after]
    return tiers.count(tier) / len(tiers)


def told(figures: Sequence[float]) -> str:
    """One after the other."""
    return ", ".join(f"{value:.2f}" for value in figures)
