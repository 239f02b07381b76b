"""The memory layouts of quantised matrices: bytes, and words of nibbles.

A [N, K] matrix is cut along K into tiles; tile t holds what belongs to all N rows: [tiles, N, width]. A program that
computes BLOCK_N outputs reads BLOCK_N rows of a tile, which are one contiguous run of memory (row-major [N, K] would
give BLOCK_N short pieces, K apart). Scales lie as [groups, N]: contiguous along N, like the outputs.
A tile of nibbles is 128 weights in 16 words of 32 bits per row. Slice s, the weights 16·s to 16·s + 15 of the tile,
lies in the same bits of all 16 words, so it is taken out by a shift and a mask and nothing moves between registers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

GROUP = 32  # weights that share one scale
SLICE = 16  # weights in the same bits of a tile's words: what one instruction of the tensor cores takes along K
NIBBLE = 4
WORD_TILE = 128  # weights of a row in a tile of words


def check_weights(weights: torch.Tensor, multiple: int) -> None:
    """Raises ValueError unless weights is a finite [N, K] of fp32 with K a multiple of `multiple`."""
    if weights.ndim != 2 or weights.dtype != torch.float32:
        raise ValueError(f"weights are {weights.dtype} {tuple(weights.shape)}; expected float32 [rows, columns]")
    if weights.shape[1] == 0 or weights.shape[1] % multiple:
        raise ValueError(f"weights have {weights.shape[1]} columns; the layout needs a multiple of {multiple}")
    if not bool(torch.isfinite(weights).all()):
        raise ValueError("weights hold values that are not finite")


def tile(codes: torch.Tensor, width: int) -> torch.Tensor:
    """[N, K] -> [K / width, N, width], contiguous."""
    rows, columns = codes.shape
    return codes.reshape(rows, columns // width, width).transpose(0, 1).contiguous()


def untile(tiles: torch.Tensor) -> torch.Tensor:
    """[tiles, N, width] -> [N, tiles * width]."""
    return tiles.transpose(0, 1).reshape(tiles.shape[1], -1)


def tile_words(codes: torch.Tensor) -> torch.Tensor:
    """[N, K] of codes from 0 to 15 -> int32 [ceil(K/128), N, 16]; the last tile is filled up with zeros."""
    padded = F.pad(codes.to(torch.int32), (0, -codes.shape[1] % WORD_TILE))
    slices = padded.reshape(len(codes), -1, WORD_TILE // SLICE, SLICE)
    words = torch.zeros_like(slices[:, :, 0])
    for index in range(slices.shape[2]):
        words |= slices[:, :, index] << (NIBBLE * index)
    return words.transpose(0, 1).contiguous()


def untile_words(words: torch.Tensor, columns: int) -> torch.Tensor:
    """The codes, int32 [N, columns], of a matrix in words."""
    slices = [words >> (NIBBLE * index) & 15 for index in range(WORD_TILE // SLICE)]
    return torch.stack(slices, 2).transpose(0, 1).reshape(words.shape[1], -1)[:, :columns]


def pad_groups(values: torch.Tensor) -> torch.Tensor:
    """[groups, N] with groups of zeros appended up to whole tiles of words."""
    return F.pad(values, (0, 0, 0, -len(values) % (WORD_TILE // GROUP)))


def spread_groups(values: torch.Tensor, columns: int, group: int = GROUP) -> torch.Tensor:
    """[groups, N] -> [N, columns]: each group's value beside each of its weights."""
    return values.float().T.repeat_interleave(group, dim=1)[:, :columns]
