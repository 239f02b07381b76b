"""Simulated time: actions in order of their time, those of equal times in the order in which they were scheduled.

Knows nothing of what happens. Times are seconds since the start of the simulation.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

EPOCH: Final = 1_800_000_000.0  # Unix seconds at the start of a simulation, where something needs them

Action = Callable[[], None]


class EventQueue:
    """The clock of one simulation, and what is still to come."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action]] = []
        self._order = 0

    def at(self, time: float, action: Action) -> None:
        """Run `action` at `time` (seconds). Raises ValueError for a time that is past."""
        if time < self.now:
            raise ValueError(f"an event at {time} s was scheduled when it was {self.now} s already")
        self._order += 1
        heapq.heappush(self._heap, (time, self._order, action))

    def after(self, seconds: float, action: Action) -> None:
        """Run `action` in `seconds` from now."""
        self.at(self.now + seconds, action)

    def run_until(self, end: float) -> None:
        """Run everything up to `end` (seconds, included), then stand there."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.now, _, action = heapq.heappop(heap)
            action()
        self.now = max(self.now, end)
