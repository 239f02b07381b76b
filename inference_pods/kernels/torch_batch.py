"""The tensors of one step of the torch decoder: rows, the KV slots they write and read, and which of them get scores.

Sequences that bring one row (decoding) attend together, padded to the longest; prompt chunks attend one by one.
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

_OFFSETS = np.arange(BLOCK_TOKENS, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class PromptChunk:
    """Rows `start:stop` are one sequence's; it reads slots [positions]; `visible` [rows, positions]."""

    start: int
    stop: int
    slots: Tensor
    visible: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """int64 tokens, positions and written KV slots [rows]; decoding rows [decoding] with the slots they read and which
    of these are filled [decoding, longest]; outputs: the rows that get scores."""

    tokens: Tensor
    positions: Tensor
    write_slots: Tensor
    decoding: Tensor
    read_slots: Tensor
    visible: Tensor
    prompts: tuple[PromptChunk, ...]
    outputs: Tensor

    @property
    def is_decoding_only(self) -> bool:
        return not self.prompts


def _slots(chunk: Chunk) -> NDArray[np.int64]:
    """KV slot of each of the sequence's positions up to the chunk's end."""
    end = chunk.start + len(chunk.token_ids)
    blocks = np.array(chunk.block_table[: -(-end // BLOCK_TOKENS)], np.int64)
    return (blocks[:, None] * BLOCK_TOKENS + _OFFSETS).reshape(-1)[:end]


def build_batch(chunks: Sequence[Chunk], device: torch.device) -> Batch:
    """Tensors of a step on a device."""
    tokens: list[int] = []
    positions: list[int] = []
    written: list[NDArray[np.int64]] = []
    outputs: list[int] = []
    decoding: list[tuple[int, NDArray[np.int64]]] = []
    prompts: list[PromptChunk] = []
    for chunk in chunks:
        first, slots = len(tokens), _slots(chunk)
        tokens += chunk.token_ids
        positions += range(chunk.start, len(slots))
        written.append(slots[chunk.start :])
        outputs += range(len(tokens) - chunk.scores, len(tokens))
        if len(chunk.token_ids) == 1:
            decoding.append((first, slots))
        else:
            prompts.append(_build_prompt(first, chunk.start, slots, device))
    read, visible = _pad([slots for _, slots in decoding])

    def place(values: Sequence[int] | NDArray[np.int64]) -> Tensor:
        return torch.as_tensor(np.asarray(values, np.int64)).to(device)

    return Batch(
        place(tokens), place(positions), place(np.concatenate(written)), place([row for row, _ in decoding]),
        place(read), torch.from_numpy(visible).to(device), tuple(prompts), place(outputs),
    )  # fmt: skip


def _build_prompt(first: int, start: int, slots: NDArray[np.int64], device: torch.device) -> PromptChunk:
    columns = torch.arange(len(slots))
    visible = columns <= torch.arange(start, len(slots))[:, None]
    return PromptChunk(first, first + len(slots) - start, torch.from_numpy(slots).to(device), visible.to(device))


def _pad(rows: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    longest = max((len(row) for row in rows), default=0)
    padded = np.zeros((len(rows), longest), np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    lengths = np.array([len(row) for row in rows], np.int64)
    return padded, np.arange(longest) < lengths[:, None]
