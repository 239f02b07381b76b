"""From Prometheus' answers about earlier periods to one model's season: only the bins that its forecast uses. Pure.

What is missing or cannot be true is unknown. Without anything known of each period there is no season, and no error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from adaptive_operator.observe.observation import Season
from adaptive_operator.observe.prometheus import Answer, Failed, Key
from adaptive_operator.observe.queries import HISTORY_BINS, SEASON_PERIODS, Windows

# A tier that loads longer than this sees the first part of its horizon only.
MOST_AHEAD_SECONDS: Final = 3600.0
_DIGITS: Final = 4  # that count of a rate: observations are kept


@dataclass(frozen=True, slots=True)
class Past:
    """What Prometheus said of a pool's earlier periods, the last one first."""

    answers: tuple[Answer, ...]
    period_seconds: float


def bins_between(now: float, back_seconds: float, ahead_seconds: float, bin_seconds: float) -> tuple[float, float]:
    """(begin, end) of the whole bins from `back_seconds` ago until `ahead_seconds` from now (Unix seconds).

    Example: at 1000 s, 100 back and 70 ahead, bins of a minute: 900 to 1080.
    """
    begin = math.floor((now - back_seconds) / bin_seconds) * bin_seconds
    return begin, math.ceil((now + min(ahead_seconds, MOST_AHEAD_SECONDS)) / bin_seconds) * bin_seconds


def compared_seconds(windows: Windows) -> float:
    """How far back this period is compared with earlier ones: as far as its own history reaches."""
    return HISTORY_BINS * windows.bin_seconds


def read_season(
    past: Past, key: Key, now: float, horizon_seconds: float, windows: Windows, accept: Callable[[float], bool]
) -> Season | None:
    """The season of the model `key` around `now`; `accept`: whether a rate can be true."""
    step = windows.season_bin_seconds
    begin, end = bins_between(now, compared_seconds(windows), horizon_seconds, step)
    ends = [begin + (i + 1) * step for i in range(round((end - begin) / step))]
    periods = []
    for back, answer in enumerate(past.answers, start=1):
        shift = back * past.period_seconds
        known = {at: value for at, value in _series(answer, key).items() if accept(value)}
        periods.append(tuple(_compact(known.get(round(at - shift))) for at in ends))
    if len(periods) < SEASON_PERIODS or any(all(value is None for value in bins) for bins in periods):
        return None
    return Season(tuple(periods), past.period_seconds, step, end)


def _series(answer: Answer, key: Key) -> Mapping[int, float]:
    """Rates by the end of their bin."""
    if isinstance(answer, Failed) or key in answer.duplicates:
        return {}
    return {round(at): value for at, value in answer.series.get(key, ())}


def _compact(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
