"""Cost-first variant autoscaling, as llm-d's Workload-Variant-Autoscaler does by saturation: add the cheapest variant,
remove the dearest one, and never go back for quality.

Every 30 s on the maxima of the last minute: a replica is saturated at 80 % of its KV memory or 5 waiting requests.
Over the others spare_kv = mean(0.80 - kv) and spare_queue = mean(5 - waiting). +1 replica of the cheapest tier that has
none loading when spare_kv < 0.10, spare_queue < 3, or all are saturated; -1 of the dearest when one less keeps both.
The limit of the KV memory is tuned, with its spare in proportion: where slots end before the memory does, 0.80 of it is
never reached.
Only tiers at or above the quality floor take part: the original has no floor, and would break this one. What waits in
the router is divided among the replicas. Source: the autoscaler's V1 saturation analyser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from adaptive_operator.simulate.policies.base import Scaler
from adaptive_operator.simulate.scenario import ScenarioError, TierModel
from adaptive_operator.simulate.scrapes import Scrape
from adaptive_operator.simulate.world import World, fixed_table

PERIOD_SECONDS: Final = 30.0
WINDOW_SECONDS: Final = 60.0
KV_LIMIT: Final = 0.80
QUEUE_LIMIT: Final = 5.0
_SPARE_KV_PART: Final = 0.125  # of the limit: 0.10 of 0.80
LEAST_SPARE_QUEUE: Final = 3.0


@dataclass(frozen=True, slots=True)
class Load:
    """The maxima of one replica over the window."""

    kv: float
    waiting: float


def wants_more(loads: Sequence[Load], kv_limit: float = KV_LIMIT) -> bool:
    """Is there too little spare capacity?"""
    spare = _spare(loads, kv_limit)
    return spare is None or spare[0] < _SPARE_KV_PART * kv_limit or spare[1] < LEAST_SPARE_QUEUE


def wants_less(loads: Sequence[Load], kv_limit: float = KV_LIMIT) -> bool:
    """Would one replica less, its load spread over the others, still leave enough to spare?"""
    count = len(loads)
    if count < 2:
        return False
    factor = count / (count - 1)
    return not wants_more([Load(load.kv * factor, load.waiting * factor) for load in loads], kv_limit)


@dataclass(slots=True)
class CostFirstPolicy:
    """See the module."""

    kv_limit: float = KV_LIMIT
    name: str = "cost-first"
    _world: World = field(init=False)
    _scaler: Scaler = field(init=False)
    _by_cost: list[TierModel] = field(init=False)  # cheapest first

    def begin(self, world: World) -> None:
        """One replica of the cheapest tier, then a round every 30 s."""
        self._world, self._scaler = world, Scaler(world)
        allowed = [tier for tier in world.scenario.tiers if tier.quality >= world.scenario.floor]
        if not allowed:
            raise ScenarioError(f"cost-first: no tier reaches the floor of {world.scenario.floor:g}; lower the floor")
        self._by_cost = sorted(allowed, key=lambda tier: (tier.accelerators, tier.accelerators / tier.rate))
        world.dispatcher.offer_table(fixed_table(world.scenario, tuple(tier.name for tier in allowed)))
        self._scaler.set({self._by_cost[0].name: 1}, "Start")
        world.events.after(PERIOD_SECONDS, self._round)

    def _round(self) -> None:
        world = self._world
        world.events.after(PERIOD_SECONDS, self._round)
        loads = replica_loads(world.scraper.history, world.events.now - WINDOW_SECONDS)
        if not loads:
            return
        wanted = dict(self._scaler.wanted)
        if wants_more(loads, self.kv_limit):
            self._add(wanted)
        elif wants_less(loads, self.kv_limit):
            self._remove(wanted)
        self._scaler.set(wanted, "CostFirst")

    def _add(self, wanted: dict[str, int]) -> None:
        ready = self._world.ready()
        spent = sum(tier.accelerators * wanted.get(tier.name, 0) for tier in self._by_cost)
        for tier in self._by_cost:
            is_loading = wanted.get(tier.name, 0) > ready.get(tier.name, 0)
            if not is_loading and spent + tier.accelerators <= self._world.scenario.budget:
                wanted[tier.name] = wanted.get(tier.name, 0) + 1
                return

    def _remove(self, wanted: dict[str, int]) -> None:
        """The dearest goes first, unless it is the last one of all."""
        dearest = next((tier for tier in reversed(self._by_cost) if wanted.get(tier.name, 0) > 0), None)
        if dearest is not None and sum(wanted.values()) > 1:
            wanted[dearest.name] -= 1


def replica_loads(history: Sequence[Scrape], since: float) -> list[Load]:
    """Maxima since then of every replica that the newest scrape shows ready."""
    recent = [scrape for scrape in history if scrape.at >= since]
    if not recent:
        return []
    present = [pod.name for pod in recent[-1].pods if pod.ready]
    loads: dict[str, Load] = {}
    for scrape in recent:
        ready = [pod for pod in scrape.pods if pod.ready]
        for pod in ready:
            seen, held = loads.get(pod.name, Load(0.0, 0.0)), scrape.router_queue / len(ready)
            loads[pod.name] = Load(max(seen.kv, pod.kv_share), max(seen.waiting, pod.waiting + held))
    return [loads[name] for name in present]


def _spare(loads: Sequence[Load], kv_limit: float) -> tuple[float, float] | None:
    """Mean spare KV share and queue places of the replicas that are not saturated; None when all are."""
    free = [load for load in loads if load.kv < kv_limit and load.waiting < QUEUE_LIMIT]
    if not free:
        return None
    return (
        sum(kv_limit - load.kv for load in free) / len(free),
        sum(QUEUE_LIMIT - load.waiting for load in free) / len(free),
    )
