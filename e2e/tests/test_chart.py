"""The chart as helm sees it."""

from __future__ import annotations

from asyncio import to_thread

import pytest
import yaml

from e2e.demo.commands import helm, run
from e2e.demo.settings import DemoError, Settings


async def test_the_chart_passes_lint(settings: Settings) -> None:
    assert "0 chart(s) failed" in await to_thread(run, ["helm", "lint", "--strict", str(settings.chart)])


async def test_the_release_is_deployed_and_its_own_test_passes(settings: Settings) -> None:
    arguments = ("--namespace", settings.system_namespace)
    status = yaml.safe_load(await to_thread(helm, settings, "status", settings.release, *arguments, "-o", "yaml"))
    assert status["info"]["status"] == "deployed"
    await to_thread(helm, settings, "test", settings.release, *arguments, "--timeout", "120s", timeout_seconds=180)


async def test_a_misspelt_value_is_refused(settings: Settings) -> None:
    arguments = ("upgrade", settings.release, str(settings.chart), "--namespace", settings.system_namespace)
    with pytest.raises(DemoError, match="promethues"):
        await to_thread(helm, settings, *arguments, "--dry-run=server", "--set", "promethues.url=http://x")
