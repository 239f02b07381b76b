"""Matmul with nested weights: one pair of planes serves int8 (both) and int4 (the high plane alone).

w4 = S·hi + m is the direct int4 code (w4a16.py, bit for bit the same plane); w8 = w4 + S/STEP · lo refines it, lo in
−8..7 stored as lo + 8. In the kernel both planes become one code c = STEP·hi + lo (−8..247: exact in both types), so
the int8 level costs one dot per group, as int4 does: w8 = S/STEP · c + m. STEP is 16, or 8 for a calibrated high plane.
Layout: both planes as w4a16.py's, in two buffers, so that the int4 level never touches the low one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
import triton
import triton.language as tl

from inference_pods.kernels.reference import inverse
from inference_pods.kernels.triton.dispatch import (
    PER_STEP,
    WIDEN,
    block_rows,
    check_activations,
    matmul_warps,
    runs_triton,
)
from inference_pods.kernels.triton.tiles import (
    GROUP,
    check_weights,
    pad_groups,
    spread_groups,
    tile_nibbles,
    untile_nibbles,
)
from inference_pods.kernels.triton.w4a16 import add_group, int4_grid


class NestedLevel(IntEnum):
    """Which planes are read; the order is that of a nested tier's levels, best first."""

    INT8 = 0
    INT4 = 1


@dataclass(frozen=True, slots=True)
class NestedWeights:
    """[rows, columns] nested: planes uint8 [ceil(K/64), N, 32], scales and minima fp16 [2 * ceil(K/64), N]."""

    high: torch.Tensor
    low: torch.Tensor
    scales: torch.Tensor
    minima: torch.Tensor
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
    planes = tile_nibbles(high), tile_nibbles(low)
    return NestedWeights(*planes, pad_groups(scales), pad_groups(minima), rows, columns, step)


def unpack_nested(matrix: NestedWeights, level: NestedLevel) -> torch.Tensor:
    """fp32 [N, K]: the values that the kernel computes with at this level."""
    scale = spread_groups(matrix.scales, matrix.columns)
    weights = untile_nibbles(matrix.high, matrix.columns) * scale + spread_groups(matrix.minima, matrix.columns)
    if level == NestedLevel.INT4:
        return weights
    low = untile_nibbles(matrix.low, matrix.columns).float() - 8
    return weights + low * scale / matrix.step


def reference_nested(x: torch.Tensor, matrix: NestedWeights, level: NestedLevel) -> torch.Tensor:
    """[M, K] -> [M, N] in x's type, through fp32."""
    return (x.float() @ unpack_nested(matrix, level).T).to(x.dtype)


@triton.jit(do_not_specialize=PER_STEP)
def nested_kernel(
    x, high, low, scales, minima, y, M, N, K,
    LEVEL: tl.constexpr, STEP: tl.constexpr, WIDEN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, 32)
    row_mask = rows[:, None] < M
    output_mask = outputs < N
    a_tile = x + rows[:, None].to(tl.int64) * K + inner[None, :]
    w_offsets = outputs[None, :].to(tl.int64) * 32 + inner[:, None]
    scale_row = scales + outputs
    minimum_row = minima + outputs
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for t in range(tl.cdiv(K, 64)):
        first_x = tl.load(a_tile, mask=row_mask, other=0.0)
        second_x = tl.load(a_tile + 32, mask=row_mask & (t * 64 + 32 + inner[None, :] < K), other=0.0)
        packed = tl.load(high + w_offsets, mask=output_mask[None, :], other=0)
        first = (packed & 15).to(tl.int16)
        second = (packed >> 4).to(tl.int16)
        if LEVEL == 0:
            residual = tl.load(low + w_offsets, mask=output_mask[None, :], other=0)
            first = first * STEP + (residual & 15).to(tl.int16) - 8
            second = second * STEP + (residual >> 4).to(tl.int16) - 8
        divisor: tl.constexpr = STEP if LEVEL == 0 else 1
        total = add_group(total, first_x, first, scale_row, minimum_row, output_mask, divisor, WIDEN)
        total = add_group(total, second_x, second, scale_row + N, minimum_row + N, output_mask, divisor, WIDEN)
        a_tile += 64
        w_offsets += N.to(tl.int64) * 32
        scale_row += 2 * N
        minimum_row += 2 * N
    target = y + rows[:, None].to(tl.int64) * N + outputs[None, :]
    tl.store(target, total.to(y.dtype.element_ty), mask=row_mask & output_mask[None, :])


def nested(x: torch.Tensor, matrix: NestedWeights, level: NestedLevel) -> torch.Tensor:
    """[M, K] fp16 or bf16 -> [M, N] in the same type. Raises ValueError when shape, type or device don't fit."""
    check_activations(x, matrix.columns, matrix.high.device)
    if not runs_triton(x):
        return reference_nested(x, matrix, level)
    y = torch.empty((x.shape[0], matrix.rows), dtype=x.dtype, device=x.device)
    block_m = block_rows(x.shape[0])
    grid = (triton.cdiv(matrix.rows, 64), triton.cdiv(x.shape[0], block_m))
    nested_kernel[grid](
        x, matrix.high, matrix.low, matrix.scales, matrix.minima, y, x.shape[0], matrix.rows, matrix.columns,
        LEVEL=int(level), STEP=matrix.step, WIDEN=WIDEN, BLOCK_M=block_m, BLOCK_N=64, num_warps=matmul_warps(block_m),
    )  # fmt: skip
    return y
