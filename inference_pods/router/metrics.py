"""The router's Prometheus metrics, named in protocol.py.

Every label set exists at 0 as soon as a table names its tier: a counter that appears with its first failure hides the
failure from rate(), and "no series" must never look like "no traffic". Deliberately does not know when things happen.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from inference_pods import protocol
from inference_pods.router.admission import Admission
from inference_pods.router.fleet import Fleet
from inference_pods.router.places import RouteReason
from inference_pods.router.table import Route, RouteKey

CLIENT_GONE: Final = 499
UPSTREAM_BROKE: Final = 502
NO_ROUTE: Final = RouteKey("", "")
SERVED_CODES: Final = (200, CLIENT_GONE, UPSTREAM_BROKE)
REJECTED_CODES: Final = (400, 413, 429, 503)
TTFT_BUCKETS: Final = (0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 15, 20, 30, 45, 60, 90)
TPOT_BUCKETS: Final = (
    0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3,
)  # fmt: skip


def _without_suffix(name: str) -> str:
    """prometheus_client adds the _total itself."""
    return name.removesuffix("_total")


class RouterMetrics:
    """All series of one router, in a registry of its own."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._described: set[RouteKey] = set()
        self._registry = registry = CollectorRegistry()
        tier = ["model", "tier", "level"]
        requests = _without_suffix(protocol.ROUTER_REQUESTS)
        quality = _without_suffix(protocol.ROUTER_QUALITY_SUM)
        arrivals = _without_suffix(protocol.ROUTER_ARRIVALS)
        shed, rejected = _without_suffix(protocol.ROUTER_SHED), _without_suffix(protocol.ROUTER_REJECTED)
        self._requests = Counter(requests, "Requests answered, by status", [*tier, "code"], registry=registry)
        self._quality = Counter(quality, "Sum of quality (0..1) of requests answered 200", tier, registry=registry)
        self._ttft = Histogram(
            protocol.ROUTER_TTFT_SECONDS, "Arrival to first token, waiting included", tier, registry=registry,
            buckets=TTFT_BUCKETS,
        )  # fmt: skip
        self._tpot = Histogram(
            protocol.ROUTER_TPOT_SECONDS, "Mean time per output token of a stream", tier, registry=registry,
            buckets=TPOT_BUCKETS,
        )  # fmt: skip
        self._inflight = Gauge(protocol.ROUTER_INFLIGHT, "Requests at engines", tier, registry=registry)
        self._share = Gauge(protocol.ROUTER_SHARE, "Current share of loop F", tier, registry=registry)
        self._ready = Gauge(
            protocol.ROUTER_READY_REPLICAS, "Replicas that get requests", ["model", "tier"], registry=registry
        )
        self._shed = Counter(
            shed, "Requests served by a cheaper tier than the best open one", ["model", "reason"], registry=registry
        )
        self._rejected = Counter(
            rejected, "Requests refused by the router itself", ["model", "code"], registry=registry
        )
        self._arrivals = Counter(arrivals, "Valid inference requests received", ["model"], registry=registry).labels(
            model
        )
        self._held = Gauge(
            protocol.ROUTER_QUEUE_LENGTH, "Requests waiting in the router", ["model"], registry=registry
        ).labels(model)
        self._generation = Gauge(
            protocol.ROUTER_TABLE_GENERATION, "Generation of the routing table in use", ["model"], registry=registry
        ).labels(model)
        for code in REJECTED_CODES:
            self._rejected.labels(model, str(code))
            self._requests.labels(model, "", "", str(code))
        for reason in (RouteReason.SHED, RouteReason.OVERFLOW):
            self._shed.labels(model, reason.value)

    def count_arrival(self) -> None:
        self._arrivals.inc()

    def count_rejected(self, status: int) -> None:
        """A refusal by the router: it also counts as an answered request without a tier."""
        self._rejected.labels(self._model, str(status)).inc()
        self.count_answer(None, status)

    def count_answer(self, route: Route | None, code: int) -> None:
        key = route.key if route else NO_ROUTE
        self._requests.labels(self._model, key.tier, key.level, str(code)).inc()
        if code == 200 and route is not None and route.quality_permille is not None:
            self._quality.labels(self._model, key.tier, key.level).inc(route.quality_permille / 1000)

    def count_shed(self, reason: RouteReason) -> None:
        if reason in (RouteReason.SHED, RouteReason.OVERFLOW):
            self._shed.labels(self._model, reason.value).inc()

    def observe_ttft(self, route: Route, seconds: float) -> None:
        self._ttft.labels(self._model, route.key.tier, route.key.level).observe(seconds)

    def observe_tpot(self, route: Route, seconds: float) -> None:
        self._tpot.labels(self._model, route.key.tier, route.key.level).observe(seconds)

    def follow(self, fleet: Fleet) -> None:
        """Bring the label sets into being for the tiers of a (new) table, and set what describes it."""
        if fleet.table is None:
            return
        self._generation.set(fleet.table.generation)
        self._zero_what_left({lane.key for lane in fleet.lanes})
        for lane in fleet.lanes:
            labels = (self._model, lane.key.tier, lane.key.level)
            for code in SERVED_CODES:
                self._requests.labels(*labels, str(code))
            for family in (self._quality, self._ttft, self._tpot, self._inflight):
                family.labels(*labels)
            self._share.labels(*labels).set(fleet.plan.of(lane.key))
        for tier in fleet.table.tiers():
            replicas = {replica for lane in fleet.lanes if lane.key.tier == tier for replica in lane.replicas}
            self._ready.labels(self._model, tier).set(len(replicas))

    def _zero_what_left(self, keys: set[RouteKey]) -> None:
        """Gauges of a tier that left the table would show their last value for ever."""
        for key in self._described - keys:
            self._share.labels(self._model, key.tier, key.level).set(0)
            self._ready.labels(self._model, key.tier).set(0)
        self._described = keys

    def render(self, admission: Admission) -> bytes:
        """The exposition text; gauges that change with every request are read now."""
        self._held.set(admission.held)
        for key, count in admission.in_flight.items():
            self._inflight.labels(self._model, key.tier, key.level).set(count)
        return generate_latest(self._registry)
