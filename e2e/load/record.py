"""What is known of one request after it ended. Pure; times are seconds since the start of the run.

Latency counts from the time a request was *due*, not from when it left: a generator that starts late because the
system (or its own machine) is slow must not hide that wait (coordinated omission).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request, sent exactly once. `error` is empty iff a complete answer arrived."""

    index: int
    step: int
    due_at: float
    sent_at: float
    ended_at: float
    first_token_at: float | None = None
    last_token_at: float | None = None
    status: int | None = None  # None: no HTTP status arrived
    tier_asked: str = ""  # x-tier pin; empty without one
    tier_served: str = ""  # empty when no answer named a tier
    quality_permille: int | None = None
    route_reason: str = ""
    tokens: int = 0
    error: str = ""

    @property
    def ok(self) -> bool:
        """A complete answer with status 200 arrived."""
        return not self.error

    @property
    def start_lag_seconds(self) -> float:
        """How late the generator itself was."""
        return self.sent_at - self.due_at

    @property
    def ttft_seconds(self) -> float | None:
        """From due to first token."""
        return None if self.first_token_at is None else self.first_token_at - self.due_at

    @property
    def tpot_seconds(self) -> float | None:
        """Mean time per token after the first; unknown with fewer than two tokens."""
        if self.first_token_at is None or self.last_token_at is None or self.tokens < 2:
            return None
        return (self.last_token_at - self.first_token_at) / (self.tokens - 1)
