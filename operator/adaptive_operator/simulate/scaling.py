"""More or less of the same load, without squeezing time: a trace compressed 8 times would end before anything loads."""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from typing import Final

from adaptive_operator.simulate.requests import TraceRow

_SHIFT_SECONDS: Final = 5.0
_NEIGHBOUR_SECONDS: Final = 60.0


def scale_trace(trace: Sequence[TraceRow], factor: float, seed: int, resample: bool = False) -> tuple[TraceRow, ...]:
    """`factor` copies of the trace (a fraction of one by chance), by time.

    The first copy stays as it is; each request of a further one is shifted by up to 5 s and takes the lengths of a
    request within 60 s, so that copies do not arrive in step. Example: factor 2.5 keeps all requests, adds a copy of
    each, and of every second one another. With `resample` no copy stays as it is, so that every seed differs. Raises
    ValueError for a factor that is not positive.
    """
    if factor <= 0:
        raise ValueError(f"a trace cannot be scaled by {factor}")
    rng = random.Random(seed)  # noqa: S311 a simulation, no secret
    times = [row.arrival for row in trace]
    end = times[-1] if times else 0.0
    kept = 0.0 if resample else min(factor, 1.0)
    rows = [row for row in trace if kept and (kept == 1 or rng.random() < kept)]
    copies, rest = divmod(max(factor - kept, 0.0), 1.0)
    for row in trace:
        for _ in range(int(copies) + (rng.random() < rest)):
            lengths = _neighbour(trace, times, row.arrival, rng)
            shifted = row.arrival + rng.uniform(-_SHIFT_SECONDS, _SHIFT_SECONDS)
            rows.append(TraceRow(min(max(shifted, 0.0), end), lengths.prompt_tokens, lengths.output_tokens))
    rows.sort(key=lambda row: row.arrival)
    return tuple(rows)


def cut_trace(trace: Sequence[TraceRow], start: float, end: float) -> tuple[TraceRow, ...]:
    """The requests of [start, end) seconds, times from 0."""
    return tuple(
        TraceRow(row.arrival - start, row.prompt_tokens, row.output_tokens)
        for row in trace
        if start <= row.arrival < end
    )


def rotate_trace(trace: Sequence[TraceRow], part: float) -> tuple[TraceRow, ...]:
    """The trace from `part` (0..1) of its length on, then what was before it: models of a pool do not peak together."""
    if not trace or not part:
        return tuple(trace)
    end = trace[-1].arrival
    late, early = cut_trace(trace, part * end, end + 1.0), cut_trace(trace, 0.0, part * end)
    after = (1 - part) * end
    return (*late, *(TraceRow(row.arrival + after, row.prompt_tokens, row.output_tokens) for row in early))


def _neighbour(trace: Sequence[TraceRow], times: Sequence[float], at: float, rng: random.Random) -> TraceRow:
    low = bisect.bisect_left(times, at - _NEIGHBOUR_SECONDS)
    high = bisect.bisect_right(times, at + _NEIGHBOUR_SECONDS)
    return trace[rng.randrange(low, high)]
