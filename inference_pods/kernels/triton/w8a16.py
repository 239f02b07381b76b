"""Matmul with int8 weights and fp16/bf16 activations (W8A16): y = x · Wᵀ, accumulated in fp32.

Symmetric codes −127..127, one fp16 scale per group of 32 weights or one per row. The codes go to the tensor cores as
they are (exact in fp16 and bf16) and each group's sum is scaled in fp32, so that no dequantised weight is rounded.
Layout: int8 [K/32, N, 32] (tiles.py), scales fp16 [K/32, N] or [1, N].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from inference_pods.kernels.reference import inverse
from inference_pods.kernels.triton.dispatch import PER_STEP, WIDEN, check_activations, runs_triton
from inference_pods.kernels.triton.spread import Tile, choose_spread, make_counters, own_part, store_sum
from inference_pods.kernels.triton.tiles import GROUP, check_weights, spread_groups, tile, untile

# Few warps and many stages keep the most bytes in flight; measured at 16 rows (docs/kernels-gpu.md).
TILES = (Tile(16, 64, 2, 4, 8), Tile(32, 64, 4, 4, 4), Tile(64, 64, 8, 4, 4))


@dataclass(frozen=True, slots=True)
class Int8Weights:
    """[rows, columns] in int8: codes [K/32, N, 32], scales fp16 [K/32, N] or, per row, [1, N].

    `counters`: of its tiles (spread.py).
    """

    codes: torch.Tensor
    scales: torch.Tensor
    counters: torch.Tensor
    rows: int
    columns: int

    @property
    def per_row(self) -> bool:
        return self.scales.shape[0] == 1 and self.columns > GROUP


def pack_int8(weights: torch.Tensor, per_row: bool = False) -> Int8Weights:
    """Quantises fp32 [N, K], K a multiple of 32; raises ValueError for other shapes, types and non-finite values."""
    check_weights(weights, GROUP)
    rows, columns = weights.shape
    group = columns if per_row else GROUP
    groups = weights.reshape(rows, columns // group, group)
    scales = (groups.abs().amax(-1) / 127).to(torch.float16)
    codes = torch.round(groups * inverse(scales.float())[..., None]).clamp(-127, 127).to(torch.int8)
    counters = make_counters(rows, weights.device)
    return Int8Weights(tile(codes.reshape(rows, columns), GROUP), scales.T.contiguous(), counters, rows, columns)


def unpack_int8(matrix: Int8Weights) -> torch.Tensor:
    """fp32 [N, K]: the values that the kernel computes with."""
    group = matrix.columns // matrix.scales.shape[0]
    return untile(matrix.codes).float() * spread_groups(matrix.scales, matrix.columns, group)


def read_rows(matrix: Int8Weights, rows: torch.Tensor) -> torch.Tensor:
    """fp32 [M, K]: the weights of some rows, int64 [M]; what an embedding does with the matrix of the head."""
    values = matrix.codes[:, rows].float() * _grouped_scales(matrix)[:, rows, None].float()
    return values.transpose(0, 1).reshape(len(rows), matrix.columns)


def _grouped_scales(matrix: Int8Weights) -> torch.Tensor:
    return matrix.scales.expand(matrix.codes.shape[0], -1)


def reference_w8a16(x: torch.Tensor, matrix: Int8Weights, out_type: torch.dtype | None = None) -> torch.Tensor:
    """[M, K] -> [M, N] in `out_type` or x's type, through fp32."""
    return (x.float() @ unpack_int8(matrix).T).to(out_type or x.dtype)


@triton.jit(do_not_specialize=PER_STEP)
def w8a16_kernel(
    x, codes, scales, y, partial, counters, M, N, K,
    PER_ROW: tl.constexpr, WIDEN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, 32)
    row_mask = rows[:, None] < M
    output_mask = outputs < N
    first, end = own_part(K // 32)
    a_tile = x + rows[:, None].to(tl.int64) * K + first * 32 + inner[None, :]
    w_tile = codes + (first.to(tl.int64) * N + outputs[None, :]) * 32 + inner[:, None]
    scale_row = scales + outputs
    if not PER_ROW:
        scale_row += first * N
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for _ in range(first, end):
        a = tl.load(a_tile, mask=row_mask, other=0.0)
        w = tl.load(w_tile, mask=output_mask[None, :], other=0)
        if WIDEN:
            a = a.to(tl.float32)
        w = w.to(a.dtype)
        if PER_ROW:
            total = tl.dot(a, w, total)
        else:
            scale = tl.load(scale_row, mask=output_mask, other=0.0).to(tl.float32)
            total += tl.dot(a, w) * scale[None, :]
            scale_row += N
        a_tile += 32
        w_tile += N.to(tl.int64) * 32
    if PER_ROW:
        total *= tl.load(scale_row, mask=output_mask, other=0.0).to(tl.float32)[None, :]
    store_sum(total, y, partial, counters, rows, outputs, M, N, BLOCK_M, BLOCK_N)


def w8a16(x: torch.Tensor, matrix: Int8Weights, out_type: torch.dtype | None = None) -> torch.Tensor:
    """[M, K] fp16 or bf16 -> [M, N] in `out_type`, or the same type: scores want fp32, bf16 makes ties of them.

    Raises ValueError when shape, type or device don't fit.
    """
    check_activations(x, matrix.columns, matrix.codes.device)
    if not runs_triton(x):
        return reference_w8a16(x, matrix, out_type)
    y = torch.empty((x.shape[0], matrix.rows), dtype=out_type or x.dtype, device=x.device)
    spread = choose_spread(TILES, len(x), matrix.rows, len(matrix.codes), x.device)
    w8a16_kernel[spread.grid](
        x, matrix.codes, matrix.scales, y, spread.make_partial_sums(x.device), matrix.counters,
        len(x), matrix.rows, matrix.columns,
        PER_ROW=matrix.per_row, WIDEN=WIDEN, **spread.arguments,
    )  # fmt: skip
    return y
