"""The compiled step's plan: the input arrays of one shape bucket and their addresses, made once.

Per step it saves five allocations and as many look-ups of an address. Knows chunks, not kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from inference_pods.kernels.formats import BLOCK_TOKENS
from inference_pods.kernels.step_plans import PlanKey


class StepChunk(Protocol):
    """What of `decoder.Chunk` is read here."""

    @property
    def token_ids(self) -> list[int]: ...
    @property
    def start(self) -> int: ...
    @property
    def block_table(self) -> list[int]: ...
    @property
    def scores(self) -> int: ...


def count_rows(chunks: Sequence[StepChunk]) -> tuple[int, int]:
    """(rows, outputs) of a step.

    Raises:
        ValueError: a chunk wants scores of tokens that it hasn't, or its block table is too short.
    """
    rows = outputs = 0
    for chunk in chunks:
        count = len(chunk.token_ids)
        if chunk.scores > count:
            raise ValueError(f"scores of {chunk.scores} tokens are wanted of a chunk of {count}")
        if len(chunk.block_table) * BLOCK_TOKENS < chunk.start + count:
            raise ValueError(
                f"block table of {len(chunk.block_table)} blocks is too short for position {chunk.start + count}"
            )
        rows += count
        outputs += chunk.scores
    return rows, outputs


class StepBuffers:
    """Arrays of int32: tokens, positions and sequences per row, block tables [rows, table_blocks], output rows.

    Addresses stay valid as long as the object lives. What an earlier, larger step left behind is never read: rows and
    outputs are passed as counts, and a table only up to its sequence's position.
    """

    def __init__(self, key: PlanKey, table_blocks: int) -> None:
        self.table_blocks = table_blocks
        self.tokens, self.positions, self.sequences = (np.zeros(key.rows, np.int32) for _ in range(3))
        self.tables = np.zeros((key.rows, table_blocks), np.int32)
        self.outputs = np.zeros(key.outputs, np.int32)
        arrays = (self.tokens, self.positions, self.sequences, self.tables, self.outputs)
        self.addresses: tuple[int, ...] = tuple(array.ctypes.data for array in arrays)

    def fill(self, chunks: Sequence[StepChunk]) -> None:
        """Writes a step whose rows and outputs fit the bucket (`count_rows`)."""
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[int] = []
        for index, chunk in enumerate(chunks):
            count = len(chunk.token_ids)
            tokens += chunk.token_ids
            positions += range(chunk.start, chunk.start + count)
            sequences += [index] * count
            outputs += range(len(tokens) - chunk.scores, len(tokens))
            table = chunk.block_table[: self.table_blocks]
            self.tables[index, : len(table)] = table
        # one assignment per array: numpy takes a microsecond for each, however few the values
        rows = len(tokens)
        self.tokens[:rows], self.positions[:rows], self.sequences[:rows] = tokens, positions, sequences
        self.outputs[: len(outputs)] = outputs
