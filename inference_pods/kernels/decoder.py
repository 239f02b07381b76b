"""The compiled decoder: owns the arenas of one model and runs whole steps in C++.

Reference in plain torch: `reference_decoder.py`. Knows shapes and tensor roles, not files, schedulers or text.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_pods.kernels.batch import Chunk as Chunk
from inference_pods.kernels.formats import BLOCK_TOKENS, GROUP, Precision, SourceType, TensorRole
from inference_pods.kernels.levels import Level, check_levels, default_levels
from inference_pods.kernels.library import Config, choose_variant, load_library
from inference_pods.kernels.step_buffers import StepBuffers, count_rows
from inference_pods.kernels.step_plans import PlanCache, PlanCounts, common_buckets

_ROUND = 32  # strides are multiples of this many floats
_MOST_LAYERS, _MOST_WIDE = 2**12, 2**20  # far above any llama; no product of them leaves the kernels' 64 bits
_INT32_MAX = 2**31 - 1


class ShapeError(ValueError):
    """A field of the shape is out of its range; the message names it."""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """A llama-architecture decoder with tied embeddings. Its numbers come from files that nobody has checked.

    Raises:
        ShapeError: a field is out of range.
    """

    layers: int
    dim: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    rms_eps: float
    rope_base: float

    def __post_init__(self) -> None:
        _check_range("layers", self.layers, _MOST_LAYERS)
        for name in ("dim", "ffn", "heads", "kv_heads", "head_dim", "vocab"):
            _check_range(name, getattr(self, name), _MOST_WIDE)
        _check_range("heads x head_dim", self.heads * self.head_dim, _MOST_WIDE)
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise ShapeError(
                f"{self.heads} heads of {self.head_dim} over {self.kv_heads} KV heads do not come out even"
            )
        for name, value in (("rms_eps", self.rms_eps), ("rope_base", self.rope_base)):
            if not (math.isfinite(value) and value > 0):
                raise ShapeError(f"{name} {value} is no finite number above 0")


@dataclass(frozen=True, slots=True)
class DecoderLimits:
    """What a decoder reserves: rows (tokens) and outputs (scores) per step, positions per sequence, KV blocks.

    `kv_precision`: FP32, FP16, or INT8 with one scale per token and head, in 27 % of the memory.
    `max_sequences`: of a step; fewer than outputs where drafts are verified. None: as many as outputs.
    """

    max_rows: int
    max_outputs: int
    max_positions: int
    kv_blocks: int
    threads: int
    kv_precision: Precision = Precision.FP32
    max_sequences: int | None = None


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Next-token scores after a chunk's last token. `logits` is valid until the next step."""

    best: int
    log_total: float
    logits: NDArray[np.float32]

    def logprob(self, token_id: int) -> float:
        return float(self.logits[token_id]) - self.log_total


class DecoderUnsupportedError(ValueError):
    """The shape cannot run on the compiled decoder; the message says what does not fit."""


class DeviceMemoryError(MemoryError):
    """An accelerator's memory is too small; the message names the bytes needed and those that it has."""


class DeviceLostError(RuntimeError):
    """An accelerator failed for good: no further call to it succeeds in this process."""


def required_bytes(shape: DecoderShape, limits: DecoderLimits, precision: Precision, variant: str | None = None) -> int:
    """Bytes that a Decoder of this kind takes when its KV cache is full, at any levels. Maps nothing.

    Raises:
        KernelUnavailableError: no compiled kernels here.
        DecoderUnsupportedError: the shape is outside what the kernels do.
    """
    _check_shape(shape)
    library = load_library(variant or choose_variant())
    arenas = _arena_bytes(library, _config(shape, limits, precision))
    return arenas + limits.max_outputs * _logits_stride(shape) * 4


