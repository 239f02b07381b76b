"""Whether the model fits, before anything is mapped: a clear refusal instead of a container that is killed half-way.

Reads /proc and cgroup files (versions 1 and 2) only.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inference_pods.engine.distributed.placement import Device, Placement
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.kernels.build import KernelUnavailableError
from inference_pods.kernels.cpu import cgroup_folders, parse_own_cgroups
from inference_pods.kernels.decoder import (
    DecoderLimits,
    DecoderShape,
    DecoderUnsupportedError,
    DeviceMemoryError,
    required_bytes,
)
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.levels import readable_precisions
from inference_pods.kernels.shards import Shard, divide

# Anonymous memory, torch 2.13 on Linux: 121 MiB of its import, 155 MiB of a rank's process before it has any weights.
_TORCH_BYTES, _RANK_BYTES = 125 * 2**20, 170 * 2**20
_ROWS_AT_ONCE = 512  # of a tensor, read by torch_weights.py
ONE_CPU = Placement(Device.CPU, 1)
_UNLIMITED = 2**62  # version 1 writes the largest multiple of a page that fits in 63 bits

_LESS_ROOM = "lower replica.kvCacheTokens (--kv-cache-tokens) or maxTokensPerStep (--max-step-tokens)"


@dataclass(frozen=True, slots=True)
class MemoryBounds:
    """Bytes: the container's limit (None: none), what this process uses of it now, what the machine has left."""

    container_limit: int | None
    used: int
    machine_available: int | None


def estimate_needed_bytes(
    shape: DecoderShape, limits: DecoderLimits, precision: Precision, placement: Placement = ONE_CPU, readings: int = 1
) -> int:
    """Bytes of this container that weights, full KV cache and scratch of the decoder will take, all its ranks together.

    `readings`: how many precisions the weights are served as without compiled kernels.
    """
    if placement.needs_torch:
        return _divided_bytes(shape, limits, placement, precision)
    try:
        return required_bytes(shape, limits, precision)
    except (KernelUnavailableError, DecoderUnsupportedError):
        return _reference_bytes(shape, limits, readings)


def _reference_bytes(shape: DecoderShape, limits: DecoderLimits, readings: int) -> int:
    """The torch decoder keeps each reading of the matrices in fp32.

    Quantising them one by one leaves gaps between them, at the peak 36-40 % of them (measured, one and two readings).
    """
    matrices = readings * _block_values(shape) * 7 // 5
    values = matrices + _head_values(shape) + _kv_values(shape, limits.kv_blocks)
    return 4 * (values + _scratch_values(shape, limits)) + _TORCH_BYTES


def _divided_bytes(shape: DecoderShape, limits: DecoderLimits, placement: Placement, precision: Precision) -> int:
    """Ranks on CPUs share fp32 weights and KV cache; on devices only what each loads with is the container's.

    They keep every reading that the weights have, whichever levels are served.
    """
    processes = _TORCH_BYTES + (placement.ranks - 1) * _RANK_BYTES
    readings = len(readable_precisions(precision))
    if placement.device is Device.CUDA:
        loading = sum(_device_loading_values(shape, shard, precision) for shard in divide(shape, placement.ranks))
        scores = limits.max_outputs * shape.vocab
        return 4 * (loading + scores) + processes
    spare_blocks = 1
    held = readings * _block_values(shape) + _head_values(shape) + _kv_values(shape, limits.kv_blocks + spare_blocks)
    for shard in divide(shape, placement.ranks):
        fusing = readings * _largest_product_values(shape, shard) + 4 * _ROWS_AT_ONCE * shape.dim
        held += max(fusing, _row_values(shape, precision), _step_values(shape, shard, limits))
    return 4 * held + processes


def _device_loading_values(shape: DecoderShape, shard: Shard, precision: Precision) -> int:
    """Numbers that a rank holds at once while it makes a device's weights, at most (copies measured, torch 2.13).

    A fused product stands beside its parts; what packs it needs copies of its own, of one more plane for nested ones.
    """
    copies = {Precision.INT8: 5, Precision.INT4: 5, Precision.NESTED: 10}.get(precision, 2)
    fusing = copies * _largest_product_values(shape, shard) + 4 * _ROWS_AT_ONCE * shape.dim
    down = len(readable_precisions(precision)) * len(shard.neurons) * shape.dim + _row_values(shape, precision)
    head = (3 if precision.head.is_grouped else 1) * len(shard.vocabulary) * shape.dim
    return max(head + 4 * _ROWS_AT_ONCE * shape.dim, fusing, down)


def _largest_product_values(shape: DecoderShape, shard: Shard) -> int:
    """Numbers in the larger one of a rank's fused products, qkv and gate and up."""
    group = shape.heads // shape.kv_heads
    return shape.dim * max(2 * len(shard.neurons), len(shard.kv_heads) * (group + 2) * shape.head_dim)


def _row_values(shape: DecoderShape, precision: Precision) -> int:
    """Numbers that reading the longest rows takes at once, those of `down`: copies as read, dequantised, rounded."""
    copies = 6 if precision.is_grouped else 4
    return copies * min(_ROWS_AT_ONCE, shape.dim) * shape.ffn


