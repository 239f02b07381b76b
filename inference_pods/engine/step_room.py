"""What is left of a step while it is planned: its tokens, and the seconds of an objective. Knows levels, no queues."""

from __future__ import annotations

from collections import Counter

from inference_pods.engine.step_time import LevelStepTimes

LEAST_PROMPT_ROWS = 8  # a step computes so many prompt tokens even where the objective leaves no time: prompts must end


class StepRoom:
    """Decoding sequences take their row whatever the objective says; prompts share what it leaves beside them.

    Without any decoding sequence nobody waits for the step, and only `tokens` counts. `seconds` None: no objective.
    """

    def __init__(self, tokens: int, seconds: float | None, times: LevelStepTimes) -> None:
        self._tokens = tokens
        self._seconds = seconds
        self._times = times
        self._rows: Counter[int] = Counter()  # by level
        self._prompt_rows = 0
        self._has_decoding = False

    def rows_left(self, level: int, *, decoding: bool) -> int:
        """Most rows that a chunk at `level` may have now."""
        if decoding or self._seconds is None or not self._has_decoding:
            return self._tokens
        rows = self._times.rows_within(self._seconds, level, self._rows)
        if rows is None:
            return self._tokens
        return min(self._tokens, max(rows - self._rows[level], LEAST_PROMPT_ROWS - self._prompt_rows, 0))

    def take(self, level: int, rows: int, *, decoding: bool) -> None:
        """A chunk was planned."""
        self._tokens -= rows
        self._rows[level] += rows
        if decoding:
            self._has_decoding = True
        else:
            self._prompt_rows += rows
