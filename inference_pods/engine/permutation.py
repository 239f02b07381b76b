"""Function-preserving channel permutations, and the row and column maps of every tensor.

The example file already lies on an int4 grid of 32 neighbouring channels; shuffling channels breaks those groups apart,
so that int4 really rounds. Permuted: the residual stream, the neurons of each FFN, the value dimensions within each KV
head. Query and key rows keep their rotary pairs, but move from an interleaved order (GGUF) to halves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_pods.kernels.decoder import DecoderShape
from inference_pods.kernels.formats import TensorRole

IndexMap = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ChannelOrder:
    """New position -> old channel: residual [dim], neurons [layers, ffn], values [layers, kv_heads, head_dim]."""

    residual: IndexMap
    neurons: IndexMap
    values: IndexMap


def draw_order(shape: DecoderShape, seed: int) -> ChannelOrder:
    """Random order from the seed; seed 0 keeps the file's own order. The same seed gives the same order everywhere."""
    layers, kv_heads = shape.layers, shape.kv_heads
    if seed == 0:
        residual, neurons, values = np.arange(shape.dim), np.arange(shape.ffn), np.arange(shape.head_dim)
        neurons, values = np.tile(neurons, (layers, 1)), np.tile(values, (layers, kv_heads, 1))
    else:
        random = np.random.Generator(np.random.PCG64(seed))
        residual = random.permutation(shape.dim)
        neurons = np.stack([random.permutation(shape.ffn) for _ in range(layers)])
        values = np.stack([[random.permutation(shape.head_dim) for _ in range(kv_heads)] for _ in range(layers)])
    return ChannelOrder(*(array.astype(np.int32) for array in (residual, neurons, values)))


def _rotary_halves(heads: int, head_dim: int) -> IndexMap:
    """Row c * head_dim/2 + i of a head comes from the file's row 2 * i + c."""
    rows = np.arange(heads * head_dim).reshape(heads, head_dim // 2, 2)
    return rows.transpose(0, 2, 1).reshape(-1).astype(np.int32)


def _heads_map(order: IndexMap, repeats: int) -> IndexMap:
    """[kv_heads, head_dim] orders -> one index per channel, each KV head's order used by `repeats` heads."""
    per_head = np.repeat(order, repeats, axis=0)
    offsets = np.arange(len(per_head), dtype=np.int32)[:, None] * order.shape[1]
    return np.asarray(per_head + offsets, np.int32).reshape(-1)


def tensor_maps(
    shape: DecoderShape, order: ChannelOrder, role: TensorRole, layer: int, rotary_pairs: bool = True
) -> tuple[IndexMap | None, IndexMap]:
    """(row map or None, column map) for Decoder.load; `rotary_pairs`: Q and K rows are interleaved in the file."""
    residual = order.residual
    match role:
        case TensorRole.Q | TensorRole.K:
            if not rotary_pairs:
                return None, residual
            return _rotary_halves(shape.heads if role is TensorRole.Q else shape.kv_heads, shape.head_dim), residual
        case TensorRole.V:
            return _heads_map(order.values[layer], 1), residual
        case TensorRole.O:
            return residual, _heads_map(order.values[layer], shape.heads // shape.kv_heads)
        case TensorRole.GATE | TensorRole.UP:
            return order.neurons[layer], residual
        case TensorRole.DOWN:
            return residual, order.neurons[layer]
        case _:
            return None, residual
