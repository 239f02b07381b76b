"""Builders of samples and records for the demo's pure parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from e2e.demo.sample import Sample, TierSample
from e2e.load.record import RequestRecord


def _sample(at: float, ready: dict[str, int], desired: dict[str, int] | None = None, **changes: Any) -> Sample:
    wanted = desired or ready
    tiers = tuple(
        TierSample(name, wanted.get(name, 0), ready.get(name, 0), ready.get(name, 0), 50, 0.5, 1.0)
        for name in ("full", "int8", "int4")
    )
    values: dict[str, Any] = {
        "held": 3,
        "budget": 4,
        "queue": 0.0,
        "quality_permille": 950,
        "reason": "Steady",
        "message": "what runs is what is wanted",
        "decided_at": "2026-01-01T00:00:00Z",
        "swap_step": "",
        "conditions": {"Ready": "True"},
        "routers_seen": True,
    }
    return Sample(at=at, tiers=tiers, **(values | changes))


def _record(due_at: float, tier: str = "full", **changes: Any) -> RequestRecord:
    values: dict[str, Any] = {
        "index": 0,
        "step": 0,
        "sent_at": due_at,
        "first_token_at": due_at + 0.5,
        "last_token_at": due_at + 2.8,
        "ended_at": due_at + 2.8,
        "status": 200,
        "quality_permille": {"full": 1000, "int8": 998, "int4": 780}.get(tier),
        "tokens": 24,
    }
    return RequestRecord(due_at=due_at, tier_served=tier, **(values | changes))


@pytest.fixture
def sample() -> Callable[..., Sample]:
    return _sample


@pytest.fixture
def record() -> Callable[..., RequestRecord]:
    return _record
