"""Cuts streamed text at a stop string, holding back what may still become one."""

from __future__ import annotations


class StopCutter:
    """push() returns text that is safe to show; after a stop string nothing more comes."""

    def __init__(self, stop_strings: tuple[str, ...]) -> None:
        self._stops = stop_strings
        self._overlaps = [_Overlap(stop) for stop in stop_strings]
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
        keep = max(overlap.extend(text) for overlap in self._overlaps)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    @property
    def has_stopped(self) -> bool:
        """Whether a stop string came."""
        return self._stopped

    def finish(self) -> str:
        """What was held back, if no stop string came of it."""
        held, self._held = self._held, ""
        return "" if self._stopped else held


class _Overlap:
    """How much of a text's end is a beginning of `stop`, while the text grows and does not hold all of `stop`.

    Knuth, Morris and Pratt's automaton: a constant number of steps per character, however long the stop string. Its
    table is computed only as far as some text came.
    """

    def __init__(self, stop: str) -> None:
        self._stop = stop
        self._borders = [0, 0]  # of the first n characters of `stop`: the longest end that is a beginning of them, too
        self._length = 0

    def extend(self, text: str) -> int:
        """Length of the longest end of all text so far that is a proper beginning of `stop`."""
        most = len(self._stop) - 1
        if len(text) >= most:  # what was before can no longer matter
            text, self._length = text[len(text) - most :], 0
        for character in text:
            self._length = self._advance(self._length, character)
        return self._length

    def _advance(self, length: int, character: str) -> int:
        """Length after one more character."""
        while length and self._stop[length] != character:
            length = self._border(length)
        return length + 1 if self._stop[length] == character else 0

    def _border(self, length: int) -> int:
        borders = self._borders
        while len(borders) <= length:
            borders.append(self._advance(borders[-1], self._stop[len(borders) - 1]))
        return borders[length]
