"""Which loads fail: of which tier, when, how often, and how.

Chance comes from the seed, the pod and the life of its container alone: what else happens in a run changes no draw.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


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


def find_failure(failing: Iterable[FailingLoads], tier: str, pod: str, restarts: int, now: float) -> Failure | None:
    """How the load that ends now fails, by the first of these that says so; None: it works."""
    return next((item.failure for item in failing if item.fails(tier, pod, restarts, now)), None)
