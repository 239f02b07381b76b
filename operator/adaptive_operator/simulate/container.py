"""The lives of an engine's container, and how long the kubelet waits between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from adaptive_operator.simulate.failing_loads import Failure

# The kubelet's back-off: 10 s, doubled after each crash, at most five minutes.
_LEAST_BACK_OFF_SECONDS: Final = 10.0
_MOST_BACK_OFF_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Crash:
    """One life of a container that ended while it loaded. Times in seconds."""

    began_at: float
    ended_at: float
    failure: Failure


@dataclass(slots=True)
class Container:
    """The engine's container. `began_at`: its present life's begin; in the future while the kubelet waits with it."""

    began_at: float
    restarts: int = 0  # lives before the present one, or before the one that is waited for
    last: Crash | None = None

    def crash(self, now: float, failure: Failure) -> None:
        """This life is over; the next one begins after the back-off."""
        self.last = Crash(self.began_at, now, failure)
        self.began_at = now + back_off_seconds(self.restarts + 1)
        self.restarts += 1

    def is_waiting(self, now: float) -> bool:
        """Is it between two lives?"""
        return self.last is not None and now < self.began_at


def back_off_seconds(crashes: int) -> float:
    """What the kubelet waits after so many crashes in a row, at least one."""
    return min(_LEAST_BACK_OFF_SECONDS * 2.0 ** min(crashes - 1, 16), _MOST_BACK_OFF_SECONDS)
