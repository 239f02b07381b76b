"""The pods of a simulated cluster: they load, serve, drain, end slowly, and hold their accelerators all the while.

Every creation is checked against the budget, Terminating pods counted: a policy that passes it is wrong, whatever its
other figures. A node that is lost takes its pods along; a load may fail. Knows neither routers nor who decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from adaptive_operator.simulate.container import Container
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.failing_loads import FailingLoads, Failure, find_failure
from adaptive_operator.simulate.replica import Replica
from adaptive_operator.simulate.requests import Outcome, Request
from adaptive_operator.simulate.scenario import Scenario

GONE_SECONDS: Final = 5.0  # from the end of a pod's last container until its accelerators are free
SETTLE_SECONDS: Final = 2.0  # a pod that is told to end lives so long at least: routers may not know yet
PATIENCE_FACTOR: Final = 10.0  # clients give up after this many times the TTFT objective


class BudgetError(AssertionError):
    """More accelerators would be held than there are."""


@dataclass(slots=True)
class Accelerators:
    """What all models of a pool share. `lost`: on nodes that are away; `surge`: there beyond the total, for swaps.

    `on_change` is called when some become free.
    """

    total: int
    lost: int = 0
    most: int = 0  # held at any moment
    plants: list[Plant] = field(default_factory=list)
    on_change: list[Callable[[], None]] = field(default_factory=list)
    surge: int = 0

    @property
    def held(self) -> int:
        """By pods that exist, whether they run or wait for a node."""
        return sum(plant.held for plant in self.plants)

    @property
    def placed(self) -> int:
        """By pods that are on a node."""
        return sum(pod.accelerators for plant in self.plants for pod in plant.pods.values() if pod.is_placed)

    @property
    def available(self) -> int:
        """On the nodes that are there, without the surge."""
        return max(self.total - self.lost, 0)

    @property
    def on_nodes(self) -> int:
        """On the nodes that are there."""
        return max(self.total + self.surge - self.lost, 0)

    def fits(self, accelerators: int) -> bool:
        """Could a pod of so many be made and placed now?"""
        return self.held + accelerators <= self.available

    def lose(self, accelerators: int) -> None:
        """A node is gone with the pods that ran there: the oldest ones, for what is lost is what was in use."""
        self.lost += accelerators
        pods = sorted(
            ((plant, pod) for plant in self.plants for pod in plant.pods.values() if pod.scheduled_at is not None),
            key=lambda item: item[1].created_at,
        )
        for plant, pod in pods:
            if accelerators <= 0:
                break
            accelerators -= pod.accelerators
            plant.lose(pod)
        self.changed()

    def give_back(self, accelerators: int) -> None:
        """A node is there again."""
        self.lost = max(self.lost - accelerators, 0)
        self.changed()

    def changed(self) -> None:
        """Place pods that wait for a node, then tell everybody."""
        for plant in self.plants:
            plant.schedule_waiting()
        for listener in self.on_change:
            listener()


@dataclass(slots=True, eq=False)
class Pod:
    """One replica. Times in seconds, None: not yet."""

    uid: str
    name: str
    tier: str
    accelerators: int
    created_at: float
    replica: Replica
    scheduled_at: float | None = None  # on a node; None: no node has room
    ready_at: float | None = None
    terminating_at: float | None = None
    owner: str = ""  # the StatefulSet that made it
    ordinal: int = 0
    ended: bool = False  # nothing runs in it any more; gone soon
    container: Container | None = None  # None: no node yet

    @property
    def is_ready(self) -> bool:
        """Does it get new requests?"""
        return self.ready_at is not None and self.terminating_at is None

    @property
    def is_placed(self) -> bool:
        """Is it on a node?"""
        return self.scheduled_at is not None

    @property
    def is_waiting(self) -> bool:
        """Is it to stay, and has no node yet?"""
        return self.scheduled_at is None and self.terminating_at is None

    @property
    def work(self) -> int:
        """Requests inside, running and waiting."""
        return self.replica.running + self.replica.waiting


@dataclass(slots=True)
class Ledger:
    """What was held: integrals over time in accelerator-seconds, the most at any moment, and pods started."""

    most: int = 0
    held_seconds: float = 0.0
    not_ready_seconds: float = 0.0
    starts: int = 0


@dataclass(slots=True)
class Plant:
    """All pods. `on_change` is called when a pod is ready, fails to load, leaves, or is gone.

    `on_loss` is called with each request that such a pod dropped.
    """

    events: EventQueue
    scenario: Scenario
    shared: Accelerators = field(default_factory=lambda: Accelerators(0))  # set to the scenario's own when not given
    on_first_token: Callable[[Request], None] = lambda request: None
    on_end: Callable[[Request], None] = lambda request: None
    on_loss: Callable[[Request], None] = lambda request: None
    on_change: Callable[[], None] = lambda: None
    failing_loads: tuple[FailingLoads, ...] = ()
    pods: dict[str, Pod] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    _serial: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _seen_at: float = 0.0

    def __post_init__(self) -> None:
        """Take part in the pool."""
        if not self.shared.total:
            self.shared = Accelerators(self.scenario.budget, surge=self.scenario.surge)
        self.shared.plants.append(self)

    @property
    def held(self) -> int:
        """Accelerators of all pods of this model that exist."""
        return sum(pod.accelerators for pod in self.pods.values())

    def of_tier(self, tier: str) -> list[Pod]:
        """Its pods that are to stay, oldest first."""
        return [pod for pod in self.pods.values() if pod.tier == tier and pod.terminating_at is None]

    def create(self, tier: str, name: str = "", owner: str = "", ordinal: int = 0) -> Pod:
        """A pod that begins to load a moment later, or waits while a lost node leaves no room. Raises BudgetError."""
        model = self.scenario.tier(tier)
        most = self.shared.total + self.shared.surge
        if self.shared.held + model.accelerators > most:
            raise BudgetError(f"a pod of {tier} at {self.events.now:.1f} s would pass {most} accelerators")
        self._account()
        uid = f"{self.scenario.name}-pod-{next(self._serial)}"
        patience = PATIENCE_FACTOR * self.scenario.ttft_seconds
        end, levels = partial(self._end, uid), {level.name: level.curve for level in model.levels}
        pod = Pod(
            uid=uid,
            name=name or uid,
            tier=tier,
            accelerators=model.accelerators,
            created_at=self.events.now,
            replica=Replica(model.curve, self.events, self.on_first_token, end, patience, levels),
            owner=owner,
            ordinal=ordinal,
        )
        self.pods[uid] = pod
        self.ledger.starts += 1
        self.ledger.most = max(self.ledger.most, self.held)
        self.shared.most = max(self.shared.most, self.shared.held)
        self.schedule_waiting()
        return pod

    def schedule_waiting(self) -> None:
        """Place the pods that no node had room for, oldest first."""
        for pod in self.pods.values():
            if pod.is_waiting and self.shared.placed + pod.accelerators <= self.shared.on_nodes:
                pod.scheduled_at = self.events.now
                pod.container = Container(self.events.now + self.scenario.scheduling_seconds)
                self._load(pod, pod.container)

    def lose(self, pod: Pod) -> None:
        """Its node is gone: answers are cut, what has no first token is sent elsewhere, its accelerators are gone."""
        self._account()
        del self.pods[pod.uid]
        if not pod.ended:
            pod.ended = True
            self._drop(pod)
        self.on_change()

    def terminate(self, pod: Pod, grace_seconds: float) -> None:
        """No new requests from now on; what runs may end within the grace, what waits goes elsewhere at its end."""
        if pod.terminating_at is not None:
            return
        self._account()
        pod.terminating_at = self.events.now
        if not pod.is_placed:  # nothing runs: it is gone at once
            pod.ended = True
            self.events.after(0.0, partial(self._vanish, pod))
            self.on_change()
            return
        self.events.after(SETTLE_SECONDS, partial(self._stop_if_idle, pod))
        self.events.after(max(grace_seconds, SETTLE_SECONDS), partial(self._stop, pod))
        self.on_change()

    def close(self) -> Ledger:
        """The ledger up to now."""
        self._account()
        return self.ledger

    def _load(self, pod: Pod, container: Container) -> None:
        """Let the life of the container that begins next load its weights."""
        seconds = self.scenario.tier(pod.tier).load_seconds
        self.events.at(container.began_at + seconds, partial(self._end_load, pod, container))

    def _end_load(self, pod: Pod, container: Container) -> None:
        if pod.terminating_at is not None or pod.uid not in self.pods:
            return
        now = self.events.now
        failure = find_failure(self.failing_loads, pod.tier, pod.uid, container.restarts, now)
        if failure is None:
            self._account()
            pod.ready_at = now
        elif failure is not Failure.HANGS:
            container.crash(now, failure)
            self._load(pod, container)
        self.on_change()

    def _end(self, uid: str, request: Request) -> None:
        self.on_end(request)
        pod = self.pods.get(uid)
        if pod is not None and pod.terminating_at is not None:
            # The engine is in the middle of its turn: look when it is over.
            self.events.after(0.0, partial(self._stop_if_idle, pod))

    def _stop_if_idle(self, pod: Pod) -> None:
        since = self.events.now if pod.terminating_at is None else pod.terminating_at
        if pod.work == 0 and self.events.now >= since + SETTLE_SECONDS:
            self._stop(pod)

    def _stop(self, pod: Pod) -> None:
        """The containers end: answers are cut, what has no first token yet is sent elsewhere."""
        if pod.ended:
            return
        pod.ended = True
        self._drop(pod)
        self.events.after(GONE_SECONDS, partial(self._vanish, pod))

    def _drop(self, pod: Pod) -> None:
        unanswered, cut = pod.replica.drop_all()
        for request in cut:
            request.outcome = Outcome.CUT
            self.on_end(request)
        for request in unanswered:
            self.on_loss(request)

    def _vanish(self, pod: Pod) -> None:
        if pod.uid in self.pods:  # else its node was lost meanwhile
            self._account()
            del self.pods[pod.uid]
            self.on_change()
            self.shared.changed()

    def _account(self) -> None:
        """Book what was held since the last change."""
        seconds, self._seen_at = self.events.now - self._seen_at, self.events.now
        self.ledger.held_seconds += seconds * self.held
        waste = sum(pod.accelerators for pod in self.pods.values() if not pod.is_ready)
        self.ledger.not_ready_seconds += seconds * waste
