"""Tiers without weights: the emulated example becomes ready and serves filler, each tier at the pace of its curve."""

from __future__ import annotations

import time
from asyncio import to_thread
from typing import Any

import aiohttp
import pytest
import yaml

from e2e.demo.endpoint import reach_model
from e2e.demo.install import apply
from e2e.demo.kube import Kube
from e2e.demo.settings import ROOT, Settings
from e2e.load.probe import stream_text
from e2e.tests.models import namespace, wait_ready

TOKENS = 30


async def timed(session: aiohttp.ClientSession, url: str, tier: str) -> tuple[str, float]:
    """The text of one answer of this tier, and the seconds it took."""
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": TOKENS}}
    started = time.monotonic()
    async with session.post(url + "/generate", json=body, headers={"x-tier": tier}) as answer:
        text = (await answer.json())["generated_text"]
        assert (answer.status, answer.headers["x-tier-served"]) == (200, tier)
    return text, time.monotonic() - started


@pytest.mark.timeout(300)
async def test_emulated_tiers_become_ready_and_serve_at_the_pace_of_their_curves(
    settings: Settings, kube: Kube
) -> None:
    model: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "emulated.yaml").read_text())
    steps = {tier["name"]: tier["curve"]["stepMicroseconds"] / 1e6 for tier in model["spec"]["tiers"]}
    with namespace(settings, "emulated") as ns:
        model["metadata"]["namespace"] = ns
        apply(settings, model)
        await to_thread(wait_ready, settings, ns, "emulated", {"full": 1, "int4": 1})
        async with reach_model(settings, kube, ns, "emulated") as url, aiohttp.ClientSession() as session:
            assert (await stream_text(url, 8))[1] == 8
            async with session.get(url + "/info") as answer:
                assert (await answer.json())["engine"] == "emulated"
            for tier, step in steps.items():
                text, seconds = await timed(session, url, tier)
                assert "emulated engine that has no weights" in text
                assert seconds >= 0.95 * TOKENS * step, "faster than the curve"
