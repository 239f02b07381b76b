"""Matmul with 2:4 sparse int8 weights and fp16/bf16 activations: y = x · Wᵀ, accumulated in fp32.

Of every four weights along K two are kept: int8 codes plus two 2-bit positions; one fp16 scale per 64 weights. They are
spread to a dense tile *in registers* and multiplied by the ordinary dense mma. This saves bandwidth (5.25 bits a weight
instead of 8.5), not tensor-core flops: the sparse mma (mma.sp) is not used, Triton has no way to emit it.
Layout: values int8 [K/64, N, 32]: 16 first, then 16 second kept codes of a tile's 16 quads; positions uint8
[K/64, N, 8]: quad g low in byte g, quad g + 8 high, first position in the nibble's low two bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from inference_pods.kernels.reference import inverse
from inference_pods.kernels.triton.dispatch import PER_STEP, WIDEN, check_activations, runs_triton
from inference_pods.kernels.triton.spread import Tile, choose_spread, make_counters, own_part, store_sum
from inference_pods.kernels.triton.tiles import check_weights, spread_groups, tile, untile

TILE = 64  # weights of a row in a tile, and weights that share one scale
TILES = (Tile(16, 64, 4, 4, 4), Tile(32, 64, 4, 4, 4), Tile(64, 64, 8, 4, 4))


@dataclass(frozen=True, slots=True)
class Sparse24Weights:
    """[rows, columns], two of four kept: values int8 [K/64, N, 32], positions uint8 [K/64, N, 8], scales [K/64, N].

    `counters`: of its tiles.
    """

    values: torch.Tensor
    positions: torch.Tensor
    scales: torch.Tensor
    counters: torch.Tensor
    rows: int
    columns: int


def pack_sparse24(weights: torch.Tensor) -> Sparse24Weights:
    """Keeps the two largest of every four fp32 weights [N, K], K a multiple of 64, and quantises them.

    Weights that already are 2:4 keep their pattern. Raises ValueError for other shapes, types and non-finite values.
    """
    check_weights(weights, TILE)
    rows, columns = weights.shape
    quads = weights.reshape(rows, columns // 4, 4)
    positions = quads.abs().topk(2, dim=-1).indices.sort(dim=-1).values
    kept = quads.gather(-1, positions).reshape(rows, columns // TILE, 16, 2)
    scales = (kept.abs().amax((-1, -2)) / 127).to(torch.float16)
    codes = torch.round(kept * inverse(scales.float())[..., None, None]).clamp(-127, 127).to(torch.int8)
    values = codes.transpose(-1, -2).reshape(rows, columns // 2)  # all first codes of a tile, then all second ones
    nibbles = (positions[..., 0] | positions[..., 1] << 2).to(torch.uint8).reshape(rows, columns // TILE, 16)
    packed = (nibbles[..., :8] | nibbles[..., 8:] << 4).reshape(rows, columns // 8)
    counters = make_counters(rows, weights.device)
    return Sparse24Weights(tile(values, 32), tile(packed, 8), scales.T.contiguous(), counters, rows, columns)


def unpack_sparse24(matrix: Sparse24Weights) -> torch.Tensor:
    """fp32 [N, K]: the values that the kernel computes with, zeros included."""
    shape = (matrix.rows, matrix.columns // TILE, 16)
    packed = untile(matrix.positions).reshape(*shape[:2], 8)
    nibbles = torch.cat([packed & 15, packed >> 4], dim=-1).to(torch.int64)
    positions = torch.stack([nibbles & 3, nibbles >> 2], dim=-1)
    values = untile(matrix.values).float().reshape(*shape[:2], 2, 16).transpose(-1, -2)
    dense = torch.zeros(*shape, 4, device=values.device).scatter(-1, positions, values)
    return dense.reshape(matrix.rows, matrix.columns) * spread_groups(matrix.scales, matrix.columns, TILE)


def reference_sparse24(x: torch.Tensor, matrix: Sparse24Weights) -> torch.Tensor:
    """[M, K] -> [M, N] in x's type, through fp32."""
    return (x.float() @ unpack_sparse24(matrix).T).to(x.dtype)


@triton.jit
def place(first, second, nibbles, POSITION: tl.constexpr):
    """The weights at one of the four positions of each quad: a kept code or zero."""
    kept = tl.where((nibbles & 3) == POSITION, first, 0)
    return tl.where(((nibbles >> 2) & 3) == POSITION, second, kept)


@triton.jit(do_not_specialize=PER_STEP)
def sparse24_kernel(
    x, values, positions, scales, y, partial, counters, M, N, K,
    WIDEN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    quads = tl.arange(0, 16)
    row_mask = rows[:, None] < M
    output_mask = outputs < N
    first_tile, end = own_part(K // 64)
    a_tile = x + rows[:, None].to(tl.int64) * K + first_tile * 64 + tl.arange(0, 64)[None, :]
    tile_rows = first_tile.to(tl.int64) * N + outputs[:, None]
    value_tile = values + tile_rows * 32 + quads[None, :]
    position_tile = positions + tile_rows * 8 + (quads % 8)[None, :]
    scale_row = scales + first_tile * N + outputs
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for _ in range(first_tile, end):
        a = tl.load(a_tile, mask=row_mask, other=0.0)
        first = tl.load(value_tile, mask=output_mask[:, None], other=0)
        second = tl.load(value_tile + 16, mask=output_mask[:, None], other=0)
        nibbles = tl.load(position_tile, mask=output_mask[:, None], other=0).to(tl.int32) >> (quads // 8 * 4)[None, :]
        even = tl.join(place(first, second, nibbles, 0), place(first, second, nibbles, 2))
        odd = tl.join(place(first, second, nibbles, 1), place(first, second, nibbles, 3))
        w = tl.reshape(tl.join(even, odd), (BLOCK_N, 64))
        if WIDEN:
            a = a.to(tl.float32)
        w = w.to(a.dtype)
        scale = tl.load(scale_row, mask=output_mask, other=0.0).to(tl.float32)
        total += tl.dot(a, tl.trans(w)) * scale[None, :]
        a_tile += 64
        value_tile += N.to(tl.int64) * 32
        position_tile += N.to(tl.int64) * 8
        scale_row += N
    store_sum(total, y, partial, counters, rows, outputs, M, N, BLOCK_M, BLOCK_N)


def sparse24(x: torch.Tensor, matrix: Sparse24Weights) -> torch.Tensor:
    """[M, K] fp16 or bf16 -> [M, N] in the same type. Raises ValueError when shape, type or device don't fit."""
    check_activations(x, matrix.columns, matrix.values.device)
    if not runs_triton(x):
        return reference_sparse24(x, matrix)
    y = torch.empty((x.shape[0], matrix.rows), dtype=x.dtype, device=x.device)
    spread = choose_spread(TILES, len(x), matrix.rows, len(matrix.values), x.device)
    sparse24_kernel[spread.grid](
        x, matrix.values, matrix.positions, matrix.scales, y,
        spread.make_partial_sums(x.device), matrix.counters, len(x), matrix.rows, matrix.columns,
        WIDEN=WIDEN, **spread.arguments,
    )  # fmt: skip
    return y
