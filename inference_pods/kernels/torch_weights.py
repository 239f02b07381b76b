"""One rank's weights of the torch decoder, cut out of a checkpoint's tensors as they are loaded.

Rows are dequantised a few hundred at a time, so that no rank ever holds a whole tensor, let alone the whole model,
beside its part. Values are those of the tier, whatever the cut (torch_linear.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference_pods.kernels.decoder import DecoderShape, DecoderUnsupportedError
from inference_pods.kernels.formats import Precision, SourceType, TensorRole
from inference_pods.kernels.reference import dequantise
from inference_pods.kernels.shards import Shard
from inference_pods.kernels.torch_linear import (
    Cut,
    Head,
    Linear,
    build_head,
    build_linear,
    list_readings,
    plan_head_bytes,
    plan_linear_bytes,
    read_weights,
)
from inference_pods.kernels.torch_target import Target

_ROWS_AT_ONCE = 512
_FUSED = {  # parts of one product, in their order
    "qkv": (TensorRole.Q, TensorRole.K, TensorRole.V),
    "gate_up": (TensorRole.GATE, TensorRole.UP),
    "o": (TensorRole.O,),
    "down": (TensorRole.DOWN,),
}
_PRODUCT_OF = {role: name for name, roles in _FUSED.items() for role in roles}
_NORMS = (TensorRole.ATTN_NORM, TensorRole.FFN_NORM, TensorRole.OUTPUT_NORM)
_Readings = dict[Precision, Tensor]


class TorchWeights:
    """Norms, products by (name, layer), and the rank's rows of the head, which are also those of the embedding."""

    head: Head

    def __init__(self, shape: DecoderShape, shard: Shard, precision: Precision, target: Target) -> None:
        self._shape, self._shard, self._precision, self._target = shape, shard, precision, target
        self.norms: dict[tuple[TensorRole, int], Tensor] = {}
        self.products: dict[tuple[str, int], Linear] = {}
        self._parts: dict[tuple[str, int], dict[TensorRole, _Readings]] = {}

    @property
    def weight_bytes(self) -> int:
        products = sum(product.weight_bytes for product in self.products.values())
        norms = sum(tensor.numel() * tensor.element_size() for tensor in self.norms.values())
        return products + norms + self.head.weight_bytes

    @property
    def paths(self) -> dict[str, str]:
        """What computes each kind of product, once all tensors are loaded."""
        found: dict[str, set[str]] = {name: set() for name in _FUSED}
        for (name, _), product in self.products.items():
            found[name].add(product.path)
        return {name: ", ".join(sorted(paths)) for name, paths in found.items()} | {"head": self.head.path}

    def load(
        self,
        role: TensorRole,
        layer: int,
        source: NDArray[np.uint8],
        kind: SourceType,
        rows: int,
        columns: int,
        row_map: NDArray[np.int32] | None,
        column_map: NDArray[np.int32] | None,
    ) -> None:
        """See Decoder.load; keeps what is this rank's."""
        kept_rows, kept_columns = self._cut(role, rows, columns)
        if role in _NORMS:
            (part,) = _read_rows(source, kind, range(1), columns, None, column_map)
            self.norms[role, layer] = part[0].to(self._target.device)
            return
        precision = self._precision.head if role is TensorRole.HEAD else self._precision
        cut = Cut(kept_columns, columns)
        readings = list_readings(precision, cut, self._target)
        kept = {read_as: torch.empty(len(kept_rows), len(kept_columns)) for read_as in readings}
        at = 0
        for part in _read_rows(source, kind, kept_rows, columns, row_map, column_map):
            for read_as, values in read_weights(part, precision, cut, self._target).items():
                kept[read_as][at : at + len(part)] = values
            at += len(part)
        self._place(role, layer, kept, cut)

    def _cut(self, role: TensorRole, rows: int, columns: int) -> tuple[range, range]:
        """The rank's rows and columns of a tensor."""
        full = _full_size(self._shape, role)
        if (rows, columns) != full:
            raise DecoderUnsupportedError(f"tensor {role.name} is [{rows}, {columns}], expected {list(full)}")
        return _kept(self._shape, self._shard, role)

    def _place(self, role: TensorRole, layer: int, kept: _Readings, cut: Cut) -> None:
        """Keeps a part; a product is built as soon as its last part is there."""
        if role is TensorRole.HEAD:
            self.head = build_head(kept, self._precision.head, cut, self._target)
            return
        name = _PRODUCT_OF[role]
        parts = self._parts.setdefault((name, layer), {})
        parts[role] = kept
        if len(parts) == len(_FUSED[name]):
            del self._parts[name, layer]
            fused = {read_as: torch.cat([parts[part][read_as] for part in _FUSED[name]]) for read_as in kept}
            self.products[name, layer] = build_linear(fused, self._precision, cut, self._target)


