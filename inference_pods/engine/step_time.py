"""How long a step of so many rows takes, learned from the steps that ran. Pure arithmetic: no clock, no queue."""

from __future__ import annotations

_DECAY = 0.98  # a step counts half after 34 more
_LEARNED_STEPS = 8  # fewer say nothing
_OUTLIER = 4.0  # a step this many times slower than predicted was a pause of the machine: it counts as no more
_SPREAD_ROWS = 1.0  # rows must vary by this much (standard deviation) before their cost can be told from a step's own
_LEAST_ROW_SHARE = 0.02  # of a step's time that grows with its rows: keeps the slope above zero


class StepTimeModel:
    """seconds = fixed + slope * rows: least squares that forgets, bounded to fixed >= 0 and slope > 0.

    While all steps had about the same rows, the slope found last is kept; before there was any, all time is ascribed to
    the rows, which errs towards small steps.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._weight = self._rows = self._seconds = self._rows_rows = self._rows_seconds = 0.0
        self._largest_rows = 0
        self._slope: float | None = None

    @property
    def is_learned(self) -> bool:
        return self._steps >= _LEARNED_STEPS

    def observe(self, rows: int, seconds: float) -> None:
        """Learns from a step."""
        if self.is_learned:
            seconds = min(seconds, _OUTLIER * self.predict(rows))
        self._steps += 1
        self._largest_rows = max(self._largest_rows, rows)
        self._weight = self._weight * _DECAY + 1
        self._rows = self._rows * _DECAY + rows
        self._seconds = self._seconds * _DECAY + seconds
        self._rows_rows = self._rows_rows * _DECAY + rows * rows
        self._rows_seconds = self._rows_seconds * _DECAY + rows * seconds
        self._fit()

    def _fit(self) -> None:
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows_rows / self._weight - mean_rows**2
        steepest = mean_seconds / mean_rows
        if variance >= _SPREAD_ROWS**2:
            self._slope = (self._rows_seconds / self._weight - mean_rows * mean_seconds) / variance
        slope = steepest if self._slope is None else self._slope
        self._bounded_slope = min(max(slope, _LEAST_ROW_SHARE * steepest), steepest)
        self._fixed = mean_seconds - self._bounded_slope * mean_rows

    def predict(self, rows: int) -> float:
        """Seconds that a step of `rows` should take; ask is_learned first."""
        return self._fixed + self._bounded_slope * rows

    def rows_within(self, seconds: float) -> int | None:
        """Most rows that should take no longer, at most twice what was ever seen; None: not learned yet."""
        if not self.is_learned:
            return None
        if self._bounded_slope <= 0:  # a clock too coarse to see any step
            return 2 * self._largest_rows
        rows = int((seconds - self._fixed) / self._bounded_slope)
        return max(0, min(rows, 2 * self._largest_rows))
