"""One copy of the weights, two levels: the nested example serves both from the same pod, by request."""

from __future__ import annotations

from asyncio import to_thread

import aiohttp
import pytest
import yaml

from e2e.demo.endpoint import reach_model
from e2e.demo.install import apply
from e2e.demo.kube import Kube
from e2e.demo.settings import ROOT, Settings
from e2e.tests.models import namespace, wait_ready

BODY = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 8}}


async def served(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> tuple[int, str, str]:
    """Status, tier and level of one answer; for a refusal its text instead of the level."""
    async with session.post(url + "/generate", json=BODY, headers=headers) as answer:
        told = answer.headers.get("x-level-served") or await answer.text()
        return answer.status, answer.headers.get("x-tier-served", ""), told


@pytest.mark.timeout(300)
async def test_a_nested_tier_serves_each_level_on_request_without_another_pod(settings: Settings, kube: Kube) -> None:
    model = yaml.safe_load((ROOT / "examples" / "nested.yaml").read_text())
    with namespace(settings, "nested") as ns:
        model["metadata"]["namespace"] = ns
        apply(settings, model)
        await to_thread(wait_ready, settings, ns, "nested", {"full": 1, "nested": 1})
        async with reach_model(settings, kube, ns, "nested") as url, aiohttp.ClientSession() as session:
            assert (await served(session, url, {}))[:2] == (200, "full")
            for level in ("int8", "int4"):
                wanted = {"x-tier": "nested", "x-level": level}
                assert await served(session, url, wanted) == (200, "nested", level)
            status, _, told = await served(session, url, {"x-tier": "nested", "x-level": "int2"})
        assert status == 400
        assert "int8" in told
        assert "int4" in told
