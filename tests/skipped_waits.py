"""An event loop that waits for nothing but its sockets: while they are silent, its clock is put on to the next timer.

For tests in which all that takes part runs in one loop, and which would only sleep otherwise. Time that passes while
something computes still counts, and an answer on its way within this machine has GRACE_SECONDS to arrive. Not for tests
that wait for threads or other processes: their work takes no time on this clock.
"""

from __future__ import annotations

import asyncio
import time
from selectors import BaseSelector, SelectorKey
from typing import Any

GRACE_SECONDS = 0.005


class _HurriedSelector:
    """Waits no longer than the grace, and counts in `skipped` the seconds that it was asked to wait beyond."""

    def __init__(self, selector: BaseSelector) -> None:
        self._selector = selector
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None or timeout <= GRACE_SECONDS:
            return self._selector.select(timeout)
        events = self._selector.select(GRACE_SECONDS)
        if not events:
            self.skipped += timeout - GRACE_SECONDS
        return events

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


def skip_waits(loop: asyncio.AbstractEventLoop) -> None:
    """Let this loop, one of the standard library on selectors, skip what it would sleep from now on."""
    assert isinstance(loop, asyncio.SelectorEventLoop)
    hurried = _HurriedSelector(loop._selector)
    loop._selector = hurried
    loop.time = lambda: time.monotonic() + hurried.skipped
