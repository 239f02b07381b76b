"""The decoder in plain torch: same interface as `decoder.Decoder`, the path for hosts without compiled kernels.

Keeps fp32 values of the tier's quantised weights, so its quality is the tier's; speed and memory are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import silu

from inference_pods.kernels.batch import Chunk, check_chunk
from inference_pods.kernels.decoder import DecoderLimits, DecoderShape, TokenScores
from inference_pods.kernels.formats import BLOCK_TOKENS, GROUP, Precision, SourceType, TensorRole
from inference_pods.kernels.levels import Level, check_levels, default_levels
from inference_pods.kernels.reference import dequantise, fake_quantise

_VECTORS = (TensorRole.ATTN_NORM, TensorRole.FFN_NORM, TensorRole.OUTPUT_NORM)


@dataclass(frozen=True, slots=True)
class _LayerView:
    """One layer's matrices as a level reads them; call it for a product."""

    weights: dict[tuple[Precision, TensorRole, int], Tensor]
    read_as: Precision
    layer: int

    def __call__(self, x: Tensor, role: TensorRole) -> Tensor:
        return x @ self.weights[self.read_as, role, self.layer].T


class ReferenceDecoder:
    """Llama decoder, one sequence at a time. Tensors: [out, in]; KV: [layer, 2, slot, kv head, dim]."""

    variant = "torch"
    kv_precision = Precision.FP32  # stored; the values are rounded to what the limits say

    def __init__(
        self,
        shape: DecoderShape,
        limits: DecoderLimits,
        precision: Precision,
        levels: tuple[Level, ...] | None = None,
        span: int = GROUP,
    ) -> None:
        self.levels = levels if levels is not None else default_levels(precision)
        check_levels(self.levels, precision, shape.layers)
        torch.set_num_threads(limits.threads)
        self._shape, self._precision, self._span = shape, precision, span
        self._vectors: dict[tuple[TensorRole, int], Tensor] = {}
        # By what they are read as: a nested decoder holds the values of both of its planes' readings.
        self._weights: dict[tuple[Precision, TensorRole, int], Tensor] = {}
        self._kv = torch.zeros(shape.layers, 2, limits.kv_blocks * BLOCK_TOKENS, shape.kv_heads, shape.head_dim)
        self._round_kv = _KV_ROUNDINGS[limits.kv_precision]
        self._cos, self._sin = _rope_tables(shape, limits.max_positions)

    @property
    def weight_bytes(self) -> int:
        tensors = [*self._vectors.values(), *self._weights.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @property
    def kv_bytes(self) -> int:
        return self._kv.numel() * self._kv.element_size()

    def close(self) -> None:
        self._weights.clear()

    def load(
        self,
        role: TensorRole,
        layer: int,
        source: NDArray[np.uint8],
        kind: SourceType,
        rows: int,
        columns: int,
        row_map: NDArray[np.int32] | None = None,
        column_map: NDArray[np.int32] | None = None,
    ) -> None:
        """See Decoder.load."""
        weights = dequantise(torch.from_numpy(np.array(source)), kind, rows, columns)
        if row_map is not None:
            weights = weights[torch.from_numpy(row_map.astype(np.int64))]
        if column_map is not None:
            weights = weights[:, torch.from_numpy(column_map.astype(np.int64))]
        if role in _VECTORS:
            self._vectors[role, layer] = weights[0]
        elif role is TensorRole.HEAD:
            self._head = fake_quantise(weights, self._precision.head)
        else:
            self._add_matrix(role, layer, weights)

    def _add_matrix(self, role: TensorRole, layer: int, weights: Tensor) -> None:
        for read_as in {level.precision for level in self.levels}:
            both_planes = self._precision is Precision.NESTED and read_as is Precision.INT8
            stored = self._precision if both_planes else read_as
            self._weights[read_as, role, layer] = fake_quantise(weights, stored, self._span)

    @torch.inference_mode()
    def step(self, chunks: list[Chunk]) -> list[TokenScores]:
        """See Decoder.step."""
        scores = []
        for chunk in chunks:
            check_chunk(chunk, len(self.levels))
        for chunk in chunks:
            hidden = self._run(chunk)
            for row in hidden[len(chunk.token_ids) - chunk.scores :]:
                logits = row @ self._head.T
                scores.append(TokenScores(int(logits.argmax()), float(logits.logsumexp(0)), logits.numpy()))
        return scores

    def _run(self, chunk: Chunk) -> Tensor:
        level = self.levels[chunk.level]
        x = self._head[chunk.token_ids]
        end = chunk.start + len(chunk.token_ids)
        slots = torch.tensor(
            [chunk.block_table[p // BLOCK_TOKENS] * BLOCK_TOKENS + p % BLOCK_TOKENS for p in range(end)]
        )
        for layer in range(self._shape.layers):
            x = self._run_layer(_LayerView(self._weights, level.precision, layer), x, chunk.start, slots, level)
        return self._norm(x, TensorRole.OUTPUT_NORM, 0)

    def _run_layer(self, linear: _LayerView, x: Tensor, start: int, slots: Tensor, level: Level) -> Tensor:
        layer = linear.layer
        normal = self._norm(x, TensorRole.ATTN_NORM, layer)
        self._store_kv(linear, normal, start, slots)
        if layer in level.skipped_layers:
            return x
        x = x + self._attention(linear, normal, start, slots)
        h = self._norm(x, TensorRole.FFN_NORM, layer)
        return x + linear(silu(linear(h, TensorRole.GATE)) * linear(h, TensorRole.UP), TensorRole.DOWN)

    def _norm(self, x: Tensor, role: TensorRole, layer: int) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._shape.rms_eps) * self._vectors[role, layer]

    def _store_kv(self, linear: _LayerView, x: Tensor, start: int, slots: Tensor) -> None:
        k, v = (linear(x, role).view(x.shape[0], -1, self._shape.head_dim) for role in (TensorRole.K, TensorRole.V))
        k = self._rotate(k, start)
        for plane, values in enumerate((k, v)):
            self._kv[linear.layer, plane, slots[start:]] = self._round_kv(values)

    def _attention(self, linear: _LayerView, x: Tensor, start: int, slots: Tensor) -> Tensor:
        shape, rows = self._shape, x.shape[0]
        q = self._rotate(linear(x, TensorRole.Q).view(rows, -1, shape.head_dim), start)
        group = shape.heads // shape.kv_heads
        keys, values = (self._kv[linear.layer, plane, slots].repeat_interleave(group, 1) for plane in (0, 1))
        scores = torch.einsum("qhd,khd->hqk", q, keys) / math.sqrt(shape.head_dim)
        allowed = torch.arange(len(slots)) <= torch.arange(start, len(slots))[:, None]
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", weights, values).reshape(rows, -1)
        return linear(mixed, TensorRole.O)

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        cos, sin = (table[start : start + x.shape[0], None] for table in (self._cos, self._sin))
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _round_vectors(x: Tensor) -> Tensor:
    """[token, head, dim] as int8 codes with one scale per token and head would keep it."""
    peak = x.abs().amax(-1, keepdim=True)
    return torch.round(x * (127.0 / peak.clamp_min(1e-30))) * (peak / 127.0)


_KV_ROUNDINGS: dict[Precision, Callable[[Tensor], Tensor]] = {
    Precision.FP32: lambda x: x,
    Precision.FP16: lambda x: x.half().float(),
    Precision.INT8: _round_vectors,
}


def _rope_tables(shape: DecoderShape, positions: int) -> tuple[Tensor, Tensor]:
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = torch.arange(positions, dtype=torch.float32)[:, None] / shape.rope_base**exponents
    return angles.cos(), angles.sin()
