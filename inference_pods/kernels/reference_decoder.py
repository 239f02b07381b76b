"""The decoder in plain torch: same interface as `decoder.Decoder`, the path for hosts without compiled kernels.

Keeps fp32 values of the tier's quantised weights, so its quality is the tier's; speed and memory are not.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import silu

from inference_pods.kernels.decoder import Chunk, DecoderLimits, DecoderShape, TokenScores
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision, SourceType, TensorRole
from inference_pods.kernels.reference import dequantise, fake_quantise

_VECTORS = (TensorRole.ATTN_NORM, TensorRole.FFN_NORM, TensorRole.OUTPUT_NORM)


class ReferenceDecoder:
    """Llama decoder, one sequence at a time. Tensors: [out, in]; KV: [layer, 2, slot, kv head, dim]."""

    variant = "torch"

    def __init__(self, shape: DecoderShape, limits: DecoderLimits, precision: Precision) -> None:
        torch.set_num_threads(limits.threads)
        self._shape, self._precision = shape, precision
        self._weights: dict[tuple[TensorRole, int], Tensor] = {}
        self._kv = torch.zeros(shape.layers, 2, limits.kv_blocks * BLOCK_TOKENS, shape.kv_heads, shape.head_dim)
        self._cos, self._sin = _rope_tables(shape, limits.max_positions)

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self._weights.values())

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
            self._weights[role, layer] = weights[0]
            return
        is_int4_head = role is TensorRole.HEAD and self._precision is Precision.INT4
        self._weights[role, layer] = fake_quantise(weights, Precision.INT8 if is_int4_head else self._precision)

    @torch.inference_mode()
    def step(self, chunks: list[Chunk]) -> list[TokenScores]:
        """See Decoder.step."""
        scores = []
        for chunk in chunks:
            hidden = self._run(chunk)
            for row in hidden[len(chunk.token_ids) - chunk.scores :]:
                logits = row @ self._weights[TensorRole.HEAD, 0].T
                scores.append(TokenScores(int(logits.argmax()), float(logits.logsumexp(0)), logits.numpy()))
        return scores

    def _run(self, chunk: Chunk) -> Tensor:
        x = self._weights[TensorRole.HEAD, 0][chunk.token_ids]
        end = chunk.start + len(chunk.token_ids)
        slots = torch.tensor(
            [chunk.block_table[p // BLOCK_TOKENS] * BLOCK_TOKENS + p % BLOCK_TOKENS for p in range(end)]
        )
        for layer in range(self._shape.layers):
            x = x + self._attention(layer, self._norm(x, TensorRole.ATTN_NORM, layer), chunk.start, slots)
            h = self._norm(x, TensorRole.FFN_NORM, layer)
            gated = silu(self._linear(h, TensorRole.GATE, layer)) * self._linear(h, TensorRole.UP, layer)
            x = x + self._linear(gated, TensorRole.DOWN, layer)
        return self._norm(x, TensorRole.OUTPUT_NORM, 0)

    def _linear(self, x: Tensor, role: TensorRole, layer: int) -> Tensor:
        return x @ self._weights[role, layer].T

    def _norm(self, x: Tensor, role: TensorRole, layer: int) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self._shape.rms_eps) * self._weights[role, layer]

    def _attention(self, layer: int, x: Tensor, start: int, slots: Tensor) -> Tensor:
        shape, rows = self._shape, x.shape[0]
        q, k, v = (
            self._linear(x, role, layer).view(rows, -1, shape.head_dim)
            for role in (TensorRole.Q, TensorRole.K, TensorRole.V)
        )
        q, k = self._rotate(q, start), self._rotate(k, start)
        self._kv[layer, 0, slots[start:]], self._kv[layer, 1, slots[start:]] = k, v
        group = shape.heads // shape.kv_heads
        keys, values = (self._kv[layer, plane, slots].repeat_interleave(group, 1) for plane in (0, 1))
        scores = torch.einsum("qhd,khd->hqk", q, keys) / math.sqrt(shape.head_dim)
        allowed = torch.arange(len(slots)) <= torch.arange(start, len(slots))[:, None]
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", weights, values).reshape(rows, -1)
        return self._linear(mixed, TensorRole.O, layer)

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        cos, sin = (table[start : start + x.shape[0], None] for table in (self._cos, self._sin))
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _rope_tables(shape: DecoderShape, positions: int) -> tuple[Tensor, Tensor]:
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = torch.arange(positions, dtype=torch.float32)[:, None] / shape.rope_base**exponents
    return angles.cos(), angles.sin()
