"""Which place a request gets: the rules between loop F's shares and the replicas. PURE: no event loop, so that the
simulator gives places by the same rules.

Order of preference: the tier and level whose turn it is; a cheaper allowed one with room; a better one with room. While
something is scarce, prices say which of the requests take which turns (`prices.py`).
Deliberately does not know who waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from inference_pods.router.endpoints import Replica
from inference_pods.router.fleet import Fleet, Lane
from inference_pods.router.floor import FloorPurse
from inference_pods.router.pick import USUAL, SmoothChoice, Turn
from inference_pods.router.prices import UsualWork
from inference_pods.router.prices import leanings as price_leanings
from inference_pods.router.table import Route, RouteKey


class RouteReason(StrEnum):
    """Why this tier: sent as x-route-reason, and the label of the shed counter."""

    PREFERRED = "Preferred"  # the best tier that the request may use
    SHED = "Shed"  # loop F sends this part of the load to a cheaper tier
    OVERFLOW = "Overflow"  # the tier whose turn it was is full at this moment
    UPGRADED = "Upgraded"  # the cheaper tier whose turn it was is full, a better one had room
    PINNED = "Pinned"  # x-tier or x-level


@dataclass(frozen=True, slots=True)
class Demand:
    """What one request may use. `avoid`: replicas that failed it already. `held_bytes`: its body, while it waits.
    `streams`: its first token will be seen; without, only the end of the answer. `work`: what it is expected to take,
    in reference requests."""

    tier: str | None = None
    level: str | None = None
    quality_min: int | None = None
    avoid: frozenset[str] = frozenset()
    held_bytes: int = field(default=0, compare=False)
    streams: bool = field(default=False, compare=False)
    work: float = field(default=1.0, compare=False)

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


class Places:
    """Gives places and takes them back. Every `take` that returned one is followed by exactly one `give_back`."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._clock = clock
        self._choice = SmoothChoice()
        self._usual = UsualWork()
        self._purse = FloorPurse()
        self._awaiting: set[Placement] = set()  # streams without their first token: the queues inside the engines
        self.in_flight: dict[RouteKey, int] = {}

    def take(self, demand: Demand) -> Placement | None:
        """A place for this request now; None when nothing that may serve it has room."""
        lanes = self.allowed_lanes(demand)
        if not lanes:
            return None
        keys = [lane.key for lane in lanes]
        asked = self._turn_of(lanes, demand)
        turn = keys.index(self._choice.peek(keys, self._fleet.plan, asked))
        for index in (turn, *range(turn + 1, len(lanes)), *range(turn - 1, -1, -1)):
            replica = self._room(lanes[index], demand)
            if replica is not None:
                self._choice.charge(keys[turn], keys, self._fleet.plan, asked)
                if not demand.is_pinned:
                    self._usual.record(demand.work)
                return self._book(lanes[index].route, replica, demand, _reason(demand, index, turn))
        return None

    def _turn_of(self, lanes: Sequence[Lane], demand: Demand) -> Turn:
        """How the request leans; not at all while nothing is scarce, or where the client chose."""
        if demand.is_pinned:
            return USUAL
        size = self._usual.size_of(demand.work)
        leanings = price_leanings([lane.route.price * lane.route.load for lane in lanes], size)
        return Turn(size, leanings) if leanings else USUAL

    def _room(self, lane: Lane, demand: Demand) -> Replica | None:
        if not demand.is_pinned and not self._purse.allows(lane.route.quality_permille, self._floor()):
            return None
        return self._fleet.book.least_loaded(lane.replicas, lane.limits, self._clock(), demand.avoid)

    def _book(self, route: Route, replica: Replica, demand: Demand, reason: RouteReason) -> Placement:
        self._fleet.book.start(replica, streams=demand.streams, load=route.load)
        self.in_flight[route.key] = self.in_flight.get(route.key, 0) + 1
        if not demand.is_pinned:  # a pin is the client's own choice: it neither fills nor empties the others' purse
            self._purse.record(route.quality_permille, self._floor())
        placement = Placement(route, replica, reason, demand.streams)
        if demand.streams:
            self._awaiting.add(placement)
        return placement

    def allowed_lanes(self, demand: Demand) -> list[Lane]:
        """Lanes that may serve this request, best first, with or without room."""
        if demand.is_pinned:
            named = [lane for lane in self._fleet.lanes if lane.replicas and demand.names(lane.key)]
            lanes = named if demand.level is not None else [ln for ln in named if ln.route.weight > 0] or named[:1]
        else:
            lanes = self._fleet.open_lanes()
        return [lane for lane in lanes if is_good_enough(lane.route, demand.quality_min)]

    def _floor(self) -> int:
        return self._fleet.table.floor_permille if self._fleet.table else 0

    def note_first_token(self, placement: Placement) -> bool:
        """The stream has left its engine's queue. True: there is room for the next; further calls have no effect."""
        if placement not in self._awaiting:
            return False
        self._awaiting.remove(placement)
        self._fleet.book.note_first_token(placement.replica, placement.route.load)
        return True

    def give_back(self, placement: Placement) -> None:
        """The request is over."""
        self.in_flight[placement.route.key] -= 1
        awaiting = placement in self._awaiting
        self._awaiting.discard(placement)
        load = placement.route.load
        self._fleet.book.finish(placement.replica, streams=placement.streams, awaiting=awaiting, load=load)

    def follow(self) -> None:
        """The routes have changed: forget the credits of those that are gone, and leanings when prices are."""
        self._choice.keep_only({lane.key for lane in self._fleet.lanes})
        if not any(lane.route.price for lane in self._fleet.lanes):
            self._choice.forget_leanings()


def is_good_enough(route: Route, quality_min: int | None) -> bool:
    """Does it keep the quality that was asked for? An unknown quality cannot promise anything."""
    return not quality_min or (route.quality_permille is not None and route.quality_permille >= quality_min)


def _reason(demand: Demand, index: int, turn: int) -> RouteReason:
    if demand.is_pinned:
        return RouteReason.PINNED
    if index > turn:
        return RouteReason.OVERFLOW
    if index < turn:
        return RouteReason.UPGRADED
    return RouteReason.SHED if index > 0 else RouteReason.PREFERRED
