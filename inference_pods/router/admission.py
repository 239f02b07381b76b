"""Admission: a place for every request, or a wait, or an honest refusal.

Places are chosen in `places.py`; without one, a request waits in this router (the backlog here can still change tier,
one inside an engine cannot); 429 when the wait is over. First come, first served among requests that could go to the
same place. Deliberately does not know HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from inference_pods.router.fleet import Fleet
from inference_pods.router.places import Demand, Placement, Places, is_good_enough
from inference_pods.router.shares import ShareReason
from inference_pods.router.table import Route, RouteKey, RoutingTable

MAX_HELD_REQUESTS: Final = 2000
MAX_HELD_BYTES: Final = 64 << 20
RETRY_AFTER_MAX_SECONDS: Final = 60
NOT_READY_SECONDS: Final = 10  # Retry-After while a replica may be starting


class RefusalCause(StrEnum):
    NO_TABLE = "NoTable"
    UNKNOWN_TIER = "UnknownTier"
    UNKNOWN_LEVEL = "UnknownLevel"
    QUALITY_UNKNOWN = "QualityNotOffered"
    TIER_NOT_READY = "TierNotReady"
    NOTHING_READY = "NothingReady"
    QUEUE_TIMEOUT = "QueueTimeout"
    FLOOR_REACHED = "FloorReached"
    QUEUE_FULL = "QueueFull"
    ENGINES_FULL = "EnginesFull"
    UNREACHABLE = "Unreachable"
    STOPPING = "Stopping"


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """No place. `status` for the client; `retry_after_seconds` None where trying again cannot help."""

    def __init__(self, cause: RefusalCause, status: int, message: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def overloaded(cls, retry_after_seconds: int) -> Refused:
        return cls(RefusalCause.ENGINES_FULL, 429, "overloaded: the engines refused the request", retry_after_seconds)

    @classmethod
    def unreachable(cls, cause: str) -> Refused:
        message = f"no replica answered: {cause}; nothing was generated, the request can be repeated"
        return cls(RefusalCause.UNREACHABLE, 503, message, 2)

    @classmethod
    def shutting_down(cls) -> Refused:
        return cls(RefusalCause.STOPPING, 503, "this router is stopping: repeat the request", 1)


@dataclass(slots=True, eq=False)
class _Waiter:
    demand: Demand
    future: asyncio.Future[Placement]


class Admission:
    """Gives places and takes them back. Every `acquire` that returned is followed by exactly one `release`."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._clock = clock
        self._places = Places(fleet, clock)
        self._waiters: dict[_Waiter, None] = {}  # ordered: first come, first served
        self._waiting: Counter[Demand] = Counter()
        self._held_bytes = 0
        fleet.on_change.append(self._follow)
        fleet.held_requests = lambda: self.held_free

    @property
    def in_flight(self) -> Mapping[RouteKey, int]:
        """Requests in the engines, by route."""
        return self._places.in_flight

    @property
    def held(self) -> int:
        return len(self._waiters)

    @property
    def held_free(self) -> int:
        """Waiting requests that any tier may serve: they count as load of loop F."""
        return sum(count for demand, count in self._waiting.items() if demand.is_free)

    async def acquire(self, demand: Demand, deadline: float) -> Placement:
        """Take a place, waiting until `deadline` (this clock). Raises Refused."""
        self._check_possible(demand)
        if demand not in self._waiting:  # else its equals were here first
            placement = self._places.take(demand)
            if placement is not None:
                return placement
        self._check_floor(demand)
        self._check_queue(demand)
        return await self._wait(demand, deadline)

    def note_first_token(self, placement: Placement) -> None:
        """The stream has left its engine's queue: there is room for the next. Further calls have no effect."""
        if self._places.note_first_token(placement):
            self._serve_waiters()

    def release(self, placement: Placement) -> None:
        self._places.give_back(placement)
        self._serve_waiters()

    def retry_after_seconds(self) -> int:
        """When the queue in front of a newcomer will be worked off: 1 to 60 s."""
        capacity = self._fleet.capacity()
        if capacity <= 0:
            return 5
        return min(max(math.ceil((self.held + 1) / capacity), 1), RETRY_AFTER_MAX_SECONDS)

    def _follow(self) -> None:
        self._places.follow()
        self._serve_waiters()

    async def _wait(self, demand: Demand, deadline: float) -> Placement:
        waiter = _Waiter(demand, asyncio.get_running_loop().create_future())
        self._enqueue(waiter)
        try:
            async with asyncio.timeout(max(deadline - self._clock(), 0.0)):
                return await waiter.future
        except TimeoutError:
            if waiter.future.done() and not waiter.future.cancelled():
                return waiter.future.result()  # the place came in the same tick
            raise self._queue_timeout(demand) from None
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled():
                self.release(waiter.future.result())
            raise
        finally:
            self._dequeue(waiter)

    def _enqueue(self, waiter: _Waiter) -> None:
        self._waiters[waiter] = None
        self._waiting[waiter.demand] += 1
        self._held_bytes += waiter.demand.held_bytes

    def _dequeue(self, waiter: _Waiter) -> None:
        """Also right when it has left the queue already."""
        if waiter not in self._waiters:
            return
        del self._waiters[waiter]
        self._held_bytes -= waiter.demand.held_bytes
        self._waiting[waiter.demand] -= 1
        if not self._waiting[waiter.demand]:
            del self._waiting[waiter.demand]

    def _serve_waiters(self) -> None:
        """Give free places to waiters in order; one that cannot go anywhere does not block those that can."""
        hopeless: set[Demand] = set()
        served: list[tuple[_Waiter, Placement]] = []
        for waiter in self._waiters:
            if len(hopeless) == len(self._waiting):
                break
            if waiter.demand in hopeless or waiter.future.done():
                continue
            placement = self._places.take(waiter.demand)
            if placement is None:
                hopeless.add(waiter.demand)
            else:
                served.append((waiter, placement))
        for waiter, placement in served:
            self._dequeue(waiter)
            waiter.future.set_result(placement)

    def _check_possible(self, demand: Demand) -> None:
        table = self._fleet.table
        if table is None:
            raise Refused(RefusalCause.NO_TABLE, 503, "this router has not received a routing table yet: try again", 2)
        _check_names(demand, table)
        routes = [route for route in table.routes if demand.names(route.key)]
        if not any(is_good_enough(route, demand.quality_min) for route in routes):
            best = max((route.quality_permille for route in routes if route.quality_permille is not None), default=None)
            offer = "no tier's quality is known yet" if best is None else f"the best on offer is {best}"
            message = (
                f"x-quality-min: {demand.quality_min} is not offered; {offer}: ask for less or leave the header out"
            )
            raise Refused(RefusalCause.QUALITY_UNKNOWN, 400, message)
        if demand.is_free or self._places.allowed_lanes(demand):
            return
        if demand.is_pinned:
            self._check_levels(demand)
        tiers = {route.key.tier for route in routes if is_good_enough(route, demand.quality_min)}
        if not any(self._fleet.may_serve_soon(tier) for tier in tiers):
            raise _nothing_ready(demand, "and none is starting")

    def _check_levels(self, demand: Demand) -> None:
        """Raises Refused for a level that no replica has although those of its tier are ready, naming those they have.

        The table may promise it: its replicas are on their way, or an edit that brings it does not start.
        """
        ready = [lane.key for lane in self._fleet.lanes if lane.replicas]
        tiers = {lane.key.tier for lane in self._fleet.lanes if demand.names(lane.key)}
        if demand.level is None or not tiers <= {key.tier for key in ready}:
            return
        known = ", ".join(f"{key.level} of {key.tier}" for key in ready if key.level and key.tier in tiers)
        raise _unknown_level(f"no ready replica has level {demand.level!r}", known)

    def _check_floor(self, demand: Demand) -> None:
        """Raises Refused where waiting cannot help: no tier that reaches the floor is there, starts, or is to start.

        A tier that the planner wants has a weight even before its first replica is there.
        """
        table = self._fleet.table
        if table is None or demand.is_pinned or self._fleet.plan.reason is not ShareReason.FLOOR_REACHED:
            return
        able = {route.key.tier for route in table.routes if _reaches_floor(route, table.floor_permille)}
        open_tiers = {lane.key.tier for lane in self._fleet.lanes if lane.replicas or lane.route.weight > 0}
        if not able & open_tiers and not any(self._fleet.may_serve_soon(tier) for tier in able):
            message = f"no tier that reaches the model's quality floor {table.floor_permille} runs or is to start"
            raise Refused(RefusalCause.FLOOR_REACHED, 429, message, RETRY_AFTER_MAX_SECONDS)

    def _check_queue(self, demand: Demand) -> None:
        if self.held >= MAX_HELD_REQUESTS or self._held_bytes + demand.held_bytes > MAX_HELD_BYTES:
            raise Refused(RefusalCause.QUEUE_FULL, 429, "overloaded: the queue is full", self.retry_after_seconds())

    def _queue_timeout(self, demand: Demand) -> Refused:
        if not self._places.allowed_lanes(demand):
            return _nothing_ready(demand, "and none became ready in time")
        if self._fleet.plan.reason is ShareReason.FLOOR_REACHED:
            message = "only tiers that would push the served quality below the model's floor are ready"
            return Refused(RefusalCause.FLOOR_REACHED, 429, message, self.retry_after_seconds())
        message = "overloaded: every tier that may serve this request stayed full"
        return Refused(RefusalCause.QUEUE_TIMEOUT, 429, message, self.retry_after_seconds())


