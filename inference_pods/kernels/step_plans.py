"""Step plans: what a decoder prepares once per shape bucket and reuses, in a bounded cache.

A plan is the decoder's own business: input buffers for the compiled CPU step, a captured graph on a GPU. Knows no
tensors, only shapes; one thread uses a cache, others may read its counts.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

PlanT = TypeVar("PlanT")

DEFAULT_CAPACITY = 32  # the buckets of a step of 64 rows and 8 outputs, and as many again


class Backend(StrEnum):
    """How a torch decoder specialises its decoding steps; the compiled decoder has plans of another kind."""

    EAGER = "eager"
    COMPILE = "compile"
    CUDA_GRAPH = "cuda-graph"


@dataclass(frozen=True, slots=True)
class PlanKey:
    """A bucket of step shapes: up to `rows` tokens, of which up to `outputs` get scores, run at one level."""

    rows: int
    outputs: int
    level: int = 0


@dataclass(slots=True)
class PlanCounts:
    """What a cache did so far. Plans built ahead of need count as built, not as missed."""

    hits: int = 0
    misses: int = 0
    unwarmed: int = 0  # left out when building ahead, because the cache was full
    evictions: int = 0
    build_seconds: float = 0.0


def round_up_to_bucket(count: int, limit: int) -> int:
    """The smallest power of two that is not below `count`, at most `limit`; 0 stays 0.

    With a limit of 48: 1 -> 1, 3 -> 4, 33 -> 48. Padding costs a graph at most half its rows, and nothing on a device
    that is bound by reading the weights.
    """
    if count > limit:
        raise ValueError(f"{count} exceeds the limit of {limit}")
    return 0 if count == 0 else min(limit, 1 << (count - 1).bit_length())


class PlanCache(Generic[PlanT]):
    """Plans by bucket, the least recently used one dropped beyond `capacity`.

    `build` gets a bucket and returns its plan; what it raises passes through, and nothing is stored then.
    """

    def __init__(
        self, build: Callable[[PlanKey], PlanT], max_rows: int, max_outputs: int, capacity: int = DEFAULT_CAPACITY
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a plan cache of {capacity} plans holds nothing: at least 1 is needed")
        self._build = build
        self._max_rows, self._max_outputs, self._capacity = max_rows, max_outputs, capacity
        self._plans: OrderedDict[PlanKey, PlanT] = OrderedDict()
        self.counts = PlanCounts()

    def __len__(self) -> int:
        return len(self._plans)

    def bucket(self, rows: int, outputs: int, level: int = 0) -> PlanKey:
        """The bucket of a step.

        Raises:
            ValueError: the step is larger than the decoder reserved for.
        """
        return PlanKey(round_up_to_bucket(rows, self._max_rows), round_up_to_bucket(outputs, self._max_outputs), level)

    def get(self, rows: int, outputs: int, level: int = 0) -> PlanT:
        """The plan for a step of this shape, built if it isn't there."""
        key = self.bucket(rows, outputs, level)
        plan = self._plans.get(key)
        if plan is not None:
            self.counts.hits += 1
            self._plans.move_to_end(key)
            return plan
        self.counts.misses += 1
        return self._add(key)

    def warm(self, keys: Iterable[PlanKey]) -> None:
        """Builds plans ahead of need, the first ones as far as the cache can hold them; counts those left out.

        The first are also the last to be dropped, as long as none is used.
        """
        missing = [key for key in dict.fromkeys(keys) if key not in self._plans]
        room = self._capacity - len(self._plans)
        for key in missing[:room]:
            self._add(key)
        for key in reversed(missing[:room]):
            self._plans.move_to_end(key)
        self.counts.unwarmed += len(missing[room:])

    def clear(self) -> None:
        """Drops all plans, and with them what they hold."""
        self._plans.clear()

    def _add(self, key: PlanKey) -> PlanT:
        started = time.perf_counter()
        plan = self._build(key)
        self.counts.build_seconds += time.perf_counter() - started
        self._plans[key] = plan
        if len(self._plans) > self._capacity:
            self._plans.popitem(last=False)
            self.counts.evictions += 1
        return plan


def decoding_buckets(max_rows: int, max_sequences: int, levels: int) -> list[PlanKey]:
    """Buckets of decoding at each batch size up to `max_sequences` and each level, the largest batches first.

    The one that is left out stalls a batch while its plan is built: better a small one.
    """
    sizes = {round_up_to_bucket(count, max_rows) for count in range(1, min(max_rows, max_sequences) + 1)}
    return [PlanKey(size, size, level) for size in sorted(sizes, reverse=True) for level in range(levels)]


def common_buckets(max_rows: int, max_outputs: int, levels: int = 1) -> list[PlanKey]:
    """Buckets that every load meets, most common first: decoding at each batch size, then a full prompt chunk alone,
    with its last token scored, and beside a full batch."""
    sizes = sorted({round_up_to_bucket(count, max_outputs) for count in range(1, max_outputs + 1)})
    shapes = [(size, size) for size in sizes if size <= max_rows]
    shapes += [(max_rows, outputs) for outputs in (0, 1, max_outputs)]
    return list(dict.fromkeys(PlanKey(rows, outputs, level) for rows, outputs in shapes for level in range(levels)))
