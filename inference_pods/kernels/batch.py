"""What a step is asked for: chunks of sequences, and their rows laid out level by level for the compiled kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of all chunks, those of one level together: tokens, positions, sequences [rows]; tables [chunks, blocks].

    groups: [groups, 3] of level, rows, outputs; outputs: rows with scores, counted from their group's first row;
    order: which of the outputs holds each of the chunks' scores, in the order of the chunks.
    """

    tokens: NDArray[np.int32]
    positions: NDArray[np.int32]
    sequences: NDArray[np.int32]
    tables: NDArray[np.int32]
    groups: NDArray[np.int32]
    outputs: NDArray[np.int32]
    order: list[int]


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


def build_batch(chunks: list[Chunk], levels: int) -> Batch:
    """Lays the chunks out for one call of the kernels; within a level they keep their order.

    Raises:
        ValueError: see check_chunk.
    """
    tokens: list[int] = []
    positions: list[int] = []
    sequences: list[int] = []
    outputs: list[int] = []
    groups: list[list[int]] = []
    first_output = [0] * len(chunks)
    for index in sorted(range(len(chunks)), key=lambda i: chunks[i].level):
        chunk = chunks[index]
        check_chunk(chunk, levels)
        if not groups or groups[-1][0] != chunk.level:
            groups.append([chunk.level, 0, 0])
        group, count = groups[-1], len(chunk.token_ids)
        tokens += chunk.token_ids
        positions += range(chunk.start, chunk.start + count)
        sequences += [index] * count
        group[1] += count
        first_output[index] = len(outputs)
        outputs += range(group[1] - chunk.scores, group[1])
        group[2] += chunk.scores
    order = [first + i for first, chunk in zip(first_output, chunks, strict=True) for i in range(chunk.scores)]
    arrays = (np.array(values, np.int32) for values in (tokens, positions, sequences))
    return Batch(*arrays, _build_tables(chunks), np.array(groups, np.int32), np.array(outputs, np.int32), order)


def _build_tables(chunks: list[Chunk]) -> NDArray[np.int32]:
    tables = np.zeros((len(chunks), max(len(chunk.block_table) for chunk in chunks)), np.int32)
    for index, chunk in enumerate(chunks):
        tables[index, : len(chunk.block_table)] = chunk.block_table
    return tables
