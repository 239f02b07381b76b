"""The decoder in torch for a device, or for one rank of several: same interface as `decoder.Decoder`.

All rows of a step run together. Reference: `reference_decoder.py`, one sequence at a time and undivided. Knows nothing
of processes: ranks meet in `Collectives`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import silu

from inference_pods.kernels.decoder import Chunk, DecoderLimits, DecoderShape, DecoderUnsupportedError, TokenScores
from inference_pods.kernels.formats import Precision, SourceType, TensorRole
from inference_pods.kernels.levels import default_levels
from inference_pods.kernels.shards import Shard, divide, whole
from inference_pods.kernels.step_buffers import count_rows
from inference_pods.kernels.step_plans import PlanCache, PlanCounts, PlanKey, round_up_to_bucket
from inference_pods.kernels.torch_attention import PagedAttention
from inference_pods.kernels.torch_batch import Batch, build_batch
from inference_pods.kernels.torch_graph import Backend, GraphPlan
from inference_pods.kernels.torch_weights import TorchWeights


class Collectives(Protocol):
    """Where the ranks of one replica meet; every rank makes the same calls in the same order."""

    def sum(self, x: Tensor) -> Tensor:
        """Sum of all ranks' `x` on every rank; may reuse `x`."""
        ...

    def gather_columns(self, x: Tensor, widths: Sequence[int]) -> Tensor | None:
        """All ranks' `x` [rows, widths[rank]] side by side on rank 0, None elsewhere."""
        ...


class Alone:
    """The collectives of a decoder that is not divided."""

    def sum(self, x: Tensor) -> Tensor:
        return x

    def gather_columns(self, x: Tensor, widths: Sequence[int]) -> Tensor | None:
        return x


class TorchDecoder:
    """One rank's part of a decoder; rank 0 returns the scores, the others nothing.

    Raises:
        DecoderUnsupportedError: a precision that torch does not run.
    """

    def __init__(
        self,
        shape: DecoderShape,
        limits: DecoderLimits,
        precision: Precision,
        shard: Shard | None = None,
        collectives: Collectives | None = None,
        device: str = "cpu",
        backend: Backend = Backend.EAGER,
    ) -> None:
        torch.set_num_threads(limits.threads)
        self._shape, self._limits, self._device = shape, limits, torch.device(device)
        self._shard = shard or whole(shape)
        self._meet = collectives or Alone()
        self.variant = "torch" if device == "cpu" else f"torch {device}"
        self._weights = TorchWeights(shape, self._shard, precision, self._device)
        self._attention = PagedAttention(shape, limits, len(self._shard.kv_heads), self._device)
        self._vocabulary = [len(other.vocabulary) for other in divide(shape, self._shard.ranks)]
        if backend is Backend.COMPILE and self._shard.ranks > 1:
            raise DecoderUnsupportedError(
                "torch.compile cannot see through the collectives of several ranks: use eager"
            )
        self.levels = default_levels(precision)
        self._backend = backend
        self.plans = PlanCache(self._build_plan, limits.max_rows, limits.max_rows)

    @property
    def weight_bytes(self) -> int:
        return self._weights.weight_bytes

    @property
    def kv_bytes(self) -> int:
        return self._attention.kv_bytes

    def close(self) -> None:
        """Drops weights and plans."""
        self.plans.clear()
        self._weights = TorchWeights(self._shape, self._shard, Precision.FP32, self._device)

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
        self._weights.load(role, layer, source, kind, rows, columns, row_map, column_map)

    @torch.inference_mode()
    def warm(self) -> PlanCounts:
        """Builds the plans of decoding at each batch size; on several ranks all must call it."""
        if self._backend is not Backend.EAGER:
            most = self._limits.max_outputs
            sizes = sorted({round_up_to_bucket(count, most) for count in range(1, most + 1)})
            self.plans.warm(self.plans.bucket(size, size) for size in sizes)
        return self.plans.counts

    @torch.inference_mode()
    def step(self, chunks: list[Chunk]) -> list[TokenScores]:
        """See Decoder.step."""
        self.check(chunks)
        batch = build_batch(chunks, self._device)
        if self._backend is not Backend.EAGER and batch.is_decoding_only:
            rows = len(batch.tokens)
            logits = self.plans.get(rows, rows)(batch)
        else:
            logits = self.forward(batch)
        return [] if logits is None or not len(batch.outputs) else _score(logits)

    def check(self, chunks: list[Chunk]) -> None:
        """Refuses what would fail, or read beyond the cache, inside the step.

        Raises:
            ValueError: saying what does not fit.
        """
        rows, outputs = count_rows(chunks, len(self.levels))
        limits = self._limits
        if rows > limits.max_rows or outputs > limits.max_outputs:
            raise ValueError(f"step of {rows} rows and {outputs} outputs exceeds {limits}")
        for chunk in chunks:
            end = chunk.start + len(chunk.token_ids)
            if chunk.start < 0 or not chunk.token_ids or end > limits.max_positions:
                raise ValueError(f"positions {chunk.start} to {end} exceed {limits}")
            if min(chunk.token_ids) < 0 or max(chunk.token_ids) >= self._shape.vocab:
                raise ValueError(f"a token of the step exceeds the vocabulary of {self._shape.vocab}")
            if min(chunk.block_table) < 0 or max(chunk.block_table) >= limits.kv_blocks:
                raise ValueError(f"a block of the step exceeds {limits}")

    def forward(self, batch: Batch) -> Tensor | None:
        """[outputs, vocabulary] scores on rank 0, None on the others and when no scores are wanted."""
        x = self._embed(batch.tokens)
        products, meet = self._weights.products, self._meet
        for layer in range(self._shape.layers):
            qkv = products["qkv", layer](self._norm(x, TensorRole.ATTN_NORM, layer))
            x = x + meet.sum(products["o", layer](self._attention(layer, qkv, batch)))
            gate, up = products["gate_up", layer](self._norm(x, TensorRole.FFN_NORM, layer)).chunk(2, 1)
            x = x + meet.sum(products["down", layer](silu(gate) * up))
        if not len(batch.outputs):
            return None
        hidden = self._norm(x[batch.outputs], TensorRole.OUTPUT_NORM, 0)
        return meet.gather_columns(hidden @ self._weights.embedding.T, self._vocabulary)

    def _embed(self, tokens: Tensor) -> Tensor:
        """Every rank looks up the tokens of its own rows; the others add zeros."""
        own = self._shard.vocabulary
        if self._shard.ranks == 1:
            return self._weights.embedding[tokens]
        is_own = (tokens >= own.start) & (tokens < own.stop)
        rows = self._weights.embedding[torch.where(is_own, tokens - own.start, 0)]
        return self._meet.sum(rows * is_own[:, None])

    def _norm(self, x: Tensor, role: TensorRole, layer: int) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self._shape.rms_eps)
        return x * scale * self._weights.norms[role, layer]

    def _build_plan(self, key: PlanKey) -> GraphPlan:
        positions, spare = self._limits.max_positions, self._attention.spare_slot
        return GraphPlan(self.forward, key.rows, positions, spare, self._device, self._backend)


def _score(logits: Tensor) -> list[TokenScores]:
    best, totals = logits.argmax(1).tolist(), logits.logsumexp(1).tolist()
    return [TokenScores(*row) for row in zip(best, totals, logits.cpu().numpy(), strict=True)]
