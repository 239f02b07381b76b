"""What a step is asked for: chunks of sequences."""

from __future__ import annotations

from dataclasses import dataclass

from inference_pods.kernels.formats import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive new tokens of one sequence in a step; `block_table` covers start + len(token_ids) positions.

    `scores`: of how many of the chunk's last tokens next-token scores are wanted (0: none; k + 1 verify k drafted
    tokens). `level`: index into the decoder's levels, 0 is the top one.
    """

    token_ids: list[int]
    start: int
    block_table: list[int]
    scores: int
    level: int = 0


def check_chunk(chunk: Chunk, levels: int) -> None:
    """Raises ValueError for a chunk that contradicts itself or names a level that isn't there."""
    count = len(chunk.token_ids)
    if chunk.scores > count:
        raise ValueError(f"scores of {chunk.scores} tokens are wanted of a chunk of {count}")
    if len(chunk.block_table) * BLOCK_TOKENS < chunk.start + count:
        raise ValueError(
            f"block table of {len(chunk.block_table)} blocks is too short for position {chunk.start + count}"
        )
    if not 0 <= chunk.level < levels:
        raise ValueError(f"level {chunk.level} is not one of the decoder's {levels} levels")
