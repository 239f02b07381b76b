"""The end-to-end tests' watch of the budget: a watch that did not look proves nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest

from e2e.demo.kube import Kube
from e2e.tests.budget import LEAST_LOOKS, BudgetWatch
from e2e.tests.models import RESOURCE


class NoPods:
    """A cluster without any engine pod."""

    async def json(self, path: str, **_: Any) -> dict[str, Any]:
        return {"items": []}


@pytest.mark.parametrize(
    ("looks", "failed", "trusted"),
    [
        (LEAST_LOOKS, 0, True),
        (LEAST_LOOKS, LEAST_LOOKS, True),
        (LEAST_LOOKS, LEAST_LOOKS + 1, False),
        (LEAST_LOOKS - 1, 0, False),
        (0, 0, False),
    ],
)
def test_a_watch_counts_only_when_it_looked(looks: int, failed: int, trusted: bool) -> None:
    watch = BudgetWatch(cast("Kube", NoPods()), RESOURCE)
    watch.looks, watch.failed_looks, watch.most_by_model["m"] = looks, failed, 2
    if trusted:
        assert watch.most_of("m") == 2
        return
    with pytest.raises(AssertionError, match="looks"):
        watch.most_of("m")


async def test_a_model_that_was_never_seen_is_not_within_its_budget() -> None:
    watch = BudgetWatch(cast("Kube", NoPods()), RESOURCE)
    for _ in range(LEAST_LOOKS):
        await watch.look()
    assert watch.looks == LEAST_LOOKS
    with pytest.raises(AssertionError, match="never seen"):
        watch.most_of("m")
