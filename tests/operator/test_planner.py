"""When passes run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from adaptive_operator.apply.lease import NotLeaderError
from adaptive_operator.kube import NotFoundError, UnavailableError
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.planner import ChangeFilter, Planner, PlannerSettings

pytestmark = pytest.mark.usefixtures("skipped_waits")

IsDue = Callable[[str, float], bool]


class Passes:
    """Counts which pools ran; `pools` maps a resource to its period."""

    def __init__(self, pools: dict[str, float], error: Exception | None = None) -> None:
        self.pools, self.error = pools, error
        self.ran: list[str] = []
        self.count = 0

    async def __call__(self, is_due: IsDue) -> int:
        self.count += 1
        if self.error is not None:
            raise self.error
        self.ran += [resource for resource, period in self.pools.items() if is_due(resource, period)]
        return 0


def build_planner(
    passes: Passes, leading: bool = True, period: float = 10.0, now: list[float] | None = None
) -> Planner:
    settings = PlannerSettings(period, debounce_seconds=0.05, pass_timeout_seconds=1.0)
    clock = (lambda: now[0]) if now is not None else asyncio.get_event_loop().time
    return Planner(passes, lambda: leading, OperatorMetrics(), settings, monotonic=clock)


async def run_for(planner: Planner, seconds: float) -> None:
    task = asyncio.create_task(planner.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_each_pool_runs_in_its_own_period() -> None:
    now = [0.0]
    passes = Passes({"gpu": 10.0, "npu": 2.0})
    planner = build_planner(passes, now=now)
    for second in range(0, 21, 2):
        now[0] = float(second)
        await planner.step()
    assert (passes.ran.count("gpu"), passes.ran.count("npu")) == (3, 11)


async def test_a_pool_whose_period_became_shorter_does_not_wait_for_the_end_of_the_longer_one() -> None:
    """So it is when a swap begins: a pass at the operator's period sees it."""
    now = [0.0]
    passes = Passes({"gpu": 3600.0})
    planner = build_planner(passes, now=now)
    await planner.step()
    now[0] = 10.0
    await planner.step()
    assert passes.ran == ["gpu"]
    passes.pools = {"gpu": 10.0}
    await planner.step()
    assert passes.ran == ["gpu"] * 2


async def test_a_nudge_runs_all_pools_at_once() -> None:
    now = [0.0]
    passes = Passes({"gpu": 10.0, "npu": 10.0})
    planner = build_planner(passes, now=now)
    await planner.step()
    now[0] = 1.0
    await planner.step()
    assert passes.ran == ["gpu", "npu"]
    planner.nudge()
    await planner.step()
    assert passes.ran == ["gpu", "npu"] * 2


async def test_a_hurry_lasts_until_the_pass_that_it_is_for_has_ended() -> None:
    seen: list[bool] = []

    async def run_pass(_is_due: IsDue) -> int:
        seen.append(planner.hurry.is_set())
        if len(seen) == 1:
            planner.nudge_in_a_hurry()  # an edit, while a pass is under way
        return 0

    planner = Planner(run_pass, lambda: True, OperatorMetrics(), PlannerSettings(10.0, 0.0, 1.0))
    for _ in range(3):
        await planner.step()
    assert seen == [False, True, False]


async def test_a_storm_of_nudges_is_one_pass() -> None:
    passes = Passes({"gpu": 10.0})
    planner = build_planner(passes)
    for _ in range(50):
        planner.nudge()
    await run_for(planner, 0.2)
    assert passes.count == 1


async def test_who_does_not_lead_runs_no_pass_and_does_not_spin() -> None:
    passes = Passes({"gpu": 10.0})
    planner = build_planner(passes, leading=False)
    planner.nudge()
    await run_for(planner, 0.2)
    assert passes.count == 0


@pytest.mark.parametrize(
    "error",
    [UnavailableError("list", "pods", 503, "away"), NotLeaderError("lost"), ValueError("defect"), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
async def test_a_failed_pass_is_a_finished_pass_and_the_loop_goes_on(error: Exception) -> None:
    passes = Passes({"gpu": 10.0}, error)
    planner = build_planner(passes)
    await planner.step()
    assert planner.finished_at is not None
    passes.error = None
    await planner.step()
    assert passes.ran == ["gpu"]


async def test_a_pass_that_hangs_is_given_up() -> None:
    async def hang(_is_due: IsDue) -> int:
        await asyncio.Event().wait()
        return 0

    settings = PlannerSettings(10.0, 0.0, pass_timeout_seconds=0.05)
    planner = Planner(hang, lambda: True, OperatorMetrics(), settings)
    await planner.step()
    assert planner.finished_at is not None


async def test_the_same_trouble_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    planner = build_planner(Passes({}, UnavailableError("list", "pods", 503, "away")))
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            await planner.step()
    assert len(caplog.records) == 1


async def test_a_missing_crd_says_how_to_install_it(caplog: pytest.LogCaptureFixture) -> None:
    planner = build_planner(Passes({}, NotFoundError("list", "adaptivemodels", 404, "page not found")))
    await planner.step()
    assert "install the CRD" in caplog.text


async def test_a_pool_that_went_away_does_not_make_the_loop_spin() -> None:
    passes = Passes({"gpu": 0.05})
    planner = build_planner(passes)
    planner.nudge()
    task = asyncio.create_task(planner.run())
    await asyncio.sleep(0.15)
    passes.pools = {}
    await asyncio.sleep(0.1)
    before = passes.count
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert passes.count == before


def test_the_echo_of_our_own_status_write_is_no_news() -> None:
    changes = ChangeFilter()
    assert changes.is_news("uid", (1, None), gone=False)
    assert not changes.is_news("uid", (1, None), gone=False)
    assert changes.is_news("uid", (2, None), gone=False)
    assert changes.is_news("uid", (2, None), gone=True)
    assert changes.is_news("uid", (2, None), gone=False)


async def test_a_pool_with_a_long_period_does_not_make_the_loop_look_dead() -> None:
    passes = Passes({"gpu": 600.0})
    planner = build_planner(passes, period=0.1)
    await run_for(planner, 0.6)
    assert passes.ran == ["gpu"]
    assert passes.count >= 4, "each pass proves progress to /healthz"
