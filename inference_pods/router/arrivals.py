"""The arrival rate of this router's own requests, which steers loop F.

Scraped metrics are 15 s old, this is not. The window holds at least 20 arrivals, because at 1 request/s half a second
holds only noise, but never more than 10 s, because what lies further back is another load. Time is an argument.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile
from typing import Final

WINDOW_ARRIVALS: Final = 20
WINDOW_MAX_SECONDS: Final = 10.0
WINDOW_MIN_SECONDS: Final = 0.5


class ArrivalWindow:
    """Remembers the arrivals of the last 10 s; `rate(now)` in requests/s."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def record(self, now: float) -> None:
        self._times.append(now)

    def rate(self, now: float) -> float:
        """Requests/s over the shortest window with 20 arrivals, within [0.5, 10] s.

        (n-1)/T for the time T back to the n-th last arrival is the unbiased estimate of a Poisson rate.
        Example: 20 arrivals in the last 4 s: 19 / 4 = 4.75/s; 7 arrivals in the last 10 s: 0.7/s.
        """
        self._forget(now - WINDOW_MAX_SECONDS)
        if len(self._times) < WINDOW_ARRIVALS:
            return len(self._times) / WINDOW_MAX_SECONDS
        span = now - self._times[-WINDOW_ARRIVALS]
        if span >= WINDOW_MIN_SECONDS:
            return (WINDOW_ARRIVALS - 1) / span
        start = now - WINDOW_MIN_SECONDS
        return sum(1 for _ in takewhile(lambda time: time > start, reversed(self._times))) / WINDOW_MIN_SECONDS

    def _forget(self, before: float) -> None:
        while self._times and self._times[0] <= before:
            self._times.popleft()
