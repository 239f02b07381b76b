"""A step as rank 0 tells it to the others: one flat array of int32, nothing that would have to be unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from inference_pods.kernels.decoder import Chunk

_FIELDS = 5  # tokens, blocks, start, scores, level


class Command(IntEnum):
    """What a rank does next."""

    STOP = 0
    STEP = 1
    WARM = 2


def encode_chunks(chunks: Sequence[Chunk]) -> NDArray[np.int32]:
    """Per chunk its five numbers, its tokens, its block table."""
    values: list[int] = []
    for chunk in chunks:
        values += (len(chunk.token_ids), len(chunk.block_table), chunk.start, chunk.scores, chunk.level)
        values += chunk.token_ids
        values += chunk.block_table
    return np.array(values, np.int32)


def decode_chunks(values: NDArray[np.int32]) -> list[Chunk]:
    """The chunks that `encode_chunks` was given.

    Raises:
        ValueError: the array ends within a chunk.
    """
    numbers: list[int] = values.tolist()
    chunks: list[Chunk] = []
    at = 0
    while at < len(numbers):
        header = numbers[at : at + _FIELDS]
        if len(header) < _FIELDS or at + _FIELDS + header[0] + header[1] > len(numbers):
            raise ValueError(f"a step of {len(numbers)} numbers ends within a chunk that starts at {at}")
        tokens, blocks, start, scores, level = header
        first, middle = at + _FIELDS, at + _FIELDS + tokens
        at = middle + blocks
        chunks.append(Chunk(numbers[first:middle], start, numbers[middle:at], scores, level))
    return chunks
