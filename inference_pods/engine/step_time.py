"""How long a step of so many rows takes, learned from the steps that ran. Pure arithmetic: no clock, no queue.

A step runs the rows of each level in turn, so its time is the sum of one line per level.
"""

from __future__ import annotations

from collections.abc import Mapping

_DECAY = 0.98  # a step counts half after 34 more
_LEARNED_STEPS = 8  # fewer say nothing
_OUTLIER = 4.0  # a step this many times slower than predicted was a pause of the machine: it counts as no more
_SPREAD_ROWS = 1.0  # rows must vary by this much (standard deviation) before their cost can be told from a step's own
_LEAST_ROW_SHARE = 0.02  # of a step's time that grows with its rows: keeps the slope above zero
_LEAST_NEW_SHARE = 0.1  # of a mixed step's time is a new level's: with none it would be taken for free, and stay so
_COMPARED_ROWS = 8  # at which the slowest of several lines is found


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


class LevelStepTimes:
    """One StepTimeModel per level, by its index. A level that is not learned yet is taken for the slowest that is."""

    def __init__(self) -> None:
        self._models: dict[int, StepTimeModel] = {}

    def observe(self, rows: Mapping[int, int], seconds: float) -> None:
        """Learns from a step of so many rows by level; what levels share, each gets its part of."""
        for level, part in self._divide(rows, seconds).items():
            self._models.setdefault(level, StepTimeModel()).observe(rows[level], part)

    def _divide(self, rows: Mapping[int, int], seconds: float) -> dict[int, float]:
        """Seconds by level: in proportion to what was predicted; new levels get what the others should leave, by rows.

        Known levels learn nothing from a step with new ones, because how far it was theirs is not known.
        """
        known = {level: self._models[level].predict(count) for level, count in rows.items() if self._is_known(level)}
        if len(known) == len(rows) and (whole := sum(known.values())) > 0:
            return {level: seconds * part / whole for level, part in known.items()}
        new = {level: count for level, count in rows.items() if level not in known} or dict(rows)
        rest = max(seconds - sum(known.values()), _LEAST_NEW_SHARE * seconds)
        return {level: rest * count / sum(new.values()) for level, count in new.items()}

    def predict(self, rows: Mapping[int, int]) -> float:
        """Seconds that a step of so many rows by level should take; 0 while nothing is learned."""
        return sum(model.predict(count) for level, count in rows.items() if count and (model := self._line(level)))

    def rows_within(self, seconds: float, level: int, beside: Mapping[int, int]) -> int | None:
        """Most rows of `level` that, with the other levels' rows of `beside`, should take no longer; None: not learned.

        Worked: 50 ms, level 0 takes 10 ms + 2 ms a row, level 1 4 ms + 1 ms a row. Beside 6 rows of level 1 (10 ms)
        there is room for 15 of level 0.
        """
        if (model := self._line(level)) is None:
            return None
        others = self.predict({other: count for other, count in beside.items() if other != level})
        return model.rows_within(seconds - others)

    def _is_known(self, level: int) -> bool:
        return level in self._models and self._models[level].is_learned

    def _line(self, level: int) -> StepTimeModel | None:
        if self._is_known(level):
            return self._models[level]
        learned = [model for model in self._models.values() if model.is_learned]
        return max(learned, key=lambda model: model.predict(_COMPARED_ROWS), default=None)
