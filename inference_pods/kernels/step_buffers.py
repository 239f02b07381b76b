"""The compiled step's plan: the input arrays of one shape bucket and their addresses, made once.

Per step it saves six allocations and as many look-ups of an address. Knows chunks, not kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inference_pods.kernels.batch import Chunk, check_chunk
from inference_pods.kernels.step_plans import PlanKey


def count_rows(chunks: Sequence[Chunk], levels: int) -> tuple[int, int]:
    """(rows, outputs) of a step.

    Raises:
        ValueError: see check_chunk.
    """
    for chunk in chunks:
        check_chunk(chunk, levels)
    return sum(len(chunk.token_ids) for chunk in chunks), sum(chunk.scores for chunk in chunks)


class StepBuffers:
    """Arrays of int32: groups [groups, 3] of level, rows and outputs; tokens, positions and sequences per row; block
    tables [sequences, table_blocks]; output rows, counted from their group's first row.

    Addresses stay valid as long as the object lives. What an earlier, larger step left behind is never read: groups say
    how many rows and outputs there are, and a table is read up to its sequence's position.
    """

    def __init__(self, key: PlanKey, table_blocks: int) -> None:
        self.table_blocks = table_blocks
        self.groups = np.zeros((key.rows, 3), np.int32)
        self.tokens, self.positions, self.sequences = (np.zeros(key.rows, np.int32) for _ in range(3))
        self.tables = np.zeros((key.rows, table_blocks), np.int32)
        self.outputs = np.zeros(key.outputs, np.int32)
        arrays = (self.groups, self.tokens, self.positions, self.sequences, self.tables, self.outputs)
        self.addresses: tuple[int, ...] = tuple(array.ctypes.data for array in arrays)

    def fill(self, chunks: Sequence[Chunk]) -> tuple[int, list[int]]:
        """Lays out a step whose rows and outputs fit the bucket; within a level chunks keep their order.

        Returns the number of groups, and which of the outputs hold each chunk's scores, in the order of the chunks.
        """
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[int] = []
        groups: list[list[int]] = []
        first_output = [0] * len(chunks)
        for index in sorted(range(len(chunks)), key=lambda i: chunks[i].level):
            chunk = chunks[index]
            if not groups or groups[-1][0] != chunk.level:
                groups.append([chunk.level, 0, 0])
            group, count = groups[-1], len(chunk.token_ids)
            tokens += chunk.token_ids
            positions += range(chunk.start, chunk.start + count)
            sequences += [index] * count
            group[1] += count
            group[2] += chunk.scores
            first_output[index] = len(outputs)
            outputs += range(group[1] - chunk.scores, group[1])
            table = chunk.block_table[: self.table_blocks]
            self.tables[index, : len(table)] = table
        # one assignment per array: numpy takes a microsecond for each, however few the values
        rows = len(tokens)
        self.tokens[:rows], self.positions[:rows], self.sequences[:rows] = tokens, positions, sequences
        self.outputs[: len(outputs)] = outputs
        self.groups[: len(groups)] = groups
        order = [first + i for first, chunk in zip(first_output, chunks, strict=True) for i in range(chunk.scores)]
        return len(groups), order
