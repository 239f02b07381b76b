"""The engine's Prometheus metrics, present at zero from the start; those by level once the levels are known."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from inference_pods.engine.batch_limit import BatchBound
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.stats import EngineStats
from inference_pods.kernels.step_plans import PlanCounts
from inference_pods.protocol import (
    ENGINE_ACCEPTED_TOKENS,
    ENGINE_BATCH_LIMIT,
    ENGINE_BATCH_LIMIT_BOUND,
    ENGINE_DEADLINES_PASSED,
    ENGINE_DRAFT_TOKENS,
    ENGINE_GENERATED_TOKENS,
    ENGINE_INTEGRITY_FAILURES,
    ENGINE_KERNELS_INFO,
    ENGINE_KV_BLOCKS_TOTAL,
    ENGINE_KV_BLOCKS_USED,
    ENGINE_LEVEL_GENERATED_TOKENS,
    ENGINE_LEVEL_REQUESTS,
    ENGINE_LOAD_SECONDS,
    ENGINE_PLAN_BUILD_SECONDS,
    ENGINE_PLAN_EVICTIONS,
    ENGINE_PLAN_HITS,
    ENGINE_PLAN_MISSES,
    ENGINE_PLAN_UNWARMED,
    ENGINE_PREEMPTIONS,
    ENGINE_PREFIX_HIT_TOKENS,
    ENGINE_PREFIX_MISS_TOKENS,
    ENGINE_PROMPT_TOKENS,
    ENGINE_RUNNING,
    ENGINE_SPECULATION_ACTIVE,
    ENGINE_SPECULATION_GAIN,
    ENGINE_STEP_SECONDS,
    ENGINE_VERIFICATIONS,
    ENGINE_WAITING,
)

_STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LABELS = ("model", "tier")


class EngineMetrics:
    """One registry per engine, so that tests may run several in a process."""

    def __init__(self, model: str, tier: str, kv_blocks: int) -> None:
        self.registry = CollectorRegistry()
        self._labels = labels = (model, tier)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, _LABELS, registry=self.registry).labels(*labels)

        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, _LABELS, registry=self.registry).labels(*labels)

        self.running = gauge(ENGINE_RUNNING, "Sequences in the batch.")
        self.batch_limit = gauge(ENGINE_BATCH_LIMIT, "Sequences that may run at present.")
        bound = Gauge(
            ENGINE_BATCH_LIMIT_BOUND, "1 for what binds the batch limit.", (*_LABELS, "bound"), registry=self.registry
        )
        self._bounds = {one: bound.labels(*labels, one.value) for one in BatchBound}
        self.speculation_active = gauge(ENGINE_SPECULATION_ACTIVE, "1 while a lower level drafts.")
        self.speculation_gain = gauge(
            ENGINE_SPECULATION_GAIN,
            "Time per token without drafts over that with them, at this batch (0: not measured).",
        )
        self.waiting = gauge(ENGINE_WAITING, "Requests waiting for a place in the batch.")
        self.kv_blocks_used = gauge(ENGINE_KV_BLOCKS_USED, "KV cache blocks in use.")
        self.kv_blocks_total = gauge(ENGINE_KV_BLOCKS_TOTAL, "KV cache blocks that exist.")
        self.load_seconds = gauge(ENGINE_LOAD_SECONDS, "Seconds from process start to the first real token.")
        self.prompt_tokens = counter(ENGINE_PROMPT_TOKENS, "Prompt tokens computed, recomputation included.")
        self.generated_tokens = counter(ENGINE_GENERATED_TOKENS, "Tokens generated.")
        self._plan_counters = {
            "hits": counter(ENGINE_PLAN_HITS, "Steps that found their plan."),
            "misses": counter(ENGINE_PLAN_MISSES, "Steps that had to wait for their plan to be built."),
            "unwarmed": counter(ENGINE_PLAN_UNWARMED, "Plans not built before readiness: the cache was full."),
            "evictions": counter(ENGINE_PLAN_EVICTIONS, "Plans dropped because the cache was full."),
            "build_seconds": counter(ENGINE_PLAN_BUILD_SECONDS, "Seconds spent building plans."),
        }
        self._plan_counts = PlanCounts()
        histogram = Histogram(
            ENGINE_STEP_SECONDS, "Seconds per engine step.", _LABELS, buckets=_STEP_BUCKETS, registry=self.registry
        )
        self.step_seconds = histogram.labels(*labels)
        self.kv_blocks_total.set(kv_blocks)
        # Each total of EngineStats by its field, shown as a counter.
        self._totals = {
            "prefix_hit_tokens": counter(
                ENGINE_PREFIX_HIT_TOKENS, "Tokens of admitted requests found in the KV cache."
            ),
            "prefix_miss_tokens": counter(ENGINE_PREFIX_MISS_TOKENS, "Tokens of admitted requests left to compute."),
            "preemptions": counter(ENGINE_PREEMPTIONS, "Sequences that gave their blocks back, to be computed again."),
            "expired": counter(ENGINE_DEADLINES_PASSED, "Requests ended because their deadline passed."),
            "integrity_failures": counter(
                ENGINE_INTEGRITY_FAILURES, "Idle checks that found the KV blocks' books wrong."
            ),
            "draft_tokens": counter(ENGINE_DRAFT_TOKENS, "Tokens drafted by a lower level."),
            "accepted_tokens": counter(ENGINE_ACCEPTED_TOKENS, "Drafted tokens that the top level agreed to."),
            "verifications": counter(ENGINE_VERIFICATIONS, "Drafts checked by the top level."),
        }
        self._kernels = Gauge(
            ENGINE_KERNELS_INFO, "1 for what computes the steps.", (*_LABELS, "kernels"), registry=self.registry
        )
        by_level = (*_LABELS, "level")
        self._level_families = {
            "level_requests": Counter(
                ENGINE_LEVEL_REQUESTS, "Requests begun at a level.", by_level, registry=self.registry
            ),
            "level_tokens": Counter(
                ENGINE_LEVEL_GENERATED_TOKENS, "Tokens generated by a level.", by_level, registry=self.registry
            ),
        }
        self._level_counters: dict[str, list[Counter]] = {name: [] for name in self._level_families}
        self._shown = EngineStats()

    def name_model(self, kernels: str, levels: Sequence[str]) -> None:
        """Begins what can be shown of a loaded model only: what computes it, and counters for each of its levels."""
        self._kernels.labels(*self._labels, kernels).set(1)
        for name, family in self._level_families.items():
            self._level_counters[name] = [family.labels(*self._labels, level) for level in levels]

    def follow(self, scheduler: Scheduler) -> None:
        """Shows the scheduler's present state and totals."""
        self.running.set(len(scheduler.running))
        self.kv_blocks_used.set(scheduler.blocks.used_blocks)
        self.batch_limit.set(scheduler.limit.size)
        for bound, gauge in self._bounds.items():
            gauge.set(bound is scheduler.limit.bound)
        self.speculation_active.set(scheduler.gate.is_active)
        self.speculation_gain.set(scheduler.gate.gain or 0.0)
        for name, counter in self._totals.items():
            total = getattr(scheduler.stats, name)
            counter.inc(total - getattr(self._shown, name))
            setattr(self._shown, name, total)
        for name, counters in self._level_counters.items():
            totals, shown = getattr(scheduler.stats, name), getattr(self._shown, name)
            for level, counter in enumerate(counters):
                counter.inc(totals[level] - shown[level])
                shown[level] = totals[level]

    def follow_plans(self, counts: PlanCounts) -> None:
        """Raises the plan counters to what the decoder's cache has counted by now."""
        for field, counter in self._plan_counters.items():
            counted = getattr(counts, field)
            counter.inc(counted - getattr(self._plan_counts, field))
            setattr(self._plan_counts, field, counted)

    def render(self) -> bytes:
        return generate_latest(self.registry)
