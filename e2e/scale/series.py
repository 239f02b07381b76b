"""The series of all emulated pods, as Prometheus would have scraped them from each: those that the operator reads.

Labels `namespace` and `pod` are the series' own here, so the scrape job needs `honor_labels: true`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from e2e.scale.fluid import Flow, FluidModel
from inference_pods import protocol
from inference_pods.router.metrics import TPOT_BUCKETS, TTFT_BUCKETS

_MODEL = ("namespace", "pod", "model")
_TIER = (*_MODEL, "tier")
_ROUTE = (*_TIER, "level")


@dataclass(frozen=True, slots=True)
class ReadyPods:
    """The ready pods of one model: routers, and engines by tier."""

    routers: Sequence[str]
    engines: Mapping[str, Sequence[str]]


@dataclass(slots=True)
class Times:
    """A histogram's counts; all requests of an interval take the interval's mean."""

    bounds: Sequence[float]
    counts: list[float] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0.0] * (len(self.bounds) + 1)

    def observe(self, seconds: float, requests: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += requests
        self.total += seconds * requests

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as the exposition has them."""
        names = [*(str(float(bound)) for bound in self.bounds), "+Inf"]
        return [(name, sum(self.counts[: i + 1])) for i, name in enumerate(names)]


@dataclass(slots=True)
class _Route:
    """Counters of one tier in one router."""

    served: float = 0.0
    quality: float = 0.0
    ttft: Times = field(default_factory=lambda: Times(TTFT_BUCKETS))
    tpot: Times = field(default_factory=lambda: Times(TPOT_BUCKETS))


@dataclass(slots=True)
class _Router:
    """Counters of one router pod; a new pod begins at zero."""

    arrivals: float = 0.0
    refused: float = 0.0
    routes: dict[str, _Route] = field(default_factory=dict)


class ModelSeries:
    """The series of one model's pods, advanced interval by interval."""

    def __init__(self, namespace: str, name: str, fluid: FluidModel) -> None:
        self.namespace, self.name, self.fluid = namespace, name, fluid
        self._pods = ReadyPods((), {})
        self._routers: dict[str, _Router] = {}
        self._flows: dict[str, Flow] = {}

    def advance(self, seconds: float, requests_per_second: float, pods: ReadyPods) -> None:
        """Counts an interval of steady load on the pods that are ready now."""
        self._pods = pods
        self._routers = {pod: self._routers.get(pod, _Router()) for pod in pods.routers}
        for router in self._routers.values():
            for tier in self.fluid.tiers:
                router.routes.setdefault(tier.name, _Route())
        if not pods.routers:
            self._flows = {}
            return  # nobody would count the requests
        arrived = requests_per_second * seconds
        self._flows = self.fluid.advance(seconds, arrived, {tier: len(names) for tier, names in pods.engines.items()})
        for router in self._routers.values():
            self._count(router, arrived, 1 / len(pods.routers))

    def _count(self, router: _Router, arrived: float, share: float) -> None:
        router.arrivals += arrived * share
        router.refused += self.fluid.refused * share
        for tier in self.fluid.tiers:
            if flow := self._flows.get(tier.name):
                route, served = router.routes[tier.name], flow.served * share
                route.served += served
                route.quality += served * tier.quality
                route.ttft.observe(flow.ttft_seconds, served)
                route.tpot.observe(flow.tpot_seconds, served)

    def write(self, families: Families) -> None:
        """Adds this model's samples to the families."""
        queue = self.fluid.waiting / max(1, len(self._routers))
        for pod, router in self._routers.items():
            model = (self.namespace, pod, self.name)
            families.arrivals.add_metric(model, router.arrivals)
            families.queue.add_metric(model, queue)
            families.requests.add_metric((*model, "", "", "429"), router.refused)
            for tier in self.fluid.tiers:
                route, labels = router.routes[tier.name], (*model, tier.name, tier.level)
                families.requests.add_metric((*labels, "200"), route.served)
                families.quality.add_metric(labels, route.quality)
                families.ttft.add_metric(labels, route.ttft.buckets(), route.ttft.total)
                families.tpot.add_metric(labels, route.tpot.buckets(), route.tpot.total)
        for name, engines in self._pods.engines.items():
            running = self._flows.get(name, Flow()).running
            for pod in engines:
                families.running.add_metric((self.namespace, pod, self.name, name), running)
                families.waiting.add_metric((self.namespace, pod, self.name, name), 0.0)


@dataclass(slots=True)
class Families:
    """One scrape's metric families."""

    arrivals: CounterMetricFamily = field(
        default_factory=lambda: CounterMetricFamily(protocol.ROUTER_ARRIVALS, "Requests received", labels=_MODEL)
    )
    queue: GaugeMetricFamily = field(
        default_factory=lambda: GaugeMetricFamily(protocol.ROUTER_QUEUE_LENGTH, "Requests waiting", labels=_MODEL)
    )
    requests: CounterMetricFamily = field(
        default_factory=lambda: CounterMetricFamily(
            protocol.ROUTER_REQUESTS, "Requests answered, by status", labels=(*_ROUTE, "code")
        )
    )
    quality: CounterMetricFamily = field(
        default_factory=lambda: CounterMetricFamily(protocol.ROUTER_QUALITY_SUM, "Sum of quality", labels=_ROUTE)
    )
    ttft: HistogramMetricFamily = field(
        default_factory=lambda: HistogramMetricFamily(
            protocol.ROUTER_TTFT_SECONDS, "Time to first token", labels=_ROUTE
        )
    )
    tpot: HistogramMetricFamily = field(
        default_factory=lambda: HistogramMetricFamily(
            protocol.ROUTER_TPOT_SECONDS, "Time per output token", labels=_ROUTE
        )
    )
    running: GaugeMetricFamily = field(
        default_factory=lambda: GaugeMetricFamily(protocol.ENGINE_RUNNING, "Sequences in the batch", labels=_TIER)
    )
    waiting: GaugeMetricFamily = field(
        default_factory=lambda: GaugeMetricFamily(protocol.ENGINE_WAITING, "Requests that wait", labels=_TIER)
    )

    def __iter__(self) -> Iterator[Metric]:
        yield from (self.arrivals, self.queue, self.requests, self.quality)
        yield from (self.ttft, self.tpot, self.running, self.waiting)
