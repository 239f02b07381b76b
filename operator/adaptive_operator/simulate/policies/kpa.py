"""Replica-only autoscaling by Knative's KPA: the best tier alone, on concurrency averaged over 60 s, with a panic mode.

Every 2 s: desired = ceil(mean concurrency / target). Panic when the 6 s mean asks for twice the ready replicas, until
60 s have passed without that; in panic it never goes down. Up at most 1000x, down at most by half. Its own collectors
feed it, not Prometheus: it sees the concurrency of every tick. Source: Knative's serving documentation.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from adaptive_operator.simulate.policies.base import Scaler
from adaptive_operator.simulate.world import World, fixed_table

TICK_SECONDS: Final = 2.0
STABLE_SECONDS: Final = 60.0
PANIC_SECONDS: Final = 6.0
PANIC_RATIO: Final = 2.0
UP_RATE: Final = 1000.0
DOWN_RATE: Final = 2.0


@dataclass(slots=True)
class KpaPolicy:
    """`target_part`: the target as a part of the sequences that a replica decodes at once."""

    target_part: float = 0.7
    name: str = "kpa"
    _world: World = field(init=False)
    _scaler: Scaler = field(init=False)
    _tier: str = field(init=False)
    _seen: deque[tuple[float, int]] = field(default_factory=deque)
    _panic_until: float = -math.inf
    _panic_most: int = 0

    def begin(self, world: World) -> None:
        """One replica of the best tier, then a tick every 2 s."""
        self._world, self._scaler = world, Scaler(world)
        self._tier = world.scenario.best_affordable.name
        world.dispatcher.offer_table(fixed_table(world.scenario, (self._tier,)))
        self._scaler.set({self._tier: 1}, "Start")
        world.events.after(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        world = self._world
        world.events.after(TICK_SECONDS, self._tick)
        self.observe(world.events.now, self._concurrency())
        while self._seen[0][0] <= world.events.now - STABLE_SECONDS:
            self._seen.popleft()
        tier = world.scenario.tier(self._tier)
        target = self.target_part * tier.curve.max_sequences
        wanted = self.decide(target, world.ready().get(self._tier, 0))
        self._scaler.set({self._tier: min(wanted, world.scenario.budget // tier.accelerators)}, "Kpa")

    def decide(self, target: float, ready: int) -> int:
        """Replicas wanted now, from what was seen; at least 1."""
        now, present = self._seen[-1][0], max(ready, 1)
        stable = math.ceil(self._mean(STABLE_SECONDS) / target)
        panic = math.ceil(self._mean(PANIC_SECONDS) / target)
        low, high = math.floor(present / DOWN_RATE), math.ceil(present * UP_RATE)
        stable, panic = (min(max(count, low, 1), high) for count in (stable, panic))
        if panic / present >= PANIC_RATIO:
            if now > self._panic_until:
                self._panic_most = 0
            self._panic_until = now + STABLE_SECONDS
        if now > self._panic_until:
            return stable
        self._panic_most = max(self._panic_most, panic, ready)
        return self._panic_most

    def observe(self, at: float, concurrency: int) -> None:
        """Take in one reading."""
        self._seen.append((at, concurrency))

    def _concurrency(self) -> int:
        return sum(pod.work for pod in self._world.plant.pods.values()) + self._world.dispatcher.held

    def _mean(self, window: float) -> float:
        inside = [count for at, count in self._seen if at > self._seen[-1][0] - window]
        return sum(inside) / len(inside)
