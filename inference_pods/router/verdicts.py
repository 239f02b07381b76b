"""How an attempt to relay a request ends when it does not end with an answer.

Knows what each end means for the next attempt; deliberately does not know requests nor replicas.
"""

from __future__ import annotations


class TryAnother(Exception):  # noqa: N818 - a verdict, not a fault
    """This replica did not answer and nothing was sent yet. `status`: what to tell the client if no other does
    either."""

    def __init__(self, status: int, cause: str, *, put_aside: bool) -> None:
        super().__init__(cause)
        self.status = status
        self.cause = cause
        self.put_aside = put_aside

    @property
    def reached_engine(self) -> bool:
        """A replica that refused (no connection, or 503) has done no work: asking around is cheap, so it does not
        count."""
        return self.status != 503


class LevelRefusedError(Exception):
    """The replica does not have the level that was asked of it; nothing was generated."""


class UpstreamBrokeError(Exception):
    """The engine's answer ended too early, after bytes were sent."""


class ClientGoneError(Exception):
    """The client closed the connection or stopped reading."""


def verdict_of_status(status: int) -> TryAnother:
    """429: this replica is full. 503: it is stopping or not ready, so leave it alone for a while."""
    return (
        TryAnother(429, "overloaded", put_aside=False) if status == 429 else TryAnother(503, "stopping", put_aside=True)
    )
