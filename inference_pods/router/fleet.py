"""What this router knows right now: the table, who is ready, the shares; and the lanes that follow from them.

A lane is a route with its ready replicas and its limit. Keeps the last good table and endpoints for ever: losing the
API server, the operator or Prometheus changes nothing here. Deliberately does not know requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from inference_pods.router.arrivals import ArrivalWindow
from inference_pods.router.endpoints import NO_ENDPOINTS, EndpointSet, Replica
from inference_pods.router.pick import ReplicaBook, ReplicaLimits
from inference_pods.router.revisions import Assigned, ReplicaLevels
from inference_pods.router.shares import UTILISATION, ShareInputs, SharePlan, TierLoad, plan_shares
from inference_pods.router.table import Route, RouteKey, RoutingTable

QUEUE_FRACTION: Final = 0.5  # of the TTFT objective may pass waiting inside an engine; the rest absorbs errors of mu
USUAL_FRACTION: Final = 0.2  # of the TTFT objective: so many requests wait for their first token without any overload


@dataclass(frozen=True, slots=True)
class Lane:
    """A route, its ready replicas that are not draining, and what each of them may hold of this router's requests.

    `usual_queue`: requests per replica that wait for their first token although it isn't overloaded.
    """

    route: Route
    replicas: tuple[Replica, ...]
    limits: ReplicaLimits
    usual_queue: float

    @property
    def key(self) -> RouteKey:
        return self.route.key


_UNLIMITED: Final = ReplicaLimits(in_flight=1 << 30)


class Fleet:
    """Mutable state of loop F. `on_change` is called after every change of table, endpoints or shares."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.table: RoutingTable | None = None
        self.endpoints: EndpointSet = NO_ENDPOINTS
        self.plan = SharePlan()
        self.lanes: tuple[Lane, ...] = ()
        self.arrivals = ArrivalWindow()
        self.book = ReplicaBook()
        self._ready_at: dict[str, float] = {}  # by tier: when a replica was last known to be ready, this clock
        self._levels = ReplicaLevels()
        self.on_change: list[Callable[[], None]] = []
        self.held_requests: Callable[[], int] = lambda: 0  # waiting in this router, for any tier

    def offer_table(self, table: RoutingTable) -> bool:
        """Adopt the table if it is newer than ours; False if it was ignored."""
        if not table.is_newer_than(self.table):
            return False
        self.table = table
        self._rebuild()
        return True

    def offer_endpoints(self, endpoints: EndpointSet) -> None:
        if endpoints == self.endpoints:
            return
        self.endpoints = endpoints
        uids = {replica.uid for members in endpoints.replicas.values() for replica in members}
        self.book.keep_only(uids)
        self._levels.keep_only(uids)
        self._rebuild()

    def note_refused_level(self, replica: Replica, level: str) -> None:
        """The replica does not have this level, whatever the table says: it is not asked for it again."""
        self._levels.note_refusal(replica, level)
        self._rebuild()

    def rebalance(self) -> None:
        """One period of loop F, or an early one after an event."""
        if self.table is None:
            return
        inputs = ShareInputs(
            tiers=[self._tier_load(lane, self._shared_with(lane)) for lane in self.lanes],
            arrival_rate=self.arrivals.rate(self._clock()),
            held=self.held_requests(),
            routers=self.endpoints.routers,
            floor_permille=self.table.floor_permille,
        )
        self.plan = plan_shares(inputs, self.plan if self.plan.shares else None, self._clock())
        for notify in self.on_change:
            notify()

    def is_ready(self) -> bool:
        """A table, and a ready replica now or so shortly ago that requests are still held for its successor."""
        if self.table is None:
            return False
        if self._has_ready_lane():
            return True
        return any(self._was_ready_lately(tier) for tier in self._ready_at)

    def may_serve_soon(self, tier: str) -> bool:
        """Does a replica of this tier start, or was one ready so shortly ago that its successor is on the way?"""
        return tier in self.endpoints.starting or self._was_ready_lately(tier)

    def _was_ready_lately(self, tier: str) -> bool:
        since, table = self._ready_at.get(tier), self.table
        return since is not None and table is not None and self._clock() - since < table.max_queue_seconds

    def open_lanes(self) -> list[Lane]:
        """Lanes for requests without a pin, best first: ready with a positive weight; if none, ready at all."""
        ready = [lane for lane in self.lanes if lane.replicas]
        return [lane for lane in ready if lane.route.weight > 0] or ready

    def any_replica(self) -> Replica | None:
        """The least busy ready replica of any tier, for requests that every engine answers alike."""
        replicas = [replica for lane in self.lanes for replica in lane.replicas]
        return self.book.least_loaded(replicas, _UNLIMITED, self._clock())

    def capacity(self) -> float:
        """Requests/s that the ready replicas carry for this router; 0 = unknown."""
        rates: dict[str, float] = {}  # of each replica: levels share it, the fastest one counts
        for lane in self.open_lanes():
            for replica in lane.replicas:
                rates[replica.uid] = max(rates.get(replica.uid, 0.0), lane.route.mu or 0.0)
        return sum(rates.values()) / self.endpoints.routers

    def _rebuild(self) -> None:
        now = self._clock()
        self._ready_at |= {lane.key.tier: now for lane in self.lanes if lane.replicas}
        table = self.table
        if table is not None:
            self.lanes = tuple(self._build_lane(table, *assigned) for assigned in self._assign(table))
        self.rebalance()

    def _assign(self, table: RoutingTable) -> list[Assigned]:
        """Routes with their replicas: in the table's order, best quality first, then those that are not in it."""
        assigned: dict[RouteKey, Assigned] = {route.key: (route, ()) for route in table.routes}
        for tier in table.tiers():
            staying = [replica for replica in self.endpoints.of_tier(tier) if replica.uid not in table.draining]
            for route, replicas in self._levels.assign(table, tier, staying):
                assigned[route.key] = (route, replicas)
        return list(assigned.values())

    def _build_lane(self, table: RoutingTable, route: Route, replicas: tuple[Replica, ...]) -> Lane:
        routers = self.endpoints.routers
        startable = table.first_token_capacity(route) / routers
        queued = startable * QUEUE_FRACTION
        limits = ReplicaLimits(
            in_flight=max(math.ceil(table.replica_limit(route) / routers), 1),
            queued=max(math.ceil(queued - 1e-9), 1) if math.isfinite(queued) else math.inf,
            decoding=table.decoding_capacity(route) / routers,
        )
        return Lane(route, replicas, limits, max(startable * USUAL_FRACTION, 1.0))

    def _has_ready_lane(self) -> bool:
        return any(lane.replicas for lane in self.lanes)

    def _shared_with(self, lane: Lane) -> str:
        """The first level that has replicas in common with this one: levels of another revision have their own."""
        replicas = set(lane.replicas)
        sharing = (other for other in self.lanes if other.key.tier == lane.key.tier and replicas & set(other.replicas))
        return next((other.key.level for other in sharing), lane.key.level)

    def _tier_load(self, lane: Lane, shared_with: str) -> TierLoad:
        comfortable = UTILISATION * lane.limits.in_flight * len(lane.replicas)
        in_flight = sum(self.book.in_flight(replica) for replica in lane.replicas)
        queued = sum(self.book.queued(replica, lane.limits) for replica in lane.replicas)
        usual = lane.usual_queue * len(lane.replicas)
        return TierLoad(
            key=lane.key,
            quality_permille=lane.route.quality_permille,
            mu=lane.route.mu,
            load=lane.route.load,
            shared_with=shared_with,
            weight=lane.route.weight,
            ready=len(lane.replicas),
            backlog=max(in_flight - comfortable, queued - usual, 0.0),
        )
