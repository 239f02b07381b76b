"""The memory layout that all quantised matrices share: tiles along K, rows of one tile next to each other.

A [N, K] matrix is cut along K; tile t holds the bytes of all N rows: [tiles, N, bytes of a row in a tile]. A program
that computes BLOCK_N outputs reads BLOCK_N rows of a tile, which are one contiguous run of memory (row-major [N, K]
would give BLOCK_N short pieces, K apart). Scales lie as [groups, N]: contiguous along N, like the outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

GROUP = 32  # weights that share one scale
NIBBLE_TILE = 64  # weights of a row in a tile of nibbles: two groups, one in the low, one in the high nibbles


def check_weights(weights: torch.Tensor, multiple: int) -> None:
    """Raises ValueError unless weights is a finite [N, K] of fp32 with K a multiple of `multiple`."""
    if weights.ndim != 2 or weights.dtype != torch.float32:
        raise ValueError(f"weights are {weights.dtype} {tuple(weights.shape)}; expected float32 [rows, columns]")
    if weights.shape[1] == 0 or weights.shape[1] % multiple:
        raise ValueError(f"weights have {weights.shape[1]} columns; the layout needs a multiple of {multiple}")
    if not bool(torch.isfinite(weights).all()):
        raise ValueError("weights hold values that are not finite")


def pad_columns(codes: torch.Tensor, multiple: int) -> torch.Tensor:
    """[N, K] with zero columns appended up to a multiple."""
    return F.pad(codes, (0, -codes.shape[1] % multiple))


def tile(codes: torch.Tensor, width: int) -> torch.Tensor:
    """[N, K] -> [K / width, N, width], contiguous."""
    rows, columns = codes.shape
    return codes.reshape(rows, columns // width, width).transpose(0, 1).contiguous()


def untile(tiles: torch.Tensor) -> torch.Tensor:
    """[tiles, N, width] -> [N, tiles * width]."""
    return tiles.transpose(0, 1).reshape(tiles.shape[1], -1)


def tile_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """[N, K] of 0..15 -> uint8 [ceil(K/64), N, 32]: byte j holds weight j (low nibble) and weight j + 32 (high)."""
    tiles = tile(pad_columns(codes.to(torch.uint8), NIBBLE_TILE), NIBBLE_TILE)
    return (tiles[..., :GROUP] | (tiles[..., GROUP:] << 4)).contiguous()


def untile_nibbles(plane: torch.Tensor, columns: int) -> torch.Tensor:
    """The codes [N, columns] of a plane."""
    return untile(torch.cat([plane & 15, plane >> 4], dim=-1))[:, :columns]


def pad_groups(values: torch.Tensor) -> torch.Tensor:
    """[groups, N] with a zero group appended if their number is odd, so that each nibble tile has two."""
    return F.pad(values, (0, 0, 0, values.shape[0] % 2)).contiguous()


def spread_groups(values: torch.Tensor, columns: int, group: int = GROUP) -> torch.Tensor:
    """[groups, N] -> [N, columns]: each group's value beside each of its weights."""
    return values.float().T.repeat_interleave(group, dim=1)[:, :columns]
