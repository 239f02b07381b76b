"""Says which stage the demo is in and how long each took. Prints; knows nothing of what the stages do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = (
    "Dependencies",
    "Cluster",
    "Images",
    "Helm chart",
    "AdaptiveModel ready",
    "Calibration",
    "Load",
    "Summary",
)


class Progress:
    """Stage lines with elapsed time. `started_at` is wall-clock time, so that it survives the change of process."""

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self._told = ""
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce the stage, time it, and say how it ended."""
        number = f"[{STAGES.index(name) + 1}/{len(STAGES)}]"
        begin = time.time()
        _say(f"{number} {name}")
        try:
            yield
        except BaseException:
            _say(f"{number} {name}: failed after {time.time() - begin:.1f} s")
            raise
        self.seconds[name] = time.time() - begin
        _say(f"{number} {name}: done in {self.seconds[name]:.1f} s (total {self.total_seconds:.0f} s)")

    @property
    def total_seconds(self) -> float:
        """Since the demo was started."""
        return time.time() - self.started_at

    def tell(self, text: str) -> None:
        """A line within a stage; the same text again is left out."""
        if text != self._told:
            self._told = text
            _say(f"      {text}")


def _say(line: str) -> None:
    print(line, flush=True, file=sys.stdout)
