"""The decoder in torch for a device, or for one rank of several: same interface as `decoder.Decoder`.

All rows of a level run together. Reference: `reference_decoder.py`, one sequence at a time and undivided. Knows nothing
of processes: ranks meet in `Collectives`. Which kernels compute is decided in torch_target.py and told in `paths`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import silu

from inference_pods.kernels.decoder import Chunk, DecoderLimits, DecoderShape, DecoderUnsupportedError, TokenScores
from inference_pods.kernels.formats import BLOCK_TOKENS, GROUP, Precision, SourceType, TensorRole
from inference_pods.kernels.levels import Level, check_levels, default_levels
from inference_pods.kernels.shards import Shard, divide, whole
from inference_pods.kernels.step_buffers import count_rows
from inference_pods.kernels.step_plans import (
    DEFAULT_CAPACITY,
    Backend,
    PlanCache,
    PlanCounts,
    PlanKey,
    decoding_buckets,
)
from inference_pods.kernels.torch_attention import PagedAttention, plan_kv_bytes
from inference_pods.kernels.torch_batch import Batch, build_batch, build_filler
from inference_pods.kernels.torch_device import check_room, ending_if_lost, refusing_for_memory
from inference_pods.kernels.torch_graph import GraphPlan
from inference_pods.kernels.torch_norm import AddNorm
from inference_pods.kernels.torch_target import Kernels, choose_target
from inference_pods.kernels.torch_weights import TorchWeights, plan_weight_bytes

logger = logging.getLogger(__name__)


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
        LevelError: the weights cannot be read as a level says.
        DecoderUnsupportedError: a backend that cannot specialise these steps.
        ValueError: Triton's kernels are asked for and cannot run here.
        DeviceMemoryError: weights and KV cache do not fit the device.
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
        levels: tuple[Level, ...] | None = None,
        kernels: Kernels = Kernels.AUTO,
        span: int = GROUP,
    ) -> None:
        torch.set_num_threads(limits.threads)
        self.levels = levels if levels is not None else default_levels(precision)
        check_levels(self.levels, precision, shape.layers)
        self._shape, self._limits, self._device = shape, limits, torch.device(device)
        self._shard = shard or whole(shape)
        self._meet = collectives or Alone()
        self._target = choose_target(self._device, precision, kernels, span)
        self.kv_precision = self._target.kv_precision
        self.variant = f"torch {device}" if device != "cpu" else "torch"
        if self._target.uses_triton:
            self.variant += " with triton"
        kv_heads = len(self._shard.kv_heads)
        self.needed_bytes = plan_weight_bytes(shape, self._shard, precision, self._target)
        self.needed_bytes += plan_kv_bytes(shape, limits, kv_heads, self._target)
        check_room(self._device, self.needed_bytes)
        self._weights = TorchWeights(shape, self._shard, precision, self._target)
        with self._refusing_for_memory():
            self._attention = PagedAttention(shape, limits, kv_heads, self._target)
        self._add_norm = AddNorm(shape.rms_eps, self._target)
        self._vocabulary = [len(other.vocabulary) for other in divide(shape, self._shard.ranks)]
        if backend is Backend.COMPILE and self._shard.ranks > 1:
            raise DecoderUnsupportedError(
                "torch.compile cannot see through the collectives of several ranks: use eager"
            )
        self._backend = backend
        self.plans = PlanCache(self._build_plan, limits.max_rows, limits.max_rows, DEFAULT_CAPACITY)

    @property
    def paths(self) -> dict[str, str]:
        """What computes each operation, once all tensors are loaded: a kernel's name or torch."""
        return {**self._weights.paths, **self._attention.paths, "norm": self._add_norm.path}

    @property
    def weight_bytes(self) -> int:
        return self._weights.weight_bytes

    @property
    def kv_bytes(self) -> int:
        return self._attention.kv_bytes

    def close(self) -> None:
        """Drops weights and plans."""
        self.plans.clear()
        self._weights = TorchWeights(self._shape, self._shard, Precision.FP32, self._target)

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
        """See Decoder.load.

        Raises:
            DeviceMemoryError: the weights do not fit the device.
        """
        with self._refusing_for_memory():
            self._weights.load(role, layer, source, kind, rows, columns, row_map, column_map)

    def _refusing_for_memory(self) -> AbstractContextManager[None]:
        return refusing_for_memory(self._device, self.needed_bytes)

    @torch.inference_mode()
    def warm(self) -> PlanCounts:
        """Compiles what prompts need and builds the plans of decoding at each batch size and level; on several ranks
        all must call it.

        Raises:
            DeviceMemoryError: the steps do not fit the device beside weights and KV cache.
        """
        with self._refusing_for_memory():
            self._warm()
        return self.plans.counts

    def _warm(self) -> None:
        for operation, path in self.paths.items() if self._target.uses_triton else ():
            if path == "torch" and operation != "prompt_attention":
                logger.warning("%s has no Triton kernel for this shape: it runs in plain torch, slower", operation)
        if self._target.uses_triton or self._device.type == "cuda":
            self._warm_prompts()
        if self._backend is not Backend.EAGER:
            self._warm_plans()

    def _warm_plans(self) -> None:
        sequences = self._limits.max_sequences or self._limits.max_outputs
        keys = decoding_buckets(self._limits.max_rows, sequences, len(self.levels))
        self.plans.warm(keys)
        if unwarmed := self.plans.counts.unwarmed:
            first_use = "those of the smallest batches are built by the first step that needs them, which waits for it"
            logger.warning("%d of %d step plans do not fit the cache: %s", unwarmed, len(keys), first_use)

    def _warm_prompts(self) -> None:
        """Takes a step with a prompt in each size for which kernels are compiled, and the largest: up to the last
        position it needs the most memory. What depends on a level is the precision that it reads."""
        limits, sizes = self._limits, {self._limits.max_rows}
        if self._target.uses_triton:
            from inference_pods.kernels.triton.dispatch import TILE_ROWS

            sizes |= {min(tile, limits.max_rows) for tile in TILE_ROWS}
        spare_block = self._attention.spare_block
        for level in {level.precision: level for level in reversed(self.levels)}.values():
            for rows in sorted(sizes):
                outputs = min(rows, limits.max_outputs)
                chunks = build_filler(rows, outputs, limits.max_positions, spare_block)
                self.forward(build_batch(chunks, self._device), level)

    @torch.inference_mode()
    def step(self, chunks: list[Chunk]) -> list[TokenScores]:
        """See Decoder.step.

        Raises:
            ValueError: the step does not fit; nothing was computed.
            DeviceLostError: the device can take no further step.
        """
        self.check(chunks)
        with ending_if_lost(self._device):
            return self._step(chunks)

    def _step(self, chunks: list[Chunk]) -> list[TokenScores]:
        scores: dict[int, list[TokenScores]] = {}
        for level in sorted({chunk.level for chunk in chunks}):
            chosen = [index for index, chunk in enumerate(chunks) if chunk.level == level]
            found = iter(self._step_level([chunks[index] for index in chosen], level))
            for index in chosen:
                scores[index] = list(islice(found, chunks[index].scores))
        return [score for index in sorted(scores) for score in scores[index]]

    def _step_level(self, chunks: list[Chunk], level: int) -> list[TokenScores]:
        batch = build_batch(chunks, self._device)
        if self._backend is not Backend.EAGER and batch.is_decoding_only:
            rows = len(batch.tokens)
            logits = self.plans.get(rows, rows, level)(batch)
        else:
            logits = self.forward(batch, self.levels[level])
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

    def forward(self, batch: Batch, level: Level) -> Tensor | None:
        """fp32 scores [outputs, vocabulary] on rank 0, None on the others and when no scores are wanted."""
        x, delta = self._embed(batch.tokens), None
        for layer in range(self._shape.layers):
            x, delta = self._run_layer(layer, x, delta, batch, level)
        if not len(batch.outputs):
            return None
        last = None if delta is None else delta[batch.outputs]
        hidden, _ = self._add_norm(last, x[batch.outputs], self._weights.norms[TensorRole.OUTPUT_NORM, 0])
        return self._meet.gather_columns(self._weights.head(hidden), self._vocabulary)

    def _run_layer(
        self, layer: int, x: Tensor, delta: Tensor | None, batch: Batch, level: Level
    ) -> tuple[Tensor, Tensor | None]:
        """The residual stream, fp32, and what the next norm has to add to it. A skipped layer only stores its keys
        and values, for tokens that will run it."""
        products, norms, read_as = self._weights.products, self._weights.norms, level.precision
        normal, x = self._add_norm(delta, x, norms[TensorRole.ATTN_NORM, layer])
        qkv = products["qkv", layer](normal, read_as)
        if layer in level.skipped_layers:
            if self._shard.kv_heads:
                self._attention.store(layer, qkv, batch)
            return x, None
        mixed = self._meet.sum(products["o", layer](self._attention(layer, qkv, batch), read_as))
        normal, x = self._add_norm(mixed, x, norms[TensorRole.FFN_NORM, layer])
        gate, up = products["gate_up", layer](normal, read_as).chunk(2, 1)
        return x, self._meet.sum(products["down", layer](silu(gate) * up, read_as))

    def _embed(self, tokens: Tensor) -> Tensor:
        """Every rank looks up the tokens of its own rows; the others add zeros."""
        own, head = self._shard.vocabulary, self._weights.head
        if self._shard.ranks == 1:
            return head.rows(tokens)
        is_own = (tokens >= own.start) & (tokens < own.stop)
        rows = head.rows(torch.where(is_own, tokens - own.start, 0))
        return self._meet.sum(rows * is_own[:, None])

    def _build_plan(self, key: PlanKey) -> GraphPlan:
        blocks = -(-self._limits.max_positions // BLOCK_TOKENS)
        forward = partial(self.forward, level=self.levels[key.level])
        return GraphPlan(forward, key.rows, blocks, self._attention.spare_block, self._device, self._backend)


def _score(logits: Tensor) -> list[TokenScores]:
    best, totals = logits.argmax(1).tolist(), logits.logsumexp(1).tolist()
    return [TokenScores(*row) for row in zip(best, totals, logits.cpu().numpy(), strict=True)]
