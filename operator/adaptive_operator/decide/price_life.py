"""For how long a plan's prices tell what an accelerator of the pool is worth."""

from __future__ import annotations

from typing import Final

# While nobody lacks anything no program is asked, so nothing says that prices have fallen. As long as the longest
# planner period: between two plans in a row prices always count.
_SECONDS: Final = 3600.0


def are_prices_told(planned_at: float, now: float) -> bool:
    """Do the prices of the plan that was made at `planned_at` count in a plan of `now` (both in seconds)?"""
    return now - planned_at <= _SECONDS
