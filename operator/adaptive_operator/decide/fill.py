"""Who serves how much: demand is filled into tiers and levels, best quality first, as far as the floor allows.

Pure arithmetic in requests/s. Knows neither replicas nor accelerators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

# Below this rate (requests/s) demand counts as this: quality is then that of the first request, not 0/0.
TRICKLE: Final = 1e-6

# Of a step: position of its tier in a plan, requests/s that each replica adds, and their quality (permille).
Step = tuple[int, float, float]


@dataclass(frozen=True, slots=True)
class Fill:
    """The outcome of a fill, in the order of the steps that were given."""

    served: tuple[float, ...]  # requests/s per step
    unserved: float  # requests/s that do not fit
    quality_permille: float  # request-weighted over what is served; 0 when nothing is


class Poured(NamedTuple):
    """How far a fill has come: what is left of the demand, and of what was served the slack and the sum of qualities.

    In requests/s, and requests/s x permille.
    """

    left: float
    slack: float
    served: float
    points: float


class Outcome(NamedTuple):
    """What comes of a fill in all; made for thousands of plans."""

    unserved: float  # requests/s that do not fit
    quality_permille: float  # request-weighted over what is served; 0 when nothing is
    served: float  # requests/s; of no demand those of the least one that is counted


def fill(demand: float, rates: Sequence[float], qualities: Sequence[float], floor_permille: float) -> Fill:
    """Fill `demand` (requests/s) into steps of the given `rates` (requests/s), which are sorted best quality first.

    A step is a tier, or a further level of a nested one (`frontier.py`). Steps at or above the floor are filled first
    and earn slack Σ(quality − floor)·x; one below the floor may use that slack up, so the mean never falls below the
    floor. What is left waits rather than being served worse.
    Example: demand 1, rates .72 and .6, qualities 1000 and 780, floor 0: .72 + .28, quality 938.4.
    """
    left = max(demand, TRICKLE)
    slack = total = points = 0.0
    served: list[float] = []
    for rate, quality in zip(rates, qualities, strict=True):
        if not rate:  # most of the thousands of plans that are compared lack most tiers
            served.append(0.0)
            continue
        share = min(left, rate)
        if quality < floor_permille:
            share = min(share, max(0.0, slack) / (floor_permille - quality))
        slack += (quality - floor_permille) * share
        left -= share
        total += share
        points += quality * share
        served.append(share)
    return Fill(tuple(served), max(0.0, left if demand > TRICKLE else 0.0), points / total if total > 0 else 0.0)


def fill_outcome(demand: float, counts: Sequence[int], steps: Sequence[Step], floor_permille: float) -> Outcome:
    """The same fill by so many replicas of each tier, without noting who serves what.

    The arithmetic of `fill` to the last bit: a plan is chosen among thousands.
    """
    return outcome_of(pour(start_of(demand), counts, steps, floor_permille), demand)


def start_of(demand: float) -> Poured:
    """Before the first step."""
    return Poured(max(demand, TRICKLE), 0.0, 0.0, 0.0)


def pour(poured: Poured, counts: Sequence[int], steps: Sequence[Step], floor_permille: float) -> Poured:
    """Fill further steps, by so many replicas of each tier, with what those before them left."""
    left, slack, total, points = poured
    for i, rate, quality in steps:
        rates = counts[i] * rate
        if not rates:
            continue
        share = min(left, rates)
        if quality < floor_permille:
            share = min(share, max(0.0, slack) / (floor_permille - quality))
        slack += (quality - floor_permille) * share
        left -= share
        total += share
        points += quality * share
        if not left:
            break  # the steps behind it add nothing
    return Poured(left, slack, total, points)


def outcome_of(poured: Poured, demand: float) -> Outcome:
    """What came of it, after the last step."""
    left, _, total, points = poured
    return Outcome(max(0.0, left if demand > TRICKLE else 0.0), points / total if total > 0 else 0.0, total)
