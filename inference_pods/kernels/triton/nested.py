"""Matmul with nested weights: one pair of planes serves int8 (both) and int4 (the high plane alone).

w4 = S·hi + m is the direct int4 code (w4a16.py, bit for bit the same plane); w8 = w4 + S/STEP · lo refines it, lo in
−8..7 stored as lo + 8. In the kernel both planes become one code c = STEP·hi + lo + 8, so the int8 level costs little
more than int4 does: w8 = S/STEP · (c − 8) + m. STEP is 16, or 8 for a calibrated high plane.
Layout: both planes as w4a16.py's, in two buffers, so that the int4 level never touches the low one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
import triton
import triton.language as tl

from inference_pods.kernels.reference import inverse
from inference_pods.kernels.triton.dispatch import PER_STEP, WIDEN, check_activations, runs_triton
from inference_pods.kernels.triton.spread import Tile, choose_spread, make_counters, own_part, store_sum
from inference_pods.kernels.triton.tiles import GROUP, check_weights, spread_groups, tile_words, untile_words
from inference_pods.kernels.triton.w4a16 import int4_grid, spread_grid, store_grid
from inference_pods.kernels.triton.words import half_of, load_slice, multiply_slice, place, place_pair

# Measured at 16 rows and at 64 (docs/kernels-gpu.md).
TILES = (Tile(16, 64, 4, 3, 2), Tile(32, 64, 4, 3, 2), Tile(64, 128, 4, 3, 2))


class NestedLevel(IntEnum):
    """Which planes are read; the order is that of a nested tier's levels, best first."""

    INT8 = 0
    INT4 = 1


@dataclass(frozen=True, slots=True)
class NestedWeights:
    """[rows, columns] nested: planes int32 [ceil(K/128), N, 16], grid (S, m) fp16 [4 * ceil(K/128), N, 2].

    `counters`: of its tiles (spread.py).
    """

    high: torch.Tensor
    low: torch.Tensor
    grid: torch.Tensor
    counters: torch.Tensor
    rows: int
    columns: int
    step: int


def pack_nested(weights: torch.Tensor, step: int = 16) -> NestedWeights:
    """Quantises fp32 [N, K], K a multiple of 32, to two planes; `step` (16 or 8) divides the low plane's scale.

    Raises ValueError for other shapes, types, steps and non-finite values.
    """
    check_weights(weights, GROUP)
    if step not in (8, 16):
        raise ValueError(f"step is {step}; the low plane's scale is a 16th or an 8th of the high plane's")
    rows, columns = weights.shape
    high, scales, minima = int4_grid(weights)
    scale = spread_groups(scales, columns)
    residual = weights - (high * scale + spread_groups(minima, columns))
    low = torch.round(residual * inverse(scale / step)).clamp(-8, 7).to(torch.int32) + 8
    counters = make_counters(rows, weights.device)
    return NestedWeights(tile_words(high), tile_words(low), store_grid(scales, minima), counters, rows, columns, step)


def unpack_nested(matrix: NestedWeights, level: NestedLevel) -> torch.Tensor:
    """fp32 [N, K]: the values that the format stores at this level."""
    scale, minimum = spread_grid(matrix.grid, matrix.columns)
    weights = untile_words(matrix.high, matrix.columns) * scale + minimum
    if level == NestedLevel.INT4:
        return weights
    low = untile_words(matrix.low, matrix.columns).float() - 8
    return weights + low * scale / matrix.step


def reference_nested(x: torch.Tensor, matrix: NestedWeights, level: NestedLevel) -> torch.Tensor:
    """[M, K] -> [M, N] in x's type, through fp32."""
    return (x.float() @ unpack_nested(matrix, level).to(x.dtype).float().T).to(x.dtype)


@triton.jit(do_not_specialize=PER_STEP)
def nested_kernel(
    x, high, low, grid, y, partial, counters, M, N, K,
    LEVEL: tl.constexpr, STEP: tl.constexpr, WIDEN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, 16)
    output_mask = outputs < N
    first, end = own_part(tl.cdiv(K, 128))
    w_offsets = (first.to(tl.int64) * N + outputs[None, :]) * 16 + inner[:, None]
    grid_row = grid + first * 4 * N + outputs
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for t in range(first, end):
        coarse = tl.load(high + w_offsets, mask=output_mask[None, :], other=0)
        if LEVEL == 0:
            fine = tl.load(low + w_offsets, mask=output_mask[None, :], other=0)
        for g in tl.static_range(4):
            pair = tl.load(grid_row + g * N, mask=output_mask, other=0)
            scale = half_of(pair, 0)[None, :]
            minimum = half_of(pair, 1)[None, :]
            if LEVEL == 0:
                scale *= 1.0 / STEP
                minimum -= 264.0 * scale
            else:
                minimum -= 16.0 * scale
            for s in tl.static_range(2 * g, 2 * g + 2):
                a = load_slice(x, rows, inner, t * 128 + s * 16, M, K)
                codes = place_pair(coarse, fine, 4 * s, STEP) if LEVEL == 0 else place(coarse, 4 * s, WIDEN)
                total = multiply_slice(total, a, codes * scale + minimum, WIDEN)
        w_offsets += N.to(tl.int64) * 16
        grid_row += 4 * N
    store_sum(total, y, partial, counters, rows, outputs, M, N, BLOCK_M, BLOCK_N)


def nested(x: torch.Tensor, matrix: NestedWeights, level: NestedLevel) -> torch.Tensor:
    """[M, K] fp16 or bf16 -> [M, N] in the same type. Raises ValueError when shape, type or device don't fit."""
    check_activations(x, matrix.columns, matrix.high.device)
    if not runs_triton(x):
        return reference_nested(x, matrix, level)
    y = torch.empty((x.shape[0], matrix.rows), dtype=x.dtype, device=x.device)
    spread = choose_spread(TILES, len(x), matrix.rows, len(matrix.high), x.device)
    nested_kernel[spread.grid](
        x, matrix.high, matrix.low, matrix.grid.view(torch.int32), y, spread.make_partial_sums(x.device),
        matrix.counters, len(x), matrix.rows, matrix.columns,
        LEVEL=int(level), STEP=matrix.step, WIDEN=WIDEN, **spread.arguments,
    )  # fmt: skip
    return y