def _step_values(shape: DecoderShape, shard: Shard, limits: DecoderLimits) -> int:
    """Numbers that a step in fp32 holds at once: a layer's rows, the keys and values that attention gathers, scores.

    What a prompt's rows may attend to is a mask of bools that torch makes a second time in fp32
    (measured at 4,096 to 16,384 rows).
    """
    kv_dim = len(shard.kv_heads) * shape.head_dim
    qkv = kv_dim * (shape.heads // shape.kv_heads + 2)
    rows = limits.max_rows * (4 * len(shard.neurons) + 6 * shape.dim + 2 * qkv)
    read = min(limits.max_outputs * limits.max_positions, limits.kv_blocks * BLOCK_TOKENS)
    gathers = 3 * 2 * kv_dim * read
    masks = limits.max_rows * limits.max_positions * 5 // 4
    return rows + gathers + masks + 3 * limits.max_outputs * shape.vocab


def _block_values(shape: DecoderShape) -> int:
    """Numbers in the matrices and norms of all layers."""
    q_dim, kv_dim = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return shape.layers * shape.dim * (2 * q_dim + 2 * kv_dim + 3 * shape.ffn + 2)


def _head_values(shape: DecoderShape) -> int:
    """Numbers in the head, which is the embedding too, and in the last norm."""
    return (shape.vocab + 1) * shape.dim


def _kv_values(shape: DecoderShape, blocks: int) -> int:
    return 2 * shape.layers * blocks * BLOCK_TOKENS * shape.kv_heads * shape.head_dim


def _scratch_values(shape: DecoderShape, limits: DecoderLimits) -> int:
    """The larger of what loading the largest tensor and what a step takes beside weights and cache."""
    loading = max(shape.vocab, shape.ffn) * shape.dim + limits.max_outputs * shape.vocab
    rows, attended = limits.max_rows, min(limits.max_rows, limits.max_positions) * limits.max_positions
    q_dim, kv_dim = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    step = rows * (4 * shape.ffn + 6 * shape.dim + 2 * (q_dim + 2 * kv_dim)) + 3 * shape.heads * attended
    return max(loading, step)


def check_memory(needed_bytes: int, bounds: MemoryBounds) -> None:
    """Raises LoadError (OutOfMemory) naming the bytes needed, the limit and the remedy."""
    in_all = needed_bytes + bounds.used
    if bounds.container_limit is not None and in_all > bounds.container_limit:
        raise LoadError(
            LoadReason.OUT_OF_MEMORY,
            f"the model needs {in_all} bytes ({needed_bytes} for weights, KV cache and scratch, {bounds.used} for the "
            f"process), the container's limit is {bounds.container_limit}; raise replica.memory to at least "
            f"{_mebibytes(in_all)}Mi or {_LESS_ROOM}",
        )
    if bounds.machine_available is not None and needed_bytes > bounds.machine_available:
        raise LoadError(
            LoadReason.OUT_OF_MEMORY,
            f"the model needs {needed_bytes} bytes for weights, KV cache and scratch, the machine has "
            f"{bounds.machine_available} left; use a larger node or {_LESS_ROOM}",
        )


def refuse_memory(error: MemoryError) -> LoadError:
    """The refusal for memory that turned out to be missing while loading: the error's own words, and the remedy."""
    remedy = f"raise replica.memory or {_LESS_ROOM}"
    if isinstance(error, DeviceMemoryError):
        remedy = f"use a device with more memory, raise replica.accelerators or {_LESS_ROOM}"
    return LoadError(LoadReason.OUT_OF_MEMORY, f"{str(error) or 'not enough memory'}; {remedy}")


def _mebibytes(count: int) -> int:
    """With a tenth on top, because Python's own memory grows a little while serving."""
    return -(-count * 11 // 10 // 2**20)


def read_memory_bounds(root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> MemoryBounds:
    """What this process may still take."""
    return MemoryBounds(
        read_container_limit(root, proc / "self" / "cgroup"),
        _read_kibibytes(proc / "self" / "status", "RssAnon") or 0,
        _read_kibibytes(proc / "meminfo", "MemAvailable"),
    )


def read_container_limit(root: Path, own: Path) -> int | None:
    """Bytes that the cgroups of this process allow; None without a limit."""
    groups = {"": "", "memory": ""}
    with suppress(OSError):
        groups |= parse_own_cgroups(own.read_text())
    found = []
    for controllers, path in groups.items():
        if controllers and "memory" not in controllers.split(","):
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        for folder in cgroup_folders(root / controllers, path):
            with suppress(OSError, ValueError):
                found.append(int((folder / name).read_text()))  # "max" is no number
    smallest = min(found, default=None)
    return None if smallest is None or smallest >= _UNLIMITED else smallest


def _read_kibibytes(path: Path, field: str) -> int | None:
    """Bytes of a `Name:   123 kB` line."""
    with suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None
