"""The tensors of one step of the torch decoder: rows, the KV slots they write and read, and which of them get scores.

Sequences that bring one row (decoding) attend together; prompt chunks attend one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_pods.kernels.decoder import Chunk
from inference_pods.kernels.formats import BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class PromptChunk:
    """Rows `start:stop` are one sequence's; it reads the int64 `blocks` in order; `visible` [rows, positions]."""

    start: int
    stop: int
    blocks: Tensor
    visible: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Of every row: int64 token, int32 position, and the KV block and the place in it that it writes (int64).

    Of every decoding row: its int64 number, and int32 block_tables [decoding, blocks] and lengths [decoding], the new
    token included. outputs: int64 numbers of the rows that get scores.
    """

    tokens: Tensor
    positions: Tensor
    write_blocks: Tensor
    write_offsets: Tensor
    decoding: Tensor
    block_tables: Tensor
    lengths: Tensor
    prompts: tuple[PromptChunk, ...]
    outputs: Tensor

    @property
    def is_decoding_only(self) -> bool:
        return not self.prompts


def build_batch(chunks: Sequence[Chunk], device: torch.device) -> Batch:
    """Tensors of a step on a device."""
    tokens: list[int] = []
    positions: list[int] = []
    written: list[int] = []
    outputs: list[int] = []
    decoding: list[tuple[int, Chunk]] = []
    prompts: list[PromptChunk] = []
    for chunk in chunks:
        first, own = len(tokens), range(chunk.start, chunk.start + len(chunk.token_ids))
        tokens += chunk.token_ids
        positions += own
        written += [chunk.block_table[position // BLOCK_TOKENS] for position in own]
        outputs += range(len(tokens) - chunk.scores, len(tokens))
        if len(own) == 1:
            decoding.append((first, chunk))
        else:
            prompts.append(_build_prompt(first, chunk, device))

    def place(values: Sequence[int] | NDArray[np.int32], kind: type[np.integer] = np.int64) -> Tensor:
        return torch.as_tensor(np.asarray(values, kind)).to(device)

    return Batch(
        place(tokens),
        place(positions, np.int32),
        place(written),
        place([position % BLOCK_TOKENS for position in positions]),
        place([row for row, _ in decoding]),
        place(_pad([_read_blocks(chunk) for _, chunk in decoding]), np.int32),
        place([chunk.start + 1 for _, chunk in decoding], np.int32),
        tuple(prompts),
        place(outputs),
    )


def build_filler(rows: int, outputs: int, longest: int, block: int) -> list[Chunk]:
    """A step of `rows` rows and `outputs` scores, at most one per row, that reads and writes one KV block only.

    One row decodes, the others are prompts of up to `longest` tokens. All end at position `longest`: the last chunk of
    a long prompt gathers the most keys and values. Its scores mean nothing.
    """
    lengths = [1] + [min(longest, rows - first) for first in range(1, rows, longest)]
    table = [block] * -(-longest // BLOCK_TOKENS)
    chunks = []
    for length in lengths:
        scores = min(length, outputs)
        outputs -= scores
        chunks.append(Chunk([0] * length, longest - length, table, scores))
    return chunks


def _read_blocks(chunk: Chunk) -> list[int]:
    """The blocks that hold the sequence's positions up to the chunk's end; a table may have more."""
    return chunk.block_table[: -(-(chunk.start + len(chunk.token_ids)) // BLOCK_TOKENS)]


def _build_prompt(first: int, chunk: Chunk, device: torch.device) -> PromptChunk:
    count = len(chunk.token_ids)
    end = chunk.start + count
    visible = torch.arange(end) <= torch.arange(chunk.start, end)[:, None]
    blocks = torch.tensor(_read_blocks(chunk), dtype=torch.int64)
    return PromptChunk(first, first + count, blocks.to(device), visible.to(device))


def _pad(tables: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    longest = max((len(table) for table in tables), default=0)
    padded = np.zeros((len(tables), longest), np.int32)
    for index, table in enumerate(tables):
        padded[index, : len(table)] = table
    return padded
