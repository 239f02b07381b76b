"""Admission: a place for every request, or a wait, or an honest refusal.

Order of preference: the tier and level whose turn it is; a cheaper allowed one with room; a better one with room; the
queue in this router (the backlog here can still change tier, one inside an engine cannot); 429 when the wait is over.
First come, first served among requests that could go to the same place. Deliberately does not know HTTP.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from inference_pods.router.endpoints import Replica
from inference_pods.router.fleet import Fleet, Lane
from inference_pods.router.floor import FloorPurse
from inference_pods.router.pick import SmoothChoice
from inference_pods.router.shares import ShareReason
from inference_pods.router.table import Route, RouteKey, RoutingTable

MAX_HELD_REQUESTS: Final = 2000
MAX_HELD_BYTES: Final = 64 << 20
RETRY_AFTER_MAX_SECONDS: Final = 60
NOT_READY_SECONDS: Final = 10  # Retry-After while a replica may be starting


class RouteReason(StrEnum):
    """Why this tier: sent as x-route-reason, and the label of the shed counter."""

    PREFERRED = "Preferred"  # the best tier that the request may use
    SHED = "Shed"  # loop F sends this part of the load to a cheaper tier
    OVERFLOW = "Overflow"  # the tier whose turn it was is full at this moment
    UPGRADED = "Upgraded"  # the cheaper tier whose turn it was is full, a better one had room
    PINNED = "Pinned"  # x-tier or x-level


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


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request may use. `avoid`: replicas that failed it already. `held_bytes`: its body, while it waits.
    `streams`: its first token will be seen; without, only the end of the answer."""

    tier: str | None = None
    level: str | None = None
    quality_min: int | None = None
    avoid: frozenset[str] = frozenset()
    held_bytes: int = field(default=0, compare=False)
    streams: bool = field(default=False, compare=False)

    @property
    def is_pinned(self) -> bool:
        """Did the client choose a tier or a level itself?"""
        return self.tier is not None or self.level is not None

    @property
    def is_free(self) -> bool:
        return not self.is_pinned and self.quality_min is None

    def names(self, key: RouteKey) -> bool:
        """Is this route one of those that the client named, or did it name none?"""
        return self.tier in (None, key.tier) and self.level in (None, key.level)


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """A place that is taken until it is released."""

    route: Route
    replica: Replica
    reason: RouteReason
    streams: bool = False


@dataclass(slots=True, eq=False)
class _Waiter:
    demand: Demand
    future: asyncio.Future[Placement]