class Decoder:
    """Weights, KV cache and step of one model in one precision, at one or more levels (default: all layers).

    `span`, one of SPANS: how many weights of a row share an int4 grid. It changes neither memory nor speed.

    Raises:
        KernelUnavailableError: no compiled kernels here.
        LevelError: the weights cannot be read as a level says.
        DecoderUnsupportedError: the shape is outside what the kernels do.
        MemoryError: the arenas cannot be mapped.
    """

    def __init__(
        self,
        shape: DecoderShape,
        limits: DecoderLimits,
        precision: Precision,
        variant: str | None = None,
        levels: tuple[Level, ...] | None = None,
        span: int = GROUP,
    ) -> None:
        self._handle: int | None = None  # first: __del__ reads it whatever fails below
        self.levels = levels if levels is not None else default_levels(precision)
        self.variant = variant or choose_variant()
        self._library = load_library(self.variant)
        _check_shape(shape)
        check_levels(self.levels, precision, shape.layers)
        config = _config(shape, limits, precision, span)
        _arena_bytes(self._library, config)
        self._handle = self._library.al_create(ctypes.byref(config))
        if not self._handle:
            raise MemoryError("the operating system refused the memory for weights and KV cache")
        for level in self.levels:
            self._add_level(level, precision, shape.layers)
        self._shape, self._limits = shape, limits
        self.kv_precision = limits.kv_precision
        self._logits = np.empty((limits.max_outputs, _logits_stride(shape)), np.float32)
        self._best = np.empty(limits.max_outputs, np.int32)
        self._log_total = np.empty(limits.max_outputs, np.float32)
        table_blocks = -(-limits.max_positions // BLOCK_TOKENS)
        self.plans = PlanCache(lambda key: StepBuffers(key, table_blocks), limits.max_rows, limits.max_outputs)

    def _add_level(self, level: Level, stored: Precision, layers: int) -> None:
        skipped = np.zeros(layers, np.uint8)
        skipped[list(level.skipped_layers)] = 1
        both_planes = stored is Precision.NESTED and level.precision is Precision.INT8
        code = (stored if both_planes else level.precision).code
        if self._library.al_add_level(self._handle, code, skipped.ctypes.data):
            raise DecoderUnsupportedError(f"the kernels cannot read {stored} weights as {level.precision}")

    def close(self) -> None:
        """Frees all memory; no call may be running or follow."""
        if self._handle:
            self._library.al_destroy(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()

    @property
    def weight_bytes(self) -> int:
        return int(self._library.al_weight_bytes(self._handle))

    @property
    def kv_bytes(self) -> int:
        return int(self._library.al_kv_bytes(self._handle))

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
        """Reads a GGUF tensor's bytes; row r, column k of the decoder come from source[row_map[r], column_map[k]]."""
        arrays = [None if m is None else np.ascontiguousarray(m, np.int32) for m in (row_map, column_map)]
        pointers = [None if a is None else a.ctypes.data for a in arrays]
        error = self._library.al_load(
            self._handle, int(role), layer, int(kind), source.ctypes.data, rows, columns, pointers[0], pointers[1]
        )
        if error:
            raise DecoderUnsupportedError(
                f"tensor {role.name} of layer {layer}, type {kind!r}, [{rows}, {columns}] does not fit"
            )

    def warm(self) -> PlanCounts:
        """Builds the plans that every load needs, so that no request waits for them; their counts go on counting."""
        self.plans.warm(common_buckets(self._limits.max_rows, self._limits.max_outputs))
        return self.plans.counts

    def step(self, chunks: list[Chunk]) -> list[TokenScores]:
        """Runs all chunks in one step, those of one level together; scores of all tokens that want them, in order.

        Raises:
            ValueError: a chunk is out of the decoder's limits; nothing has run then.
        """
        rows, outputs = count_rows(chunks, len(self.levels))
        if rows > self._limits.max_rows or outputs > self._limits.max_outputs:
            raise ValueError(f"step of {rows} rows and {outputs} outputs exceeds {self._limits}")
        plan = self.plans.get(rows, outputs)
        groups, order = plan.fill(chunks)
        group_table, tokens, positions, sequences, tables, output_rows = plan.addresses
        error = self._library.al_step(
            self._handle, groups, group_table, tokens, positions, sequences, tables, plan.table_blocks, output_rows,
            self._logits.ctypes.data, self._best.ctypes.data, self._log_total.ctypes.data,
        )  # fmt: skip
        if error:
            raise ValueError(f"a token, position or block of the step exceeds {self._limits}")
        vocab = self._shape.vocab
        return [TokenScores(int(self._best[i]), float(self._log_total[i]), self._logits[i, :vocab]) for i in order]


def _logits_stride(shape: DecoderShape) -> int:
    return -(-shape.vocab // _ROUND) * _ROUND


def _check_range(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise ShapeError(f"{name} {value} is not within 1 to {most}")


def _arena_bytes(library: ctypes.CDLL, config: Config) -> int:
    needed = int(library.al_required_bytes(ctypes.byref(config)))
    if needed < 0:
        raise DecoderUnsupportedError("the shape and the limits together are beyond what the kernels can address")
    return needed


def _check_shape(shape: DecoderShape) -> None:
    if shape.heads // shape.kv_heads not in (1, 2, 3, 4, 8):
        raise DecoderUnsupportedError(
            f"{shape.heads} heads over {shape.kv_heads} KV heads: the ratio must be 1, 2, 3, 4 or 8"
        )
    for name, value in (("head_dim", shape.head_dim), ("dim", shape.dim), ("ffn", shape.ffn)):
        if value % 32:
            raise DecoderUnsupportedError(f"{name} {value} is not a multiple of 32")


def _config(shape: DecoderShape, limits: DecoderLimits, precision: Precision, span: int = GROUP) -> Config:
    for name in ("max_rows", "max_outputs", "max_positions", "kv_blocks", "threads"):
        if not 1 <= getattr(limits, name) <= _INT32_MAX - BLOCK_TOKENS:  # ctypes would keep the lower 32 bits
            raise DecoderUnsupportedError(f"{name} {getattr(limits, name)} is beyond what the kernels can address")
    return Config(
        shape.layers, shape.dim, shape.ffn, shape.heads, shape.kv_heads, shape.head_dim, shape.vocab,
        limits.max_rows, limits.max_outputs, -(-limits.max_positions // BLOCK_TOKENS) * BLOCK_TOKENS,
        limits.kv_blocks, precision.code, limits.kv_precision.code, limits.threads, span,
        shape.rms_eps, shape.rope_base,
    )  # fmt: skip