def plan_weight_bytes(shape: DecoderShape, shard: Shard, precision: Precision, target: Target) -> int:
    """Bytes that a rank's weights will take once all are loaded."""
    layer = 2 * shape.dim * torch.float32.itemsize
    for roles in _FUSED.values():
        rows = sum(len(_kept(shape, shard, role)[0]) for role in roles)
        layer += plan_linear_bytes(rows, precision, _cut_columns(shape, shard, roles[0]), target)
    vocabulary, head_cut = len(shard.vocabulary), _cut_columns(shape, shard, TensorRole.HEAD)
    head = plan_head_bytes(vocabulary, precision.head, head_cut, target)
    return shape.layers * layer + shape.dim * torch.float32.itemsize + head


def _cut_columns(shape: DecoderShape, shard: Shard, role: TensorRole) -> Cut:
    return Cut(_kept(shape, shard, role)[1], _full_size(shape, role)[1])


def _full_size(shape: DecoderShape, role: TensorRole) -> tuple[int, int]:
    """Rows and columns of a whole tensor."""
    return {
        TensorRole.Q: (shape.heads * shape.head_dim, shape.dim),
        TensorRole.K: (shape.kv_heads * shape.head_dim, shape.dim),
        TensorRole.V: (shape.kv_heads * shape.head_dim, shape.dim),
        TensorRole.O: (shape.dim, shape.heads * shape.head_dim),
        TensorRole.GATE: (shape.ffn, shape.dim),
        TensorRole.UP: (shape.ffn, shape.dim),
        TensorRole.DOWN: (shape.dim, shape.ffn),
        TensorRole.HEAD: (shape.vocab, shape.dim),
    }.get(role, (1, shape.dim))


def _kept(shape: DecoderShape, shard: Shard, role: TensorRole) -> tuple[range, range]:
    """A rank's rows and columns of a tensor."""
    rows, columns = _full_size(shape, role)
    queries = _scale(shard.kv_heads, shape.heads // shape.kv_heads * shape.head_dim)
    kept_rows = {
        TensorRole.Q: queries,
        TensorRole.K: _scale(shard.kv_heads, shape.head_dim),
        TensorRole.V: _scale(shard.kv_heads, shape.head_dim),
        TensorRole.GATE: shard.neurons,
        TensorRole.UP: shard.neurons,
        TensorRole.HEAD: shard.vocabulary,
    }
    kept_columns = {TensorRole.O: queries, TensorRole.DOWN: shard.neurons}
    return kept_rows.get(role, range(rows)), kept_columns.get(role, range(columns))


def _scale(span: range, factor: int) -> range:
    return range(span.start * factor, span.stop * factor)


def _read_rows(
    source: NDArray[np.uint8],
    kind: SourceType,
    rows: range,
    columns: int,
    row_map: NDArray[np.int32] | None,
    column_map: NDArray[np.int32] | None,
) -> Iterator[Tensor]:
    """fp32 [some rows, columns] of the decoder's `rows`, in order; only their bytes are read from the source."""
    lines = source.reshape(-1, kind.row_bytes(columns))
    order = None if column_map is None else torch.from_numpy(column_map.astype(np.int64))
    for start in range(rows.start, rows.stop, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, rows.stop)
        chosen = lines[start:stop].copy() if row_map is None else lines[row_map[start:stop]]
        values = dequantise(torch.from_numpy(chosen.reshape(-1)), kind, stop - start, columns)
        yield values if order is None else values[:, order]
