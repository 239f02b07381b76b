"""What a reader has to know of a tuned parameter: that nothing was tuned, or that its grid may be too short. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FEW_LOAD_TIMES: Final = 3  # a parameter shows in what starts and stops, so a shorter load tells next to nothing of it
_SAME: Final = 0.0005  # scores that are shown as the same


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The load that was tuned on: its length, the longest start of a replica, and whether it is judged on, too."""

    seconds: float
    start_seconds: float
    is_judged: bool = False


def note_held_out(held_out: HeldOut) -> list[str]:
    """What is wrong with the load itself, which is the same for all policies."""
    notes = []
    if held_out.is_judged:
        notes.append("the trace is too short to be cut, so what is held out is what is judged on; give a longer trace")
    if held_out.seconds < FEW_LOAD_TIMES * held_out.start_seconds:
        notes.append(
            f"the held-out part has {held_out.seconds:.0f} s, less than {FEW_LOAD_TIMES} starts of a replica"
            f" ({held_out.start_seconds:.0f} s each), which tunes next to nothing; give a longer trace"
        )
    return notes


def note_grid(grid: Mapping[float, float], chosen: float) -> list[str]:
    """What is wrong with the choice, from value -> score. Example: `the best value 0.03 is the first of its grid`."""
    scores = [score for score in grid.values() if not math.isnan(score)]
    if not scores:
        return [f"not tuned: no value could be scored on the held-out part; it runs with {chosen:g}"]
    if len(scores) == len(grid) and max(scores) - min(scores) < _SAME:
        told = f"all {len(grid)} values gave {_decimal(max(scores))} on the held-out part"
        return [f"not tuned: {told}; it runs with {chosen:g}"]
    first, second, *_ = ordered = sorted(grid)
    for place, end, neighbour in (("first", first, second), ("last", ordered[-1], ordered[-2])):
        # At the end of a plateau a longer grid would find nothing better.
        if chosen == end and not grid[end] - grid[neighbour] < _SAME:
            return [f"the best value {chosen:g} is the {place} of its grid"]
    return []


def note_tuning(name: str, grid: Mapping[float, float], chosen: float) -> tuple[str, ...]:
    """What is wrong with the choice, beginning with the policy's name."""
    return tuple(f"{name}: {note}" for note in note_grid(grid, chosen))


def _decimal(score: float) -> str:
    """0.354 as `.354`."""
    return f"{score:.3f}".removeprefix("0")
