"""The composition root: the pieces that only matter in a pod."""

from __future__ import annotations

import asyncio
import gc
import getpass
from typing import Any

import kopf
import pytest
from kopf._core.engines import peering

from adaptive_operator.__main__ import _watch, collect_old_garbage_seldom
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.planner import Planner, PlannerSettings
from adaptive_operator.settings import load_settings

TIMES = PlannerSettings(15.0, 0.3, 60.0)


async def no_pass(_is_due: object) -> int:
    return 0


async def test_an_account_without_a_name_may_run_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod runs under a number that no passwd file knows; left alone, the framework asks for its name and dies."""

    def has_no_name() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", has_no_name)
    monkeypatch.delenv("POD_ID", raising=False)
    settings = load_settings({"prometheus_url": "http://prometheus:9090", "identity": "operator-1"})
    stopping = asyncio.Event()
    identities: list[Any] = []

    async def run(**options: Any) -> None:
        # As the framework does it before anything else.
        identities.append(options.get("identity") or peering.detect_own_id(manual=False))

    monkeypatch.setattr(kopf, "operator", run)
    await _watch(settings, Planner(no_pass, lambda: False, OperatorMetrics(), TIMES), stopping)
    assert identities == ["operator-1"]


def test_old_objects_are_seldom_looked_through_for_garbage_and_young_ones_as_ever():
    before = gc.get_threshold()
    try:
        collect_old_garbage_seldom()
        assert gc.isenabled()
        young, middle, old = gc.get_threshold()
        assert (young, middle) == before[:2]
        assert old >= 10 * before[2]
    finally:
        gc.set_threshold(*before)
