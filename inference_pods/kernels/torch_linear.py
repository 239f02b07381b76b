"""The one place where the torch decoder's products with weights are chosen: dense in torch, or Triton's kernels.

A kernel for another device adds a class with `Linear`'s members and its line in `build_linear`; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from inference_pods.kernels.formats import GROUP, Precision
from inference_pods.kernels.levels import readable_precisions
from inference_pods.kernels.reference import fake_quantise
from inference_pods.kernels.torch_target import Target

if TYPE_CHECKING:
    from inference_pods.kernels.triton.linear import Weights

_SCALE_BYTES = 2  # fp16, as minima are
_DENSE_TYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


class Linear(Protocol):
    """One rank's weights of a projection."""

    path: str  # what computes it, for /info

    def __call__(self, x: Tensor, read_as: Precision) -> Tensor:
        """[rows, in] -> [rows, out] in x's type; `read_as` is one of the precisions that the weights can be read in."""
        ...

    @property
    def weight_bytes(self) -> int: ...


class Head(Protocol):
    """One rank's rows of the output matrix, which is also the embedding."""

    path: str

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> fp32 scores [rows, out]."""
        ...

    def rows(self, tokens: Tensor) -> Tensor:
        """fp32 [tokens, in]: the embeddings of int64 tokens, counted from the rank's first."""
        ...

    @property
    def weight_bytes(self) -> int: ...


class DenseLinear:
    """The values of the tier's weights, [out, in], one matrix per precision that they can be read in."""

    path = "torch"

    def __init__(self, readings: Mapping[Precision, Tensor]) -> None:
        self._readings = readings

    def __call__(self, x: Tensor, read_as: Precision) -> Tensor:
        weights = self._readings[read_as]
        return (x.to(weights.dtype) @ weights.T).to(x.dtype)

    @property
    def weight_bytes(self) -> int:
        return sum(weights.numel() * weights.element_size() for weights in self._readings.values())


class DenseHead:
    """fp32 values, [out, in]."""

    path = "torch"

    def __init__(self, weights: Tensor) -> None:
        self._weights = weights

    def __call__(self, x: Tensor) -> Tensor:
        return x.float() @ self._weights.T

    def rows(self, tokens: Tensor) -> Tensor:
        return self._weights[tokens]

    @property
    def weight_bytes(self) -> int:
        return self._weights.numel() * self._weights.element_size()


class TritonLinear:
    """Codes and scales, multiplied as they are. Nested weights are held once for both readings."""

    def __init__(self, weights: Tensor, precision: Precision, target: Target) -> None:
        from inference_pods.kernels.triton.linear import Format, linear, move, pack_linear
        from inference_pods.kernels.triton.nested import NestedLevel
        from inference_pods.kernels.triton.w4a16 import pack_int4

        is_int4 = precision is Precision.INT4
        packed = pack_int4(weights, target.span) if is_int4 else pack_linear(weights, Format(precision.value))
        self._matrix = move(packed, target.device)
        self._multiply = linear
        self._levels = {Precision.INT8: NestedLevel.INT8, Precision.INT4: NestedLevel.INT4}
        kernel = {Precision.INT8: "w8a16", Precision.INT4: "w4a16", Precision.NESTED: "nested"}[precision]
        self.path = f"triton {kernel}"

    def __call__(self, x: Tensor, read_as: Precision) -> Tensor:
        return self._multiply(x.contiguous(), self._matrix, self._levels[read_as])

    @property
    def weight_bytes(self) -> int:
        return _count_bytes(self._matrix)


class TritonHead:
    """An int8 matrix: rows are widened one by one where they are embeddings."""

    path = "triton w8a16"

    def __init__(self, weights: Tensor, device: torch.device) -> None:
        from inference_pods.kernels.triton.linear import move
        from inference_pods.kernels.triton.w8a16 import pack_int8, read_rows, w8a16

        self._matrix, self._multiply, self._read = move(pack_int8(weights), device), w8a16, read_rows

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x, self._matrix, torch.float32)

    def rows(self, tokens: Tensor) -> Tensor:
        return self._read(self._matrix, tokens)

    @property
    def weight_bytes(self) -> int:
        return _count_bytes(self._matrix)


