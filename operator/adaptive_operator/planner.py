"""When a pass runs: every period, or at once when something that matters changed. One at a time, only while leading.

Knows neither kopf nor what a pass does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from adaptive_operator.apply.lease import NotLeaderError
from adaptive_operator.kube import KubeError, NotFoundError
from adaptive_operator.metrics import OperatorMetrics
from adaptive_operator.observe.cluster import InventoryError

_LOG = logging.getLogger(__name__)
_NOTHING: Final = object()
_RETRY_SECONDS: Final = 5.0  # after a failed pass, if the period is longer
_EARLY_SECONDS: Final = 0.05  # a pool that is due so soon comes along


class RunPass(Protocol):
    """One pass over the pools for which `is_due(resource, period)` says yes; `period` in seconds."""

    def __call__(self, is_due: Callable[[str, float], bool]) -> Awaitable[int]: ...


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """Times in seconds."""

    period_seconds: float
    debounce_seconds: float
    pass_timeout_seconds: float


class ChangeFilter:
    """Tells changes that matter from the echo of our own status writes."""

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def is_news(self, uid: str, meaning: Any, *, gone: bool) -> bool:
        """Whether `meaning` (anything comparable) is new for the object."""
        if gone:
            self._seen.pop(uid, None)
            return True
        if self._seen.get(uid, _NOTHING) == meaning:
            return False
        self._seen[uid] = meaning
        return True


@dataclass(slots=True)
class Planner:
    """The loop around the pass."""

    run_pass: RunPass
    is_leading: Callable[[], bool]
    metrics: OperatorMetrics
    settings: PlannerSettings
    monotonic: Callable[[], float] = time.monotonic
    finished_at: float | None = None  # monotonic, when the last pass ended, well or not
    # Set while a person waits for an answer, so that the pass does not wait for others.
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _nudged: asyncio.Event = field(default_factory=asyncio.Event)
    _turns: dict[str, tuple[float, float]] = field(default_factory=dict)  # by resource: last begun (monotonic), period
    _last_error: str = ""

    def nudge(self) -> None:
        """Something changed: run a pass over all pools soon."""
        self._nudged.set()

    def nudge_in_a_hurry(self) -> None:
        """Somebody edited a model: the pass under way, and the one that follows, are to be quick."""
        self.hurry.set()
        self.nudge()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wait()
            if self.is_leading():
                await self.step()
            else:
                self._nudged.clear()  # winning the Lease nudges again

    async def step(self) -> None:
        """One pass; its errors end here, and the next one tries anew."""
        everything = self._nudged.is_set()
        self._nudged.clear()
        start, before, self._turns = self.monotonic(), self._turns, {}

        def is_due(resource: str, period: float) -> bool:
            """By the period of now, whatever it was when the pool was last planned."""
            begun, _ = before.get(resource, (start - period, period))
            due = everything or begun + period <= start + _EARLY_SECONDS
            self._turns[resource] = (start if due else begun, period)
            return due

        try:
            async with asyncio.timeout(self.settings.pass_timeout_seconds):
                await self.run_pass(is_due)
            self._last_error = ""
        except NotLeaderError as error:
            _LOG.info("pass ended: %s", error)
        except Exception as error:  # noqa: BLE001 the loop outlives every pass
            self._note(error)
        finally:
            if not self._nudged.is_set():  # else the pass that is hurried for has not begun
                self.hurry.clear()
            self.finished_at = self.monotonic()
            self.metrics.note_pass(self.finished_at - start)

    async def _wait(self) -> None:
        """Until the next pool is due, or a little after a nudge; never longer than the operator's own period.

        A pool may ask for a longer one: then the pass in between finds nothing due, and proves that the loop is alive.
        """
        now = self.monotonic()
        period = min(self.settings.period_seconds, _RETRY_SECONDS) if self._last_error else self.settings.period_seconds
        due = min([now + period, *(begun + own for begun, own in self._turns.values())])
        try:
            await asyncio.wait_for(self._nudged.wait(), max(0.05, due - now))
        except TimeoutError:
            return
        await asyncio.sleep(self.settings.debounce_seconds)

    def _note(self, error: Exception) -> None:
        """Once per kind of trouble, not once per pass."""
        self.metrics.count_failure(error)
        text = _explain(error)
        if text != self._last_error:
            expected = isinstance(error, KubeError | InventoryError | TimeoutError)
            _LOG.error("pass failed: %s", text, exc_info=None if expected else error)
        self._last_error = text


def _explain(error: Exception) -> str:
    if isinstance(error, NotFoundError) and "adaptivemodels" in error.resource:
        return f"{error}: install the CRD (kubectl apply -f crds/), or set crds.enabled in the chart"
    return str(error) or type(error).__name__
