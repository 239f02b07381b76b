"""One replica under a stream of requests, and what queueing theory says of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable

from adaptive_operator.simulate.curve import StepCurve, linear_points
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.replica import Replica
from adaptive_operator.simulate.requests import Request

NOTHING: Callable[[Request], None] = lambda request: None  # noqa: E731


def make_curve(**changes: object) -> StepCurve:
    """An 8B-like engine: prefill 10 ms + .05 ms per token, step 6.973 ms + .027 ms per sequence, 64 sequences."""
    values: dict[str, object] = {
        "prefill_seconds": 0.010,
        "prefill_seconds_per_token": 0.00005,
        "points": linear_points(0.006973, 0.000027, 64),
        "kv_tokens": 400_000,
        "max_sequences": 64,
    }
    return StepCurve(**{**values, **changes})  # type: ignore[arg-type]


def serve(curve: StepCurve, rows: Iterable[tuple[float, int, int]], patience: float = math.inf) -> list[Request]:
    """Requests (arrival, prompt, output) served by one replica to the end."""
    events = EventQueue()
    replica = Replica(curve, events, NOTHING, NOTHING, patience)
    requests = [Request(*row) for row in rows]
    for request in requests:
        events.at(request.arrival, lambda request=request: replica.submit(request))
    events.run_until(1e9)
    return requests


def batch_means(values: list[float], batches: int = 20) -> tuple[float, float]:
    """Mean and half-width of its 99 % confidence interval, from batch means: waits that follow each other depend on
    each other. 2.861: Student's t with 19 degrees of freedom."""
    size = len(values) // batches
    means = [statistics.fmean(values[i * size : (i + 1) * size]) for i in range(batches)]
    return statistics.fmean(means), 2.861 * statistics.stdev(means) / math.sqrt(batches)