class Admission:
    """Gives places and takes them back. Every `acquire` that returned is followed by exactly one `release`."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._clock = clock
        self._choice = SmoothChoice()
        self._purse = FloorPurse()
        self._waiters: dict[_Waiter, None] = {}  # ordered: first come, first served
        self._waiting: Counter[Demand] = Counter()
        self._held_bytes = 0
        self._awaiting: set[Placement] = set()  # streams without their first token: the queues inside the engines
        self.in_flight: dict[RouteKey, int] = {}
        fleet.on_change.append(self._follow)
        fleet.held_requests = lambda: self.held_free

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
            placement = self._place(demand)
            if placement is not None:
                return placement
        self._check_queue(demand)
        return await self._wait(demand, deadline)

    def note_first_token(self, placement: Placement) -> None:
        """The stream has left its engine's queue: there is room for the next. Further calls have no effect."""
        if placement in self._awaiting:
            self._awaiting.remove(placement)
            self._fleet.book.note_first_token(placement.replica, placement.route.load)
            self._serve_waiters()

    def release(self, placement: Placement) -> None:
        self.in_flight[placement.route.key] -= 1
        awaiting = placement in self._awaiting
        self._awaiting.discard(placement)
        load = placement.route.load
        self._fleet.book.finish(placement.replica, streams=placement.streams, awaiting=awaiting, load=load)
        self._serve_waiters()

    def retry_after_seconds(self) -> int:
        """When the queue in front of a newcomer will be worked off: 1 to 60 s."""
        capacity = self._fleet.capacity()
        if capacity <= 0:
            return 5
        return min(max(math.ceil((self.held + 1) / capacity), 1), RETRY_AFTER_MAX_SECONDS)

    def _follow(self) -> None:
        self._choice.keep_only({lane.key for lane in self._fleet.lanes})
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
            placement = self._place(waiter.demand)
            if placement is None:
                hopeless.add(waiter.demand)
            else:
                served.append((waiter, placement))
        for waiter, placement in served:
            self._dequeue(waiter)
            waiter.future.set_result(placement)

    def _place(self, demand: Demand) -> Placement | None:
        lanes = self._allowed_lanes(demand)
        if not lanes:
            return None
        keys = [lane.key for lane in lanes]
        turn = keys.index(self._choice.peek(keys, self._fleet.plan))
        for index in (turn, *range(turn + 1, len(lanes)), *range(turn - 1, -1, -1)):
            replica = self._room(lanes[index], demand)
            if replica is not None:
                self._choice.charge(keys[turn], keys, self._fleet.plan)
                return self._take(lanes[index].route, replica, demand, _reason(demand, index, turn))
        return None

    def _room(self, lane: Lane, demand: Demand) -> Replica | None:
        if not demand.is_pinned and not self._purse.allows(lane.route.quality_permille, self._floor()):
            return None
        return self._fleet.book.least_loaded(lane.replicas, lane.limits, self._clock(), demand.avoid)

    def _take(self, route: Route, replica: Replica, demand: Demand, reason: RouteReason) -> Placement:
        self._fleet.book.start(replica, streams=demand.streams, load=route.load)
        self.in_flight[route.key] = self.in_flight.get(route.key, 0) + 1
        if not demand.is_pinned:  # a pin is the client's own choice: it neither fills nor empties the others' purse
            self._purse.record(route.quality_permille, self._floor())
        placement = Placement(route, replica, reason, demand.streams)
        if demand.streams:
            self._awaiting.add(placement)
        return placement

    def _allowed_lanes(self, demand: Demand) -> list[Lane]:
        if demand.is_pinned:
            named = [lane for lane in self._fleet.lanes if lane.replicas and demand.names(lane.key)]
            lanes = named if demand.level is not None else [ln for ln in named if ln.route.weight > 0] or named[:1]
        else:
            lanes = self._fleet.open_lanes()
        return [lane for lane in lanes if _is_good_enough(lane.route, demand.quality_min)]

    def _floor(self) -> int:
        return self._fleet.table.floor_permille if self._fleet.table else 0

    def _check_possible(self, demand: Demand) -> None:
        table = self._fleet.table
        if table is None:
            raise Refused(RefusalCause.NO_TABLE, 503, "this router has not received a routing table yet: try again", 2)
        _check_names(demand, table)
        routes = [route for route in table.routes if demand.names(route.key)]
        if not any(_is_good_enough(route, demand.quality_min) for route in routes):
            best = max((route.quality_permille for route in routes if route.quality_permille is not None), default=None)
            offer = "no tier's quality is known yet" if best is None else f"the best on offer is {best}"
            message = (
                f"x-quality-min: {demand.quality_min} is not offered; {offer}: ask for less or leave the header out"
            )
            raise Refused(RefusalCause.QUALITY_UNKNOWN, 400, message)
        if demand.is_free or self._allowed_lanes(demand):
            return
        if demand.is_pinned:
            self._check_levels(demand)
        tiers = {route.key.tier for route in routes if _is_good_enough(route, demand.quality_min)}
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

    def _check_queue(self, demand: Demand) -> None:
        if self.held >= MAX_HELD_REQUESTS or self._held_bytes + demand.held_bytes > MAX_HELD_BYTES:
            raise Refused(RefusalCause.QUEUE_FULL, 429, "overloaded: the queue is full", self.retry_after_seconds())

    def _queue_timeout(self, demand: Demand) -> Refused:
        if not self._allowed_lanes(demand):
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


def _is_good_enough(route: Route, quality_min: int | None) -> bool:
    """An unknown quality cannot promise anything."""
    return not quality_min or (route.quality_permille is not None and route.quality_permille >= quality_min)


def _reason(demand: Demand, index: int, turn: int) -> RouteReason:
    if demand.is_pinned:
        return RouteReason.PINNED
    if index > turn:
        return RouteReason.OVERFLOW
    if index < turn:
        return RouteReason.UPGRADED
    return RouteReason.SHED if index > 0 else RouteReason.PREFERRED
