"""What the replicas of a nested tier can serve: more requests at less quality, without a change of replicas.

Levels share the replicas' capacity, so the best mixes lie on the upper hull of (rate, rate x quality), and each step
down it is further capacity with a worth of its own. The operator does the same arithmetic for its plans
(tests/fixtures/contract.json pins both). Pure; knows neither tiers nor floors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LevelPoint:
    """A level: its worth per request (permille), and requests/s if nothing else is served. `index`: the caller's."""

    index: int
    margin: float
    rate: float
    is_known: bool = True  # is its quality?


@dataclass(frozen=True, slots=True)
class Step:
    """Going to level `index` altogether adds `rate` requests/s, each worth `margin`; it serves `all_rate` then.

    `before`: the level that the requests come from; None for the first step.
    """

    index: int
    rate: float
    margin: float
    all_rate: float
    before: int | None


def frontier(points: Sequence[LevelPoint]) -> list[Step]:
    """Steps from the best level to the fastest; the first point alone where quality or capacity is not known.

    Example: int8 worth 998 at 2/s, int4 worth 780 at 3/s: 2/s worth 998, then 1/s more worth 780*3 - 998*2 = 344 each.
    """
    here = points[0]
    if here.is_known and math.isfinite(here.rate):
        points = [point for point in points if point.is_known and math.isfinite(point.rate)]
        here = max(points, key=lambda point: (point.margin, point.rate))
    steps = [Step(here.index, here.rate, here.margin, here.rate, None)]
    while faster := [point for point in points if here.rate < point.rate < math.inf]:
        origin = here
        here = max(faster, key=lambda point: (_worth(origin, point), point.rate))
        steps.append(Step(here.index, here.rate - origin.rate, _worth(origin, here), here.rate, origin.index))
    return steps


def _worth(here: LevelPoint, there: LevelPoint) -> float:
    return (there.margin * there.rate - here.margin * here.rate) / (there.rate - here.rate)
