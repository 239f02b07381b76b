"""Matmul with int4 weights and fp16/bf16 activations (W4A16): y = x · Wᵀ, accumulated in fp32.

Asymmetric groups of 32 along K: w = S · code + m with code 0..15, scale S and minimum m in fp16. A program makes
weights of the codes in registers, in fp32, rounds them to the activations' type and leaves all sums to the tensor
cores. To scale each group's sum, as w8a16.py does, took 1.5 times as long: m needs the sum of its activations, too.
Layout: words of codes (tiles.py); S and m side by side, fp16 [groups, N, 2], groups up to whole tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from inference_pods.kernels.reference import inverse
from inference_pods.kernels.triton.dispatch import PER_STEP, WIDEN, check_activations, runs_triton
from inference_pods.kernels.triton.spread import Tile, choose_spread, make_counters, own_part, store_sum
from inference_pods.kernels.triton.tiles import (
    GROUP,
    check_weights,
    pad_groups,
    spread_groups,
    tile_words,
    untile_words,
)
from inference_pods.kernels.triton.words import half_of, load_slice, multiply_slice, place

# Measured at 16 rows and at 64 (docs/kernels-gpu.md).
TILES = (Tile(16, 64, 2, 3, 4), Tile(32, 64, 4, 3, 2), Tile(64, 128, 4, 3, 2))


@dataclass(frozen=True, slots=True)
class Int4Weights:
    """[rows, columns] in int4: plane int32 [ceil(K/128), N, 16], grid (S, m) fp16 [4 * ceil(K/128), N, 2].

    `counters`: of its tiles (spread.py).
    """

    plane: torch.Tensor
    grid: torch.Tensor
    counters: torch.Tensor
    rows: int
    columns: int


def int4_grid(weights: torch.Tensor, span: int = GROUP) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes [N, K] 0..15 in int32, scales and minima fp16 [K/32, N] of fp32 weights [N, K].

    `span` columns (one of SPANS) share a grid; it is repeated in each of their groups.
    """
    groups = weights.reshape(weights.shape[0], -1, GROUP)
    low, high = _spread(groups.amin(-1), span, torch.amin), _spread(groups.amax(-1), span, torch.amax)
    minima = low.to(torch.float16)
    scales = ((high - low) / 15).to(torch.float16)
    codes = torch.round((groups - minima.float()[..., None]) * inverse(scales.float())[..., None]).clamp(0, 15)
    return codes.to(torch.int32).reshape(weights.shape), scales.T.contiguous(), minima.T.contiguous()


def _spread(extremes: torch.Tensor, span: int, extreme: Callable[..., torch.Tensor]) -> torch.Tensor:
    """[N, groups] -> each group's extreme over all groups of its span; the last span of a row may be shorter."""
    parts = extremes.split(span // GROUP, dim=1)
    return torch.cat([extreme(part, 1, keepdim=True).expand_as(part) for part in parts], dim=1)


def store_grid(scales: torch.Tensor, minima: torch.Tensor) -> torch.Tensor:
    """Two [groups, N] -> [groups of whole tiles, N, 2], a word for each group."""
    return torch.stack([pad_groups(scales), pad_groups(minima)], dim=2).contiguous()


def spread_grid(grid: torch.Tensor, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """fp32 S and m [N, columns], each beside its weight."""
    return spread_groups(grid[..., 0], columns), spread_groups(grid[..., 1], columns)


def pack_int4(weights: torch.Tensor, span: int = GROUP) -> Int4Weights:
    """Quantises fp32 [N, K], K a multiple of 32; raises ValueError for other shapes, types and non-finite values."""
    check_weights(weights, GROUP)
    codes, scales, minima = int4_grid(weights, span)
    counters = make_counters(len(weights), weights.device)
    return Int4Weights(tile_words(codes), store_grid(scales, minima), counters, *weights.shape)


def unpack_int4(matrix: Int4Weights) -> torch.Tensor:
    """fp32 [N, K]: the values that the format stores."""
    scale, minimum = spread_grid(matrix.grid, matrix.columns)
    return untile_words(matrix.plane, matrix.columns) * scale + minimum


def reference_w4a16(x: torch.Tensor, matrix: Int4Weights) -> torch.Tensor:
    """[M, K] -> [M, N] in x's type, through fp32."""
    return (x.float() @ unpack_int4(matrix).to(x.dtype).float().T).to(x.dtype)


@triton.jit(do_not_specialize=PER_STEP)
def w4a16_kernel(
    x, plane, grid, y, partial, counters, M, N, K,
    WIDEN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, 16)
    output_mask = outputs < N
    first, end = own_part(tl.cdiv(K, 128))
    w_tile = plane + (first.to(tl.int64) * N + outputs[None, :]) * 16 + inner[:, None]
    grid_row = grid + first * 4 * N + outputs
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for t in range(first, end):
        words = tl.load(w_tile, mask=output_mask[None, :], other=0)
        for g in tl.static_range(4):
            pair = tl.load(grid_row + g * N, mask=output_mask, other=0)
            scale = half_of(pair, 0)[None, :]
            minimum = half_of(pair, 1)[None, :] - 16.0 * scale
            for s in tl.static_range(2 * g, 2 * g + 2):
                a = load_slice(x, rows, inner, t * 128 + s * 16, M, K)
                total = multiply_slice(total, a, place(words, 4 * s, WIDEN) * scale + minimum, WIDEN)
        w_tile += N.to(tl.int64) * 16
        grid_row += 4 * N
    store_sum(total, y, partial, counters, rows, outputs, M, N, BLOCK_M, BLOCK_N)


def w4a16(x: torch.Tensor, matrix: Int4Weights) -> torch.Tensor:
    """[M, K] fp16 or bf16 -> [M, N] in the same type. Raises ValueError when shape, type or device don't fit."""
    check_activations(x, matrix.columns, matrix.plane.device)
    if not runs_triton(x):
        return reference_w4a16(x, matrix)
    y = torch.empty((x.shape[0], matrix.rows), dtype=x.dtype, device=x.device)
    spread = choose_spread(TILES, len(x), matrix.rows, len(matrix.plane), x.device)
    w4a16_kernel[spread.grid](
        x, matrix.plane, matrix.grid.view(torch.int32), y, spread.make_partial_sums(x.device), matrix.counters,
        len(x), matrix.rows, matrix.columns,
        WIDEN=WIDEN, **spread.arguments,
    )  # fmt: skip
    return y
