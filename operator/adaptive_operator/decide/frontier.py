"""What a replica of a nested tier can serve: more requests at less quality, without a change of replicas.

Levels share a replica's capacity: one that serves the share s of its time at a level answers s x the level's rate.
The best mixes lie on the upper hull of (rate, rate x quality), so each step down it is a further bit of capacity with a
quality of its own: what the additional requests add to Σ quality, less what those moved to the lower level lose.
The router's fast loop does the same arithmetic (tests/fixtures/contract.json pins both). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LevelPoint:
    """A level: quality in permille, requests/s of a replica that serves nothing else."""

    name: str
    quality_permille: float
    rate: float


@dataclass(frozen=True, slots=True)
class Step:
    """Going to `level` altogether adds `rate` requests/s, each worth `quality_permille` in the sum of qualities."""

    level: LevelPoint
    rate: float
    quality_permille: float


def frontier(points: Sequence[LevelPoint]) -> tuple[Step, ...]:
    """Steps from the best level to the fastest; levels that another mix beats in both are left out.

    Example: int8 at 998 and 2/s, int4 at 780 and 3/s: first 2/s at 998, then 1/s more at 780·3 − 998·2 = 344.
    """
    if not points:
        return ()
    here = max(points, key=lambda point: (point.quality_permille, point.rate))
    steps = [Step(here, here.rate, here.quality_permille)]
    while faster := [point for point in points if point.rate > here.rate]:
        there = max(faster, key=lambda point: (_marginal(here, point), point.rate))
        steps.append(Step(there, there.rate - here.rate, _marginal(here, there)))
        here = there
    return tuple(steps)


def split(steps: Sequence[Step], replicas: float, served: Sequence[float]) -> dict[str, float]:
    """Requests/s by level, when `served` of the requests/s of each step are used, of `replicas` replicas.

    Example: 2 replicas of the levels above, 4/s and 1/s used: half the time at int4, so int8 2/s and int4 3/s.
    """
    rates = dict.fromkeys((step.level.name for step in steps), 0.0)
    rates[steps[0].level.name] = served[0]
    for before, step, used in zip(steps, steps[1:], served[1:], strict=False):
        if used > 0:
            part = used / (step.rate * replicas)
            rates[before.level.name] = (1 - part) * before.level.rate * replicas
            rates[step.level.name] = part * step.level.rate * replicas
    return rates


def _marginal(here: LevelPoint, there: LevelPoint) -> float:
    gained = there.quality_permille * there.rate - here.quality_permille * here.rate
    return gained / (there.rate - here.rate)
