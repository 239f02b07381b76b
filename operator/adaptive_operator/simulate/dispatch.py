"""The simulated router: the real one's table, fast loop, floor and choice of places, with a queue in simulated time.

Requests that find no place wait here, first come, first served, as long as the table allows; then they are refused.
Knows no policies.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.plant import Plant
from adaptive_operator.simulate.requests import Outcome, Request
from inference_pods.router.endpoints import EndpointSet, Replica
from inference_pods.router.fleet import Fleet
from inference_pods.router.places import Demand, Placement, Places
from inference_pods.router.prices import expected_work
from inference_pods.router.shares import PERIOD_SECONDS, SharePlan, ShareReason
from inference_pods.router.table import RoutingTable

FOLLOW_SECONDS: Final = 1.0  # until a router sees a new table or a changed endpoint


class WeightedFleet(Fleet):
    """A fleet whose fast loop can be switched off: its shares are then the weights of the tiers that are ready."""

    by_weight = False

    def rebalance(self) -> None:
        """One period of the fast loop, or the table's weights."""
        if not self.by_weight:
            super().rebalance()
            return
        lanes = self.open_lanes()
        total = math.fsum(lane.route.weight for lane in lanes)
        shares = {lane.key: lane.route.weight / total if total > 0 else 1 / len(lanes) for lane in lanes}
        self.plan = SharePlan(shares, ShareReason.STEADY, self._clock())
        for notify in self.on_change:
            notify()


@dataclass(slots=True)
class Counters:
    """What the router counts from the start on, and what it has timed since the last scrape (tier, seconds)."""

    arrivals: int = 0
    answers: Counter[tuple[str, str]] = field(default_factory=Counter)  # by tier and level
    ttft: list[tuple[str, float]] = field(default_factory=list)
    tpot: list[tuple[str, float]] = field(default_factory=list)

    def note_end(self, request: Request) -> None:
        """A request ended: answers are counted, and those of more than one token timed."""
        if request.outcome is Outcome.FINISHED:
            self.answers[request.tier, request.level] += 1
            if request.output_tokens > 1:
                self.tpot.append((request.tier, request.tpot))

    def take_times(self) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """What was timed since the last time: to first tokens, and per token."""
        taken = (self.ttft, self.tpot)
        self.ttft, self.tpot = [], []
        return taken


@dataclass(slots=True)
class Dispatcher:
    """One router. It calls `on_done` once for every request, however it ended."""

    events: EventQueue
    plant: Plant
    on_done: Callable[[Request], None] = lambda request: None
    counters: Counters = field(default_factory=Counters)
    _waiting: dict[Request, float] = field(default_factory=dict)  # request -> until when
    _placed: dict[Request, Placement] = field(default_factory=dict)

    fleet: WeightedFleet = field(init=False)
    _places: Places = field(init=False)

    def __post_init__(self) -> None:
        """Put the router's parts together and listen to the plant."""

        def clock() -> float:
            return self.events.now

        self.fleet = WeightedFleet(clock)
        self._places = Places(self.fleet, clock)
        self.fleet.held_requests = lambda: len(self._waiting)
        self.fleet.on_change.append(self._follow)
        self.plant.on_first_token, self.plant.on_end, self.plant.on_loss = self._first_token, self._end, self._lost

    def start(self) -> None:
        """Begin the fast loop."""
        self.fleet.rebalance()
        self.events.after(PERIOD_SECONDS, self.start)

    def follow_weights(self) -> None:
        """From now on shares are the table's weights, without the fast loop. Admission stays."""
        self.fleet.by_weight = True

    @property
    def held(self) -> int:
        """Requests that wait here."""
        return len(self._waiting)

    @property
    def shares(self) -> Mapping[str, float]:
        """The fast loop's present shares, by tier."""
        return {key.tier: share for key, share in self.fleet.plan.shares.items()}

    def offer_table(self, table: RoutingTable) -> None:
        """A new table; the router follows a moment later."""
        self.events.after(FOLLOW_SECONDS, partial(self._see_table, table))

    def follow_pods(self) -> None:
        """Pods have changed; the router follows a moment later."""
        self.events.after(FOLLOW_SECONDS, self._see_pods)

    def arrive(self, request: Request) -> None:
        """A request of a client."""
        self.counters.arrivals += 1
        self.fleet.arrivals.record(self.events.now)
        self._find_place(request)

    def _find_place(self, request: Request) -> None:
        if not self._waiting:
            placement = self._places.take(self._demand_of(request))
            if placement is not None:
                self._send(request, placement)
                return
        seconds = self.fleet.table.max_queue_seconds if self.fleet.table else 0.0
        deadline = self.events.now + seconds
        self._waiting[request] = deadline
        self.events.at(deadline, partial(self._expire, request))

    def _demand_of(self, request: Request) -> Demand:
        """As the router sees it: the answer's length is not known beforehand."""
        reference = self.fleet.table.reference if self.fleet.table else None
        return Demand(streams=True, work=expected_work(request.prompt_tokens, None, reference))

    def _expire(self, request: Request) -> None:
        deadline = self._waiting.get(request)
        if deadline is not None and deadline <= self.events.now:
            del self._waiting[request]
            request.outcome = Outcome.REFUSED
            self.on_done(request)

    def _send(self, request: Request, placement: Placement) -> None:
        pod = self.plant.pods.get(placement.replica.uid)
        if pod is None or pod.ended:  # lost a moment ago, and the router does not know yet
            self._places.give_back(placement)
            self.fleet.book.put_aside(placement.replica, self.events.now)
            request.outcome = Outcome.REFUSED
            self.on_done(request)
            return
        self._placed[request] = placement
        request.tier, request.level = placement.route.key.tier, placement.route.key.level
        request.quality = (placement.route.quality_permille or 0) / 1000
        pod.replica.submit(request)

    def _first_token(self, request: Request) -> None:
        self.counters.ttft.append((request.tier, self.events.now - request.arrival))
        if self._places.note_first_token(self._placed[request]):
            self._serve_waiting()

    def _end(self, request: Request) -> None:
        self._places.give_back(self._placed.pop(request))
        self.counters.note_end(request)
        self.on_done(request)
        self._serve_waiting()

    def _lost(self, request: Request) -> None:
        """Nothing was generated yet: the router repeats it elsewhere."""
        self._places.give_back(self._placed.pop(request))
        self._find_place(request)

    def _follow(self) -> None:
        self._places.follow()
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """All who wait may go to the same places: when the first finds none, nobody does."""
        while self._waiting:
            request = next(iter(self._waiting))
            placement = self._places.take(self._demand_of(request))
            if placement is None:
                return
            del self._waiting[request]
            self._send(request, placement)

    def _see_table(self, table: RoutingTable) -> None:
        self.fleet.offer_table(table)

    def _see_pods(self) -> None:
        replicas: dict[str, list[Replica]] = {}
        for pod in self.plant.pods.values():
            if pod.is_ready:
                replicas.setdefault(pod.tier, []).append(Replica(pod.uid, pod.tier, "", pod.owner))
        self.fleet.offer_endpoints(EndpointSet(_frozen(replicas)))


def _frozen(replicas: Mapping[str, Sequence[Replica]]) -> dict[str, tuple[Replica, ...]]:
    return {tier: tuple(members) for tier, members in replicas.items()}
