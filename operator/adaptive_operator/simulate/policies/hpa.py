"""Replica-only autoscaling by Kubernetes' HorizontalPodAutoscaler: the best tier alone, on requests per replica.

Every 15 s: desired = ceil(ready · mean(running + waiting) / target), nothing within 10 % of the target, up by at most
max(2x, +4) per 15 s, down to the largest desired of the last 300 s. A replica that is not ready counts with 0 going up.
What waits in the router counts as waiting: real engines would queue it. Source: Kubernetes' HPA documentation.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from adaptive_operator.simulate.policies.base import Scaler
from adaptive_operator.simulate.world import World, fixed_table

PERIOD_SECONDS: Final = 15.0
TOLERANCE: Final = 0.1
DOWN_WINDOW_SECONDS: Final = 300.0


def desired_replicas(total_work: float, ready: int, unready: int, target: float) -> int:
    """What one round asks for, without limits. `total_work`: requests in ready replicas and in the router.

    Examples, target 10: work 35 on 2 ready gives 4; with 2 more that are still loading the mean of 4 is 8.75, so it
    stays at 4; work 9 on 2 ready gives 1.
    """
    present = ready + unready
    if ready == 0:
        return max(present, 1)
    ratio = total_work / ready / target
    if ratio > 1 and unready:
        ratio = total_work / present / target
        return present if ratio <= 1 + TOLERANCE else math.ceil(ratio * present)
    if abs(ratio - 1) <= TOLERANCE:
        return present
    return max(math.ceil(total_work / target), 1)


@dataclass(slots=True)
class HpaPolicy:
    """`target_part`: the target as a part of the sequences that a replica decodes at once (tuned)."""

    target_part: float = 0.7
    name: str = "hpa"
    _world: World = field(init=False)
    _scaler: Scaler = field(init=False)
    _tier: str = field(init=False)
    _wanted: int = 1
    _desired: deque[tuple[float, int]] = field(default_factory=deque)

    def begin(self, world: World) -> None:
        """One replica of the best tier, then a round every 15 s."""
        self._world, self._scaler = world, Scaler(world)
        self._tier = world.scenario.best_affordable.name
        world.dispatcher.offer_table(fixed_table(world.scenario, (self._tier,)))
        self._scaler.set({self._tier: self._wanted}, "Start")
        world.events.after(PERIOD_SECONDS, self._round)

    def _round(self) -> None:
        self._world.events.after(PERIOD_SECONDS, self._round)
        scrape = self._world.scraper.last
        if scrape is None or self._world.events.now - scrape.at > 4 * self._world.scrape_seconds:
            return  # no metrics: HPA skips the round
        tier = self._world.scenario.tier(self._tier)
        work = sum(pod.running + pod.waiting for pod in scrape.pods if pod.ready) + scrape.router_queue
        ready = sum(1 for pod in scrape.pods if pod.ready)
        unready = max(len(self._world.plant.of_tier(self._tier)) - ready, 0)
        desired = desired_replicas(work, ready, unready, self.target_part * tier.curve.max_sequences)
        self._wanted = self._limited(desired, self._world.scenario.budget // tier.accelerators)
        self._scaler.set({self._tier: self._wanted}, "Hpa")

    def _limited(self, desired: int, most: int) -> int:
        """Within HPA's rate of change and the budget."""
        now = self._world.events.now
        self._desired.append((now, desired))
        while self._desired[0][0] < now - DOWN_WINDOW_SECONDS:
            self._desired.popleft()
        if desired > self._wanted:
            return min(desired, max(2 * self._wanted, self._wanted + 4), most)
        return max(1, min(self._wanted, most, max(count for _, count in self._desired)))
