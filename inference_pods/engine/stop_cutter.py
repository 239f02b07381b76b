"""Cuts streamed text at a stop string, holding back what may still become one."""

from __future__ import annotations


class StopCutter:
    """push() returns text that is safe to show; after a stop string nothing more comes."""

    def __init__(self, stop_strings: tuple[str, ...]) -> None:
        self._stops = stop_strings
        self._held = ""
        self._stopped = False

    def push(self, text: str) -> str:
        if self._stopped or not self._stops:
            return "" if self._stopped else text
        self._held += text
        found = [index for stop in self._stops if (index := self._held.find(stop)) >= 0]
        if found:
            self._stopped = True
            return self._held[: min(found)]
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def finish(self) -> str:
        """What was held back, if no stop string came of it."""
        held, self._held = self._held, ""
        return "" if self._stopped else held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
