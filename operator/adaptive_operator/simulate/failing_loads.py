"""Loads that fail: of which tier, when, how often, and what the kubelet would make of the engine's container.

Chance comes from the seed, the pod and the life of its container alone: what else happens in a run changes no draw.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# The kubelet's back-off: 10 s, doubled after each crash, at most five minutes.
_LEAST_BACK_OFF_SECONDS: Final = 10.0
_MOST_BACK_OFF_SECONDS: Final = 300.0


class Failure(StrEnum):
    """How a load fails, when its time is over."""

    HANGS = "hangs"  # it goes on for ever and says nothing
    CRASHES = "crashes"  # the engine ends without a word; the kubelet starts it again
    REFUSES = "refuses"  # the same, and the engine's last words say that it cannot load


@dataclass(frozen=True, slots=True)
class FailingLoads:
    """Of the loads of `tier` (in any model) that would end in [at, at + seconds), `part` (0..1, by chance) fails."""

    tier: str
    failure: Failure = Failure.HANGS
    part: float = 1.0
    at: float = 0.0
    seconds: float = math.inf
    seed: int = 1

    def fails(self, tier: str, pod: str, restarts: int, now: float) -> bool:
        """Does the load fail that ends now, in this life of this pod's container?"""
        if tier != self.tier or not self.at <= now < self.at + self.seconds:
            return False
        rng = random.Random(f"{self.seed}/{pod}/{restarts}")  # noqa: S311 a simulation, no secret
        return rng.random() < self.part


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


def find_failure(failing: Iterable[FailingLoads], tier: str, pod: str, restarts: int, now: float) -> Failure | None:
    """How the load that ends now fails, by the first of these that says so; None: it works."""
    return next((item.failure for item in failing if item.fails(tier, pod, restarts, now)), None)


def back_off_seconds(crashes: int) -> float:
    """What the kubelet waits after so many crashes in a row, at least one."""
    return min(_LEAST_BACK_OFF_SECONDS * 2.0 ** min(crashes - 1, 16), _MOST_BACK_OFF_SECONDS)
