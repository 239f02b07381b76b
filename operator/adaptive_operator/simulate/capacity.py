"""Effective capacity: the most copies of a trace that a policy serves with at most 1 % violations and the floor kept,
of every model.

Found by doubling and bisection; a policy with a parameter is tuned anew at every scale. Near saturation a run has to be
long enough for a backlog to show: take ten minutes or more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from adaptive_operator.simulate.comparison import Comparison, Tell, judge
from adaptive_operator.simulate.scores import Scores

MOST_VIOLATIONS: Final = 0.01
RESOLUTION: Final = 1.05  # the scale is found to within 5 %
_LEAST_SCALE: Final = 1 / 64
_MOST_SCALE: Final = 1024.0

Holds = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What one policy carries. `scale` 0: not even 1/64 of the trace. `tried`: scale -> its figures. `notes`: what a
    reader has to know of how the policy was tuned at that scale."""

    policy: str
    scale: float
    requests_per_second: float
    tried: Mapping[float, Scores]
    notes: tuple[str, ...] = ()


class CapacityError(ValueError):
    """No capacity can be told from this trace; the text says why."""


def effective_capacity(comparison: Comparison, name: str, tell: Tell) -> Capacity:
    """Search around the comparison's own scale. Raises PolicyError, BudgetError and CapacityError."""
    if comparison.seconds <= 0:
        raise CapacityError("all requests of the trace come at once, so it has no rate; give a longer trace")
    tried: dict[float, Scores] = {}
    notes: dict[float, tuple[str, ...]] = {}

    def holds(scale: float) -> bool:
        scaled = replace(comparison, factor=scale)
        found = judge(scaled, name, scaled.parts(), lambda label: tell(f"{label} x{scale:.3g}"))
        tried[scale], notes[scale] = found.scores, found.notes
        floors = [model.scenario.floor for model in comparison.models]
        return all(_is_kept(own, floor) for own, floor in zip(found.by_model, floors, strict=True))

    scale = _search(holds, comparison.factor)
    rate = sum(len(model.trace) for model in comparison.models) / comparison.seconds
    return Capacity(name, scale, scale * rate, dict(sorted(tried.items())), notes.get(scale, ()))


def ratio_rows(capacities: Sequence[Capacity], references: Sequence[str]) -> list[list[str]]:
    """A header, then per policy its scale, requests/s and ratios to those of `references` that are there."""
    known = {capacity.policy: capacity.scale for capacity in capacities}
    shown = [name for name in references if name in known]
    header = ["policy", "scale", "requests/s", *(f"to {name}" for name in shown)]
    rows = []
    for item in capacities:
        ratios = [f"{item.scale / known[name]:.2f}" if known[name] else "–" for name in shown]
        rows.append([item.policy, f"{item.scale:.2f}", f"{item.requests_per_second:.1f}", *ratios])
    return [header, *rows]


def _is_kept(scores: Scores, floor: float) -> bool:
    if math.isnan(scores.attainment) or math.isnan(scores.effective_accuracy):
        return False
    return scores.violations <= MOST_VIOLATIONS and scores.effective_accuracy >= floor - 1e-9


def _search(holds: Holds, start: float) -> float:
    """The largest scale that holds, if larger ones never hold once one does not."""
    low, high = 0.0, start
    while high <= _MOST_SCALE and holds(high):
        low, high = high, high * 2
    if low == 0.0:
        low = start / 2
        while not holds(low):
            high, low = low, low / 2
            if low < _LEAST_SCALE:
                return 0.0
    while high / low > RESOLUTION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
