"""One model of a run put together: clock, pods, router, scrapes, and what is written down. Knows no policy.

A policy gets the world, listens to it and changes its pods; it must read load only from scrapes, or from what its
real counterpart measures itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from adaptive_operator.observe.queries import Windows
from adaptive_operator.simulate.dispatch import Dispatcher
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.failing_loads import FailingLoads
from adaptive_operator.simulate.plant import Accelerators, Plant
from adaptive_operator.simulate.requests import Request, TraceRow
from adaptive_operator.simulate.scenario import Scenario
from adaptive_operator.simulate.scrapes import FaultAt, Scraper
from inference_pods.router.table import Route, RouteKey, RoutingTable

SAMPLE_SECONDS: Final = 10.0
_OPEN: Final = 1e-3  # weight of a route that is there to shed onto


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of the world at one moment, for plots. Replicas and shares by tier."""

    at: float
    ready: Mapping[str, int]
    held: int
    queue: int  # in the router
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Change:
    """The wanted replicas from `at` (seconds) on, and why."""

    at: float
    replicas: Mapping[str, int]
    reason: str


@dataclass(slots=True)
class World:
    """Everything of one model in one run. Those of a pool have a world each, with one clock and shared accelerators."""

    scenario: Scenario
    scrape_seconds: float = 15.0
    fault_at: FaultAt = lambda now: None
    events: EventQueue = field(default_factory=EventQueue)
    shared: Accelerators | None = None  # with other models; None: alone with the scenario's budget
    failing_loads: tuple[FailingLoads, ...] = ()
    requests: list[Request] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    plan_seconds: list[float] = field(default_factory=list)
    on_change: list[Callable[[], None]] = field(default_factory=list)  # pods became ready, leave or are gone
    plant: Plant = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    scraper: Scraper = field(init=False)

    def __post_init__(self) -> None:
        """Connect the parts."""
        shared = self.shared or Accelerators(self.scenario.budget, surge=self.scenario.surge)
        self.plant = Plant(
            self.events, self.scenario, shared, on_change=self._pods_changed, failing_loads=self.failing_loads
        )
        self.dispatcher = Dispatcher(self.events, self.plant)
        windows = Windows(self.scrape_seconds)
        self.scraper = Scraper(
            self.events, self.plant, self.dispatcher, windows, self.scenario.name, fault_at=self.fault_at
        )

    def start(self, trace: tuple[TraceRow, ...]) -> None:
        """Begin the loops and let the requests of the trace arrive."""
        self.scraper.start()
        self.dispatcher.start()
        self._sample()
        self._feed(trace, 0)

    def note_change(self, replicas: Mapping[str, int], reason: str) -> None:
        """Write down what is wanted, if that is another mix than before."""
        mix = {tier: count for tier, count in replicas.items() if count > 0}
        if not self.changes or self.changes[-1].replicas != mix:
            self.changes.append(Change(self.events.now, mix, reason))

    def ready(self) -> dict[str, int]:
        """Replicas that serve, by tier."""
        counts: dict[str, int] = {}
        for pod in self.plant.pods.values():
            if pod.is_ready:
                counts[pod.tier] = counts.get(pod.tier, 0) + 1
        return counts

    def _feed(self, trace: tuple[TraceRow, ...], index: int) -> None:
        """One arrival, and the next one's time: the queue of events stays short."""
        if index >= len(trace):
            return
        row = trace[index]
        self.events.at(max(row.arrival, self.events.now), partial(self._arrive, trace, index))

    def _arrive(self, trace: tuple[TraceRow, ...], index: int) -> None:
        row = trace[index]
        request = Request(self.events.now, row.prompt_tokens, row.output_tokens)
        self.requests.append(request)
        self.dispatcher.arrive(request)
        self._feed(trace, index + 1)

    def _pods_changed(self) -> None:
        self.dispatcher.follow_pods()
        for listener in self.on_change:
            listener()

    def _sample(self) -> None:
        state = Sample(
            self.events.now, self.ready(), self.plant.held, self.dispatcher.held, dict(self.dispatcher.shares)
        )
        self.samples.append(state)
        self.events.after(SAMPLE_SECONDS, self._sample)


def fixed_table(scenario: Scenario, tiers: tuple[str, ...]) -> RoutingTable:
    """The routing table of a policy without a planner: these tiers, best first, all open; the fast loop does the rest.

    In-flight limits come from the reference request of the cards, as in the operator's own table.
    """
    outputs = [t.card.reference_output_tokens for t in scenario.spec.tiers if t.card is not None]
    output = next((tokens for tokens in outputs if tokens is not None), None)
    routes = tuple(
        Route(
            RouteKey(tier.name, tier.top_level),
            tier.quality_permille,
            tier.rate,
            1.0,
            _OPEN if i else 1.0,
            0.0,
        )
        for i, tier in enumerate(tier for tier in scenario.tiers if tier.name in tiers)
    )
    return RoutingTable(
        epoch=1,
        generation=1,
        model=scenario.name,
        floor_permille=scenario.spec.quality.floor_permille,
        latency_seconds=None if output is None else scenario.ttft_seconds + output * scenario.tpot_seconds,
        ttft_seconds=scenario.ttft_seconds,
        max_queue_seconds=float(scenario.spec.routing.max_queue_seconds),
        routes=routes,
        draining=frozenset(),
        revisions={},
    )
