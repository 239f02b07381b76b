"""The operator's own Prometheus metrics. Names are part of the contract with dashboards and alerts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from adaptive_operator.decide.decision import Decision
from adaptive_operator.observe.holding import held_accelerators
from adaptive_operator.observe.observation import ModelMetrics, PoolObservation, Reading, Sample
from adaptive_operator.observe.queries import QueryName
from adaptive_operator.observe.readings import Cause

_PASS_BUCKETS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SOLVER_BUCKETS: Final = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_BY_MODEL: Final = ("namespace", "model")
_BY_POOL: Final = ("resource", "pool")  # pool is empty for the models that name none


class OperatorMetrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self, is_leading: Callable[[], bool] = lambda: False) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series per counter, of use to nobody
        self.registry = CollectorRegistry()
        self._decisions = Counter(
            "adaptive_operator_decision",
            "Decisions, one per model and pass, by reason.",
            (*_BY_MODEL, "reason"),
            registry=self.registry,
        )
        self._flaps = Counter(
            "adaptive_operator_flaps",
            "Mixes of replicas that came back after another one of less than five minutes, or five load times.",
            _BY_MODEL,
            registry=self.registry,
        )
        self._pass_seconds = Histogram(
            "adaptive_operator_pass_seconds",
            "Duration of one pass over all pools, applying included.",
            buckets=_PASS_BUCKETS,
            registry=self.registry,
        )
        self._sample_age = Gauge(
            "adaptive_operator_sample_age_seconds",
            "Age of the scrape behind a reading; absent while the reading is unknown.",
            (*_BY_MODEL, "query"),
            registry=self.registry,
        )
        self._card_factor = Gauge(
            "adaptive_operator_card_factor",
            "What is planned with of a tier's card, by what its replicas were seen to answer; 1 as declared.",
            (*_BY_MODEL, "tier"),
            registry=self.registry,
        )
        self._held = Gauge(
            "adaptive_operator_budget_held",
            "Accelerators held: pods that exist and replicas that are asked for.",
            _BY_POOL,
            registry=self.registry,
        )
        self._total = Gauge(
            "adaptive_operator_budget_total", "Accelerators that may be held.", _BY_POOL, registry=self.registry
        )
        self._rejected = Counter(
            "adaptive_operator_rejected_samples",
            "Samples that cannot be true and were not used.",
            ("query", "cause"),
            registry=self.registry,
        )
        self._failed = Counter(
            "adaptive_operator_failed_passes",
            "Passes that ended with an error, by its kind.",
            ("error",),
            registry=self.registry,
        )
        self._solver_failures = Counter(
            "adaptive_operator_solver_failures",
            "Programs of pools without a plan to trust: TimedOut (no answer in time), Failed (none for another cause),"
            " Unsolved (stopped too far from the best).",
            ("cause",),
            registry=self.registry,
        )
        for cause in ("TimedOut", "Failed", "Unsolved"):
            self._solver_failures.labels(cause)
        self._solver_seconds = Histogram(
            "adaptive_operator_solver_seconds",
            "Time until a pool's program had its answer, the way to the solver's process included, by method.",
            ("method",),
            buckets=_SOLVER_BUCKETS,
            registry=self.registry,
        )
        self._outdated_plans = Counter(
            "adaptive_operator_outdated_plans",
            "Passes of a model that ended before a replica was taken away, because the readings had grown too old.",
            registry=self.registry,
        )
        leader = Gauge("adaptive_operator_leader", "1 while this process holds the Lease.", registry=self.registry)
        leader.set_function(lambda: float(is_leading()))
        self._models: set[tuple[str, str]] = set()
        self._tiers: dict[tuple[str, str], set[str]] = {}  # by model: those with a factor
        self._pools: set[tuple[str, str]] = set()
        for query in QueryName:
            for cause in Cause:
                self._rejected.labels(query, cause)

    def count_rejected(self, query: QueryName, cause: Cause) -> None:
        """One sample was rejected."""
        self._rejected.labels(query, cause).inc()

    def count_failure(self, error: BaseException) -> None:
        """A pass, of all or of one model, ended with this error."""
        self._failed.labels(type(error).__name__).inc()

    def count_solver_failure(self, cause: str) -> None:
        """A pool's program has no trustworthy plan."""
        self._solver_failures.labels(cause).inc()

    def note_solved(self, method: str, seconds: float) -> None:
        """A pool's program was answered; `method` as in `Method`."""
        self._solver_seconds.labels(method).observe(seconds)

    def count_outdated_plan(self) -> None:
        """A model's pass ended, because its readings grew too old for the next step."""
        self._outdated_plans.inc()

    def note_pass(self, seconds: float) -> None:
        """A pass finished."""
        self._pass_seconds.observe(seconds)

    def note_decision(self, namespace: str, model: str, decision: Decision) -> None:
        """A decision was made."""
        self._decisions.labels(namespace, model, decision.reason).inc()
        tiers = set(decision.replicas)
        for tier in tiers:
            self._card_factor.labels(namespace, model, tier).set(decision.factors.get(tier, 1.0))
        for tier in self._tiers.get((namespace, model), set()) - tiers:
            self._card_factor.remove(namespace, model, tier)
        self._tiers[namespace, model] = tiers

    def note_flap(self, namespace: str, model: str, is_flap: bool) -> None:
        """A mix was decided on; the counter is there from the first one on."""
        self._flaps.labels(namespace, model).inc(is_flap)

    def note_pool(self, pool: PoolObservation, held_by_others: int) -> None:
        """What one pool holds, and how old its readings are."""
        self._held.labels(pool.resource, pool.name).set(sum(held_accelerators(m) for m in pool.models) + held_by_others)
        self._total.labels(pool.resource, pool.name).set(pool.budget + held_by_others)
        for model in pool.models:
            for query, reading in _readings(model.metrics).items():
                self._note_age(model.namespace, model.name, query, reading)

    def keep_models(self, models: Collection[tuple[str, str]]) -> None:
        """Drop the series of models that are gone."""
        for namespace, model in self._models - set(models):
            for metric in (self._decisions, self._flaps, self._sample_age, self._card_factor):
                metric.remove_by_labels({"namespace": namespace, "model": model})
            self._tiers.pop((namespace, model), None)
        self._models = set(models)

    def keep_pools(self, pools: Collection[tuple[str, str]]) -> None:
        """Drop the series of pools (resource and name) that are gone."""
        for resource, pool in self._pools - set(pools):
            for metric in (self._held, self._total):
                metric.remove_by_labels({"resource": resource, "pool": pool})
        self._pools = set(pools)

    def _note_age(self, namespace: str, model: str, query: QueryName, reading: Reading) -> None:
        if isinstance(reading, Sample):
            self._sample_age.labels(namespace, model, query).set(reading.age_seconds)
        else:
            self._sample_age.remove(namespace, model, query)  # by position: by name it looks through all series


def _readings(metrics: ModelMetrics) -> Mapping[QueryName, Reading]:
    return {
        QueryName.ARRIVALS: metrics.arrivals,
        QueryName.RECENT_ARRIVALS: metrics.recent_arrivals,
        QueryName.PEAK_ARRIVALS: metrics.peak_arrivals,
        QueryName.ROUTER_QUEUE: metrics.queue,
        QueryName.TTFT_P95: metrics.ttft_p95_seconds,
        QueryName.TPOT_P95: metrics.tpot_p95_seconds,
        QueryName.SERVED_QUALITY: metrics.served_quality_permille,
    }
