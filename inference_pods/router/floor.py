"""The quality floor for single requests: a purse of surplus quality that requests below the floor have to pay from.

Loop F plans means; this guards what is really dispatched, also when single requests overflow. Every request served
above the floor pays in what it is better, every one below takes out what it is worse. Because the purse never goes
below zero, the mean of all requests never falls below the floor; because it is bounded, good times long past cannot
pay for a bad hour.
"""

from __future__ import annotations

from typing import Final

PURSE_REQUESTS: Final = 50  # the surplus of this many perfect requests can be saved up


class FloorPurse:
    """Quality surplus in permille-requests. An unknown quality neither pays nor costs."""

    def __init__(self) -> None:
        self._surplus = 0

    def allows(self, quality_permille: int | None, floor_permille: int) -> bool:
        if quality_permille is None or quality_permille >= floor_permille:
            return True
        return self._surplus >= floor_permille - quality_permille

    def record(self, quality_permille: int | None, floor_permille: int) -> None:
        """Book one dispatched request. Callers ask `allows` first."""
        if quality_permille is not None:
            limit = PURSE_REQUESTS * (1000 - floor_permille)
            self._surplus = max(min(self._surplus + quality_permille - floor_permille, limit), 0)
