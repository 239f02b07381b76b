"""A request: what a trace says of it, and what became of it in one run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LONGEST_SECONDS: Final = 366 * 86_400.0  # a year: no longer trace is simulated


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace. `arrival` in seconds from the start of the trace."""

    arrival: float
    prompt_tokens: int
    output_tokens: int


class Outcome(StrEnum):
    """How a request ended."""

    PENDING = "Pending"
    FINISHED = "Finished"
    REFUSED = "Refused"  # the router held it as long as it may, then 429
    TIMED_OUT = "TimedOut"  # the client gave up before the first token
    CUT = "Cut"  # its replica went away in the middle of the answer


@dataclass(slots=True, eq=False)
class Request:
    """One request in one run. Times in seconds; NaN: has not happened."""

    arrival: float
    prompt_tokens: int
    output_tokens: int
    outcome: Outcome = Outcome.PENDING
    tier: str = ""
    level: str = ""  # of a nested tier
    quality: float = 0.0  # of the tier and level that served it, 0..1
    first_token_at: float = math.nan
    finished_at: float = math.nan

    @property
    def tokens(self) -> int:
        """KV tokens that it needs at its end."""
        return self.prompt_tokens + self.output_tokens

    @property
    def ttft(self) -> float:
        """Seconds until the first token."""
        return self.first_token_at - self.arrival

    @property
    def tpot(self) -> float:
        """Mean seconds per output token after the first; 0 for an answer of one token."""
        if self.output_tokens < 2:
            return 0.0
        return (self.finished_at - self.first_token_at) / (self.output_tokens - 1)
