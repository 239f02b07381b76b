"""The least manifest: a model and two tiers, nothing else."""

from __future__ import annotations

from asyncio import to_thread

import pytest
import yaml

from e2e.demo.endpoint import reach_model
from e2e.demo.install import apply
from e2e.demo.kube import Kube
from e2e.demo.settings import ROOT, Settings
from e2e.load.probe import stream_text
from e2e.tests.models import condition, namespace, wait_ready
from e2e.tests.traffic import ask


@pytest.mark.timeout(300)
async def test_a_model_and_two_tiers_are_enough_to_serve(settings: Settings, kube: Kube) -> None:
    model = yaml.safe_load((ROOT / "examples" / "minimal.yaml").read_text())
    with namespace(settings, "minimal") as ns:
        model["metadata"]["namespace"] = ns
        apply(settings, model)
        status = await to_thread(wait_ready, settings, ns, "minimal", {"full": 1})
        record = await ask(settings, kube, ns, "minimal")
        assert (record.error, record.tier_served) == ("", "full")
        async with reach_model(settings, kube, ns, "minimal") as url:
            assert (await stream_text(url, 8))[1] == 8
        limited = condition(status, "CapacityLimited")
        assert (limited["status"], limited["reason"]) == ("Unknown", "NoTierCard")
