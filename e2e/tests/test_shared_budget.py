"""Two models that ask for more accelerators than there are."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from e2e.demo.install import apply
from e2e.demo.kube import Kube
from e2e.demo.settings import ROOT, Settings
from e2e.tests.budget import BudgetWatch
from e2e.tests.models import condition, namespace
from e2e.tests.traffic import ask, eventually, throughout

NS = "two-models"
MODELS = ("writer", "summarizer")


@pytest.mark.timeout(300)
async def test_the_budget_holds_and_the_status_says_who_got_what(
    settings: Settings, kube: Kube, budget: BudgetWatch
) -> None:
    documents = list(yaml.safe_load_all((ROOT / "examples" / "two-models.yaml").read_text()))
    with namespace(settings, NS):
        apply(settings, *documents)
        await eventually(
            lambda: all_models(kube),
            lambda models: all(condition(model, "Ready").get("status") == "True" for model in models),
            "both models are ready",
            180,
        )
        limited = await eventually(
            lambda: all_models(kube),
            lambda models: [m for m in models if condition(m, "CapacityLimited").get("status") == "True"],
            "a model says that it is limited",
            60,
        )
        message = next(
            text
            for model in limited
            if (text := condition(model, "CapacityLimited").get("message")) and _is_limited(model)
        )
        assert all(name in message for name in MODELS), f"does not say who got what: {message}"
        for name in MODELS:
            assert (await ask(settings, kube, NS, name)).ok
        await throughout(lambda: all_models(kube), _within, "what is held stays within what there is", 20)
        assert budget.most <= await budget.allocatable()
        assert min(budget.most_of(name) for name in MODELS) >= 1


async def all_models(kube: Kube) -> list[Any]:
    """Both, as they are now."""
    return [await kube.model(NS, name) for name in MODELS]


def _is_limited(model: Any) -> bool:
    return bool(condition(model, "CapacityLimited").get("status") == "True")


def _within(models: list[Any]) -> bool:
    return sum(model["status"].get("acceleratorsHeld") or 0 for model in models) <= 4
