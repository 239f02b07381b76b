"""What the engine has done so far, as plain totals that its thread writes and the metrics read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class EngineStats:
    """Totals since the start."""

    # Tokens of admitted sequences whose keys and values were found in the prefix cache, and those that were not.
    prefix_hit_tokens: int = 0
    prefix_miss_tokens: int = 0
    # Sequences that gave their blocks back and are computed again.
    preemptions: int = 0
    # Requests whose deadline passed before their end.
    expired: int = 0
    # Idle checks that found the block pool's books wrong.
    integrity_failures: int = 0
    # Tokens that a lower level drafted, those of them that the top level agreed to, and its steps that checked some
    # (one per sequence): tokens per check = accepted / verifications + 1.
    draft_tokens: int = 0
    accepted_tokens: int = 0
    verifications: int = 0
    # By index of the level: requests that began at it, and tokens that it gave (drafted ones: the level that verified).
    level_requests: Counter[int] = field(default_factory=Counter)
    level_tokens: Counter[int] = field(default_factory=Counter)
