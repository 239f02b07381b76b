"""One copy of the weights, two levels: the nested example serves both from the same pod, by request; and an edit that
makes a tier nested, or plain again, loses none.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest
import yaml

from e2e.demo.endpoint import reach_model
from e2e.demo.install import apply
from e2e.demo.kube import Kube
from e2e.demo.settings import ROOT, Settings
from e2e.tests.models import namespace, wait_ready
from e2e.tests.traffic import eventually, traffic

RATE = 0.3  # requests/s: well within one replica of a quarter of a core
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


CARD = {"referencePromptTokens": 16, "referenceOutputTokens": 24, "loadSeconds": 20}
PLAIN = {
    "recipe": {"precision": "int8"},
    "card": {**CARD, "qualityPermille": 995, "capacityMilliRequestsPerSecond": 600},
}
INT8 = {"name": "int8", "qualityPermille": 998, "capacityMilliRequestsPerSecond": 650}
INT4 = {"name": "int4", "qualityPermille": 780, "capacityMilliRequestsPerSecond": 900}
TWO_LEVELS = {"recipe": {"nested": {"levels": ["int8", "int4"]}}, "card": {**CARD, "levels": [INT8, INT4]}}
ONE_LEVEL = {"recipe": {"nested": {"levels": ["int8"]}}, "card": {**CARD, "levels": [INT8]}}


def one_tier(namespace_name: str, form: Mapping[str, Any]) -> dict[str, Any]:
    """The example with its nested tier alone, in this form; one replica is exchanged while another one serves."""
    model: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "nested.yaml").read_text())
    model["metadata"]["namespace"] = namespace_name
    (tier,) = [tier for tier in model["spec"]["tiers"] if tier["name"] == "nested"]
    model["spec"]["tiers"] = [{**tier, **form, "replicas": {"min": 1, "max": 1}}]
    model["spec"]["accelerators"] = {"budget": 2}
    return model


async def recipes(kube: Kube, namespace_name: str) -> set[str]:
    """The arguments that make the weights, of every engine pod that is there, also of those that end."""
    pods = await kube.pods(namespace_name, "app.kubernetes.io/component=engine")
    arguments = [pod["spec"]["containers"][0]["args"] for pod in pods]
    return {" ".join(args[args.index("--precision") : args.index("--served-model-name")]) for args in arguments}


@pytest.mark.timeout(600)
async def test_a_recipe_is_edited_from_plain_to_nested_and_back_under_load_and_no_request_fails(
    settings: Settings, kube: Kube
) -> None:
    """`traffic` fails for any request that is not answered; none names a level, so the router chooses."""
    with namespace(settings, "edited") as ns:
        apply(settings, one_tier(ns, PLAIN))
        await to_thread(wait_ready, settings, ns, "nested", {"nested": 1})
        before = await recipes(kube, ns)
        async with traffic(settings, kube, ns, "nested", RATE) as load:
            for form in (TWO_LEVELS, ONE_LEVEL, PLAIN):
                await to_thread(apply, settings, one_tier(ns, form))
                before = await eventually(
                    lambda: recipes(kube, ns),
                    lambda seen, old=before: len(seen) == 1 and seen != old,
                    f"replicas of {form['recipe']} alone are left",
                    150,
                )
        promised = {record.quality_permille for record in load.records}
        assert {995, 998} <= promised <= {995, 998, 780}
