"""The main job, asserted: the demo's own story on a fresh model, with shorter steps."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from e2e.demo.commands import kubectl
from e2e.demo.progress import Progress
from e2e.demo.settings import Settings
from e2e.demo.story import live_through
from e2e.demo.summary import describe, faults
from e2e.load.accounting import account, account_by_tier
from e2e.tests.budget import BudgetWatch
from e2e.tests.models import namespace

# Not the 2 s of the goal (test_shedding.py asserts them): at a few requests/s they hold too few arrivals to tell a step
# from chance.
# Simulated at 1.4 -> 3.5 requests/s (docs/benchmarks.md) it takes 4.7 s in the median, and one run in ten over 9.3 s.
SHED_WITHIN_SECONDS = 15
SWAP_WITHIN_SECONDS = 80
RESTORE_WITHIN_SECONDS = 160


@pytest.mark.timeout(480)
async def test_load_is_shed_swapped_and_restored_without_a_failed_request(
    settings: Settings, budget: BudgetWatch
) -> None:
    shorter = replace(settings, step_seconds=(25, 25, 80, 60), namespace="demo", model="assistant")
    with namespace(settings, "demo"):
        run = await live_through(shorter, Progress(time.time()))
        told = kubectl(settings, "-n", "demo", "get", "events", "-o", "jsonpath={.items[*].reason}").split()
    print(describe(run))
    assert faults(run) == []
    total = account(run.records)
    assert total.sent == total.ok == sum(part.ok for part in account_by_tier(run.records).values())
    assert budget.most_of("assistant") <= run.budget
    seen = run.timeline
    assert seen is not None
    assert seen.shed_at is not None
    assert seen.shed_at - run.step_starts[1] < SHED_WITHIN_SECONDS
    assert seen.swapped_at is not None
    assert seen.swapped_at - run.step_starts[2] < SWAP_WITHIN_SECONDS
    assert seen.restored_at is not None
    assert seen.restored_at - run.step_starts[3] < RESTORE_WITHIN_SECONDS
    assert seen.swapped_at < seen.restored_at
    assert {"SwappedToCheaperTier", "RestoredTier"} <= set(told), "Events carry the decisions' reasons"
