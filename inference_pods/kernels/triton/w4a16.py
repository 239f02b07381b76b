"""Matmul with int4 weights and fp16/bf16 activations (W4A16): y = x · Wᵀ, accumulated in fp32.

Asymmetric groups of 32 along K: w = S · code + m with code 0..15, scale S and minimum m in fp16. As in w8a16.py codes
go to the tensor cores and each group is scaled in fp32: Σ w·x = S · Σ code·x + m · Σ x.
Layout: uint8 [K/64, N, 32], byte j of a tile holds weight j (low nibble) and j + 32 (high), so the two halves of the
bytes are two whole groups and nothing has to be shuffled between registers. S and m: fp16 [groups, N], groups even.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from inference_pods.kernels.reference import inverse
from inference_pods.kernels.triton.dispatch import PER_STEP, WIDEN, block_rows, check_activations, runs_triton
from inference_pods.kernels.triton.tiles import (
    GROUP,
    check_weights,
    pad_groups,
    spread_groups,
    tile_nibbles,
    untile_nibbles,
)


@dataclass(frozen=True, slots=True)
class Int4Weights:
    """[rows, columns] in int4: plane uint8 [ceil(K/64), N, 32], scales and minima fp16 [2 * ceil(K/64), N]."""

    plane: torch.Tensor
    scales: torch.Tensor
    minima: torch.Tensor
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


def pack_int4(weights: torch.Tensor, span: int = GROUP) -> Int4Weights:
    """Quantises fp32 [N, K], K a multiple of 32; raises ValueError for other shapes, types and non-finite values."""
    check_weights(weights, GROUP)
    codes, scales, minima = int4_grid(weights, span)
    return Int4Weights(tile_nibbles(codes), pad_groups(scales), pad_groups(minima), *weights.shape)


def unpack_int4(matrix: Int4Weights) -> torch.Tensor:
    """fp32 [N, K]: the values that the kernel computes with."""
    codes = untile_nibbles(matrix.plane, matrix.columns).float()
    return codes * spread_groups(matrix.scales, matrix.columns) + spread_groups(matrix.minima, matrix.columns)


def reference_w4a16(x: torch.Tensor, matrix: Int4Weights) -> torch.Tensor:
    """[M, K] -> [M, N] in x's type, through fp32."""
    return (x.float() @ unpack_int4(matrix).T).to(x.dtype)


@triton.jit
def add_group(total, a, codes, scales, minima, output_mask, STEP: tl.constexpr, WIDEN: tl.constexpr):
    """Adds one group's share, S/STEP · Σ code·x + m · Σ x, to the running sums [BLOCK_M, BLOCK_N]."""
    scale = tl.load(scales, mask=output_mask, other=0.0).to(tl.float32) * (1.0 / STEP)
    minimum = tl.load(minima, mask=output_mask, other=0.0).to(tl.float32)
    if WIDEN:
        a = a.to(tl.float32)
    w = codes.to(a.dtype)
    sums = tl.sum(a.to(tl.float32), axis=1)
    return total + tl.dot(a, w) * scale[None, :] + sums[:, None] * minimum[None, :]


@triton.jit(do_not_specialize=PER_STEP)
def w4a16_kernel(
    x, plane, scales, minima, y, M, N, K,
    WIDEN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, 32)
    row_mask = rows[:, None] < M
    output_mask = outputs < N
    a_tile = x + rows[:, None].to(tl.int64) * K + inner[None, :]
    w_tile = plane + outputs[None, :].to(tl.int64) * 32 + inner[:, None]
    scale_row = scales + outputs
    minimum_row = minima + outputs
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for t in range(tl.cdiv(K, 64)):
        low_x = tl.load(a_tile, mask=row_mask, other=0.0)
        high_x = tl.load(a_tile + 32, mask=row_mask & (t * 64 + 32 + inner[None, :] < K), other=0.0)
        packed = tl.load(w_tile, mask=output_mask[None, :], other=0)
        total = add_group(total, low_x, packed & 15, scale_row, minimum_row, output_mask, 1, WIDEN)
        total = add_group(total, high_x, packed >> 4, scale_row + N, minimum_row + N, output_mask, 1, WIDEN)
        a_tile += 64
        w_tile += N.to(tl.int64) * 32
        scale_row += 2 * N
        minimum_row += 2 * N
    target = y + rows[:, None].to(tl.int64) * N + outputs[None, :]
    tl.store(target, total.to(y.dtype.element_ty), mask=row_mask & output_mask[None, :])


def w4a16(x: torch.Tensor, matrix: Int4Weights) -> torch.Tensor:
    """[M, K] fp16 or bf16 -> [M, N] in the same type. Raises ValueError when shape, type or device don't fit."""
    check_activations(x, matrix.columns, matrix.plane.device)
    if not runs_triton(x):
        return reference_w4a16(x, matrix)
    y = torch.empty((x.shape[0], matrix.rows), dtype=x.dtype, device=x.device)
    block_m = block_rows(x.shape[0])
    grid = (triton.cdiv(matrix.rows, 64), triton.cdiv(x.shape[0], block_m))
    w4a16_kernel[grid](
        x, matrix.plane, matrix.scales, matrix.minima, y, x.shape[0], matrix.rows, matrix.columns,
        WIDEN=WIDEN, BLOCK_M=block_m, BLOCK_N=64,
    )  # fmt: skip
    return y
