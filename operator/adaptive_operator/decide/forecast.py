"""How much will be asked for until a replica started now could serve: an upper forecast of one model's demand.

The largest of a damped trend plus deviations, a moving average with a margin, a burst that was just seen, and, when
two periods are known, the season. Measured on a conversation trace: the deviations matter, the trend hardly does.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from adaptive_operator.observe.observation import Season, Series

Bin = float | None  # requests/s in reference requests; None: unknown, which is never zero


class Source(StrEnum):
    """Which part of a forecast is the largest."""

    NOTHING = "Nothing"  # no known bin
    MOST_SEEN = "MostSeen"  # too little history for a model of it
    TREND = "Trend"
    AVERAGE = "Average"
    BURST = "Burst"
    SEASON = "Season"


@dataclass(frozen=True, slots=True)
class Forecast:
    """The most to expect until the horizon (requests/s; None: nothing is known), and where it comes from.

    Not `settled`: the history is too short to give anything back on its word.
    """

    upper: float | None
    source: Source
    settled: bool


@dataclass(frozen=True, slots=True)
class ForecastSettings:
    """Constants of the forecast, as measured on bins of 10-15 s."""

    level_gain: float = 0.35  # α of the damped trend
    trend_gain: float = 0.08  # β
    damping: float = 0.9  # φ, per bin
    residuals: int = 30  # one-step errors that the deviation is taken from, and bins before it counts
    # Deviations on top: with 2 a horizon of 60 s falls 1 % of the peak short, at 170 s it takes 3.
    deviations: float = 2.0
    deviations_far: float = 3.0
    near_seconds: float = 80.0
    far_seconds: float = 170.0
    average_gain: float = 0.38  # α of the moving average
    average_margin: float = 1.05
    # A bin with more than this many times the mean of the minute before it is a burst, and held for a minute.
    burst_ratio: float = 2.0
    burst_seconds: float = 60.0
    # How far today may differ from the same time of earlier periods before they stop being a guide.
    season_most: float = 2.0
    # Bins of today that are compared with theirs, at least.
    season_least: int = 5


def forecast(
    seen: Series,
    now: float,
    horizon_seconds: float,
    settings: ForecastSettings = ForecastSettings(),
    season: Season | None = None,
) -> Forecast:
    """The upper forecast of `seen` at its maximum over the next `horizon_seconds` (load time + planner period).

    `season`: the same demand at the same time of earlier periods; it can only raise the forecast.
    Example: 40 bins of 5.0 give 5.25, the average's margin; a new bin of 20.0 gives 20.0 for a minute.
    """
    known = [value for value in seen.bins if value is not None]
    if not known:
        return Forecast(None, Source.NOTHING, settled=False)
    if len(known) < settings.residuals:
        return Forecast(max(known), Source.MOST_SEEN, settled=False)
    horizon = horizon_seconds + max(0.0, now - seen.end)
    parts = {
        Source.TREND: _trend(seen, horizon, settings),
        Source.AVERAGE: settings.average_margin * _average(known, settings.average_gain),
        Source.BURST: _burst(seen, now, settings),
        Source.SEASON: _season(season, seen, now, horizon_seconds, settings) if season is not None else 0.0,
    }
    source = max(parts, key=lambda name: parts[name])
    return Forecast(parts[source], source, settled=True)


def deviations_at(horizon_seconds: float, settings: ForecastSettings = ForecastSettings()) -> float:
    """Standard deviations to add at a horizon: more the further away, between the two measured distances."""
    span = settings.far_seconds - settings.near_seconds
    part = min(1.0, max(0.0, (horizon_seconds - settings.near_seconds) / span))
    return settings.deviations + part * (settings.deviations_far - settings.deviations)


def _trend(seen: Series, horizon: float, settings: ForecastSettings) -> float:
    """Holt's level and damped trend, at the worst bin of the horizon, plus deviations of the one-step errors.

    After h bins the trend has added φ + φ² + … + φ^h times itself, so the worst bin is the last one, or the first.
    """
    level, trend, errors = _smoothed(seen.bins, settings)
    phi = settings.damping
    bins = max(1, math.ceil(horizon / seen.bin_seconds))
    far = trend * phi * (1 - phi**bins) / (1 - phi)
    deviation = statistics.pstdev(errors[-settings.residuals :]) if errors else 0.0
    return max(0.0, level + max(far, trend * phi)) + deviations_at(horizon, settings) * deviation


def _smoothed(bins: Sequence[Bin], settings: ForecastSettings) -> tuple[float, float, list[float]]:
    """(level, trend per bin, one-step errors). An unknown bin moves nothing but the damped trend."""
    level: float | None = None
    trend, errors = 0.0, list[float]()
    for value in bins:
        if level is None:
            level = value
            continue
        expected = level + settings.damping * trend
        if value is None:
            level, trend = max(0.0, expected), settings.damping * trend
            continue
        errors.append(value - expected)
        before, level = level, expected + settings.level_gain * (value - expected)
        trend = settings.trend_gain * (level - before) + (1 - settings.trend_gain) * settings.damping * trend
    return level or 0.0, trend, errors


def _average(known: Sequence[float], gain: float) -> float:
    average = known[0]
    for value in known[1:]:
        average += gain * (value - average)
    return average


def _burst(seen: Series, now: float, settings: ForecastSettings) -> float:
    """The largest bin of the last minute that was far above the minute before it; 0 without one."""
    before = max(1, round(settings.burst_seconds / seen.bin_seconds))
    burst = 0.0
    for index, value in enumerate(seen.bins):
        ended = seen.end - (len(seen.bins) - 1 - index) * seen.bin_seconds
        if value is None or now - ended >= settings.burst_seconds:
            continue
        minute = [earlier for earlier in seen.bins[max(0, index - before) : index] if earlier is not None]
        if minute and value > settings.burst_ratio * statistics.fmean(minute):
            burst = max(burst, value)
    return burst


def _season(season: Season, seen: Series, now: float, horizon: float, settings: ForecastSettings) -> float:
    """The most that earlier periods had in the coming window, scaled to today's level; 0 when that is not known.

    A bin counts when all periods know it: what one of them had may have been an accident of that day.
    """
    past = _means(season)
    step = season.bin_seconds
    expected = [value for end, value in past.items() if now < end < now + horizon + step]
    recent = [(value, past[end]) for end, value in _in_bins(seen, step).items() if end in past]
    if not expected or len(recent) < settings.season_least:
        return 0.0
    past_level = statistics.fmean(before for _, before in recent)
    ratio = statistics.fmean(value for value, _ in recent) / past_level if past_level > 0 else 1.0
    ratio = min(settings.season_most, max(1 / settings.season_most, ratio))
    deviation = statistics.pstdev([value - ratio * before for value, before in recent])
    return max(expected) * ratio + deviations_at(horizon, settings) * deviation


def _means(season: Season) -> dict[float, float]:
    """The mean over the periods, by when the bin ends in this one."""
    found = {}
    for late, values in enumerate(reversed(list(zip(*season.periods, strict=True)))):
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            found[season.end - late * season.bin_seconds] = statistics.fmean(known)
    return found


def _in_bins(seen: Series, step: float) -> dict[float, float]:
    """What was seen, as means over longer bins, by when they end; where at least half of one is known."""
    parts: dict[float, list[float]] = {}
    for index, value in enumerate(seen.bins):
        ended = seen.end - (len(seen.bins) - 1 - index) * seen.bin_seconds
        if value is not None:
            parts.setdefault(math.ceil(ended / step) * step, []).append(value)
    least = step / seen.bin_seconds / 2
    return {end: statistics.fmean(values) for end, values in parts.items() if len(values) >= least}