@dataclass(frozen=True, slots=True)
class Cut:
    """The columns `kept` of a tensor that has `columns`."""

    kept: range
    columns: int

    def has_whole(self, width: int) -> bool:
        """Whether it consists of whole runs of `width` columns, of which a tensor's last one may be shorter."""
        start, stop = self.kept.start, self.kept.stop
        return start < stop and not start % width and (not stop % width or stop == self.columns)


def packs(precision: Precision, cut: Cut, target: Target) -> bool:
    """Whether a cut goes to a quantised kernel: it has to consist of whole groups, whose grids are its own."""
    if not target.uses_triton or not precision.is_grouped or len(cut.kept) % GROUP:
        return False
    return cut.has_whole(target.span if precision is Precision.INT4 else GROUP)


def read_weights(part: Tensor, precision: Precision, cut: Cut, target: Target) -> dict[Precision, Tensor]:
    """What a product needs of some rows [rows, all columns] of a tensor, cut, fp32.

    For a quantised kernel the weights themselves, which it packs; else the values of every reading. These are rounded
    before they are cut, so that a rank's values are those of the whole, wherever its border lies.
    """
    kept = slice(cut.kept.start, cut.kept.stop)
    if packs(precision, cut, target):
        return {precision: part[:, kept]}
    both_planes = precision is Precision.NESTED
    return {
        read_as: fake_quantise(part, precision if both_planes and read_as is Precision.INT8 else read_as, target.span)[
            :, kept
        ]
        for read_as in list_readings(precision, cut, target)
    }


def list_readings(precision: Precision, cut: Cut, target: Target) -> tuple[Precision, ...]:
    """The keys of `read_weights`."""
    return (precision,) if packs(precision, cut, target) else readable_precisions(precision)


def build_linear(parts: Mapping[Precision, Tensor], precision: Precision, cut: Cut, target: Target) -> Linear:
    """The product with what `read_weights` made of all rows of a cut, [out, kept columns]."""
    if packs(precision, cut, target):
        return TritonLinear(parts[precision], precision, target)
    kind = _dense_type(precision, target)
    return DenseLinear({read_as: part.to(target.device, kind) for read_as, part in parts.items()})


def _dense_type(precision: Precision, target: Target) -> torch.dtype:
    return _DENSE_TYPES.get(precision, torch.float32) if target.uses_triton else torch.float32


def build_head(parts: Mapping[Precision, Tensor], precision: Precision, cut: Cut, target: Target) -> Head:
    """The same for the output matrix in its own precision (Precision.head)."""
    if packs(precision, cut, target):
        return TritonHead(parts[precision], target.device)
    return DenseHead(parts[precision].to(target.device))


def plan_linear_bytes(rows: int, precision: Precision, cut: Cut, target: Target) -> int:
    """Bytes that `build_linear` will take for `rows` rows of a cut."""
    columns = len(cut.kept)
    if not packs(precision, cut, target):
        return rows * columns * _dense_type(precision, target).itemsize * len(readable_precisions(precision))
    from inference_pods.kernels.triton.spread import counter_bytes
    from inference_pods.kernels.triton.tiles import WORD_TILE

    if precision is Precision.INT8:
        return rows * (columns + columns // GROUP * _SCALE_BYTES) + counter_bytes(rows)
    padded = -(-columns // WORD_TILE) * WORD_TILE
    planes = 2 if precision is Precision.NESTED else 1
    grid = padded // GROUP * 2 * _SCALE_BYTES  # scale and minimum of each group
    return rows * (planes * padded // 2 + grid) + counter_bytes(rows)


def plan_head_bytes(rows: int, precision: Precision, cut: Cut, target: Target) -> int:
    """The same for `build_head`."""
    packed = packs(precision, cut, target)
    return plan_linear_bytes(rows, precision, cut, target) if packed else rows * len(cut.kept) * torch.float32.itemsize


def _count_bytes(matrix: Weights) -> int:
    values = [getattr(matrix, field.name) for field in fields(matrix)]
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))
