"""Loads that no machine holds are refused before they are built: a run that is killed says nothing.

Knows options, and nothing of what is simulated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from adaptive_operator.simulate.generators import expect_requests
from adaptive_operator.simulate.requests import LONGEST_SECONDS, TraceRow
from adaptive_operator.simulate.traces import TraceError

MOST_REQUESTS: Final = 50_000_000  # of all models; a few gigabytes of memory, and hours of a run


def check_generator(options: argparse.Namespace, models: int) -> None:
    """Before anything is drawn. Raises TraceError, and GeneratorError for a text that describes none."""
    expected = sum(expect_requests(options.trace, i / models) for i in range(models))
    if expected > MOST_REQUESTS:
        raise TraceError(f"--trace {options.trace}: {_too_many(expected)}; take a lower rate or fewer seconds")


def check_size(options: argparse.Namespace, traces: Sequence[Sequence[TraceRow]]) -> None:
    """The traces of all models at scale 1, before they are scaled. Raises TraceError."""
    seconds = max(trace[-1].arrival for trace in traces)
    if seconds > LONGEST_SECONDS:
        days = f"{LONGEST_SECONDS / 86_400:.0f} days"
        raise TraceError(f"--trace {options.trace}: it has {seconds:.4g} s, more than {days}; take less with --minutes")
    rows = sum(len(trace) for trace in traces)
    if rows * options.scale <= MOST_REQUESTS:
        return
    told = _too_many(rows * options.scale)
    if options.scale > 1:
        raise TraceError(f"--scale {options.scale:g}: {told} ({rows:,} at scale 1); take a smaller one")
    raise TraceError(f"--trace {options.trace}: {told}; take fewer --minutes, or a smaller --scale")


def _too_many(requests: float) -> str:
    shown = f"{requests:,.0f}" if requests < 1e15 else f"{requests:.3g}"
    return f"about {shown} requests, more than the {MOST_REQUESTS:,} that are simulated at most"