def _check_names(demand: Demand, table: RoutingTable) -> None:
    """Raises Refused for a tier or a level that is not there, naming those that are."""
    if demand.tier is not None and demand.tier not in table.tiers():
        known = ", ".join(table.tiers())
        raise Refused(RefusalCause.UNKNOWN_TIER, 400, f"x-tier: no tier {demand.tier!r}; the tiers are: {known}")
    if demand.level is None or any(demand.names(route.key) for route in table.routes):
        return
    tiers = table.tiers() if demand.tier is None else (demand.tier,)
    known = ", ".join(f"{level} of {tier}" for tier in tiers for level in table.levels(tier))
    where = "" if demand.tier is None else f" of tier {demand.tier!r}"
    raise _unknown_level(f"no level {demand.level!r}{where}", known)


def _reaches_floor(route: Route, floor_permille: int) -> bool:
    """May it serve whatever else does? A quality that is not known is not held against it."""
    return route.quality_permille is None or route.quality_permille >= floor_permille


def _unknown_level(what: str, known: str) -> Refused:
    there = f"the levels are: {known}" if known else "there are none: leave the header out"
    return Refused(RefusalCause.UNKNOWN_LEVEL, 400, f"x-level: {what}; {there}")


def _nothing_ready(demand: Demand, what: str) -> Refused:
    """Refusal of a request for which no replica is ready; names the header that asks for more than there is."""
    if demand.is_free:
        return Refused(RefusalCause.NOTHING_READY, 503, f"no replica is ready, {what}: try later", NOT_READY_SECONDS)
    if demand.tier is not None:
        cause, header, asked = RefusalCause.TIER_NOT_READY, "x-tier", f"tier {demand.tier!r}"
    elif demand.level is not None:
        cause, header, asked = RefusalCause.TIER_NOT_READY, "x-level", f"level {demand.level!r}"
    else:
        cause, header, asked = RefusalCause.NOTHING_READY, "x-quality-min", f"a quality of {demand.quality_min}"
    message = f"{header}: {asked} has no ready replica, {what}: try later, or leave the header out"
    return Refused(cause, 503, message, NOT_READY_SECONDS)
