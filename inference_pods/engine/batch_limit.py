"""How many sequences should run at once, and what binds that number. Pure: from counts and what was learned."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BatchBound(StrEnum):
    """What keeps the batch from being larger."""

    MAX = "max"  # --max-batch-size
    TPOT = "tpot"  # one more would make a step longer than the objective for time per output token
    MEMORY = "memory"  # one more would, at the usual length, run the KV cache out of blocks
    QUEUE = "queue"  # nobody waits


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """The number of sequences that may run, and why not more."""

    size: int
    bound: BatchBound


@dataclass(frozen=True, slots=True)
class BatchState:
    """What the limit depends on. `own_blocks`: for each running sequence the blocks that only it uses."""

    max_batch_size: int
    running: int
    waiting: int
    free_blocks: int
    own_blocks: tuple[int, ...]
    # Own blocks of a sequence at its end, learned; None: none has ended yet.
    usual_blocks: float | None
    # Sequences that may run within the objective, beside a prompt if there is one; None: none, or nothing learned yet.
    tpot_sequences: int | None


def decide_batch_limit(state: BatchState) -> BatchLimit:
    """The smallest of the bounds, at least 1; running sequences above it are not stopped, they run out.

    Memory, worked: 10 blocks free, two running ones hold 3 and 5 of the usual 6 blocks, so they may take 3 + 1 more;
    the other 6 are room for one more sequence: limit 3.
    """
    sizes = {BatchBound.MAX: state.max_batch_size}
    if state.tpot_sequences is not None:
        sizes[BatchBound.TPOT] = state.tpot_sequences
    if state.usual_blocks:
        growth = sum(max(0.0, state.usual_blocks - own) for own in state.own_blocks)
        sizes[BatchBound.MEMORY] = state.running + int((state.free_blocks - growth) // state.usual_blocks)
    bound = min(sizes, key=lambda one: sizes[one])
    size = max(1, sizes[bound])
    return BatchLimit(size, BatchBound.QUEUE if state.running + state.waiting <= size else bound)
