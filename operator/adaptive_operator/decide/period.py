"""How often a pool is planned: what its models ask for together, within what its passes leave time for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LEAST_PASSES: Final = 2.0  # a period lasts at least so many passes: they take half of the time at most


def planner_period(asked: Iterable[int | None], default: float, *, in_flight: bool, took: float = 0.0) -> float:
    """Seconds from the beginning of a pool's pass to the next one, unless something happens before.

    `asked`: what each model's spec says; None counts with `default`, the operator's period, so that one model's long
    period is nobody else's. A swap in flight is watched at the operator's period at least: drains end, and starts are
    late, by the clock. `took`: seconds of the pool's last pass; passes that are slow make a short period longer, up to
    the operator's, so that one model's wish does not keep the operator busy with all the others.
    """
    period = min((default if seconds is None else float(seconds) for seconds in asked), default=default)
    if in_flight:
        period = min(period, default)
    return max(period, min(default, _LEAST_PASSES * took))
