"""A packed matrix and its product with small batches: dispatch to the compiled kernels.

Reference in plain torch: `reference.linear`. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_pods.kernels.formats import GROUP, Precision, SourceType
from inference_pods.kernels.library import choose_variant, load_library


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """[rows, columns] weights in the layout of one variant (cpp/format.h)."""

    data: NDArray[np.uint8]
    rows: int
    columns: int
    precision: Precision
    variant: str

    def unpack(self) -> NDArray[np.float32]:
        """[rows, columns] of the values that the kernels compute with."""
        weights = np.empty((self.rows, self.columns), np.float32)
        library = load_library(self.variant)
        library.al_unpack(self.precision.code, self.data.ctypes.data, self.rows, self.columns, weights.ctypes.data)
        return weights


def pack(
    weights: NDArray[np.float32], precision: Precision, variant: str | None = None, span: int = GROUP
) -> PackedMatrix:
    """Quantises and packs [rows, columns] weights; `span`, one of SPANS: how many of a row share an int4 grid."""
    variant = variant or choose_variant()
    library = load_library(variant)
    weights = np.ascontiguousarray(weights, np.float32)
    rows, columns = weights.shape
    data = np.empty(library.al_packed_bytes(precision.code, rows, columns), np.uint8)
    library.al_pack(precision.code, weights.ctypes.data, rows, columns, span, data.ctypes.data)
    return PackedMatrix(data, rows, columns, precision, variant)


def linear(x: NDArray[np.float32], matrix: PackedMatrix) -> NDArray[np.float32]:
    """[batch, columns] times the matrix transposed -> [batch, rows], on the calling thread."""
    x = np.ascontiguousarray(x, np.float32)
    y = np.empty((x.shape[0], matrix.rows), np.float32)
    load_library(matrix.variant).al_matmul(
        matrix.precision.code,
        matrix.data.ctypes.data,
        matrix.rows,
        matrix.columns,
        x.ctypes.data,
        x.shape[0],
        y.ctypes.data,
    )
    return y


def dequantise(source: NDArray[np.uint8], kind: SourceType, rows: int, columns: int) -> NDArray[np.float32]:
    """[rows, columns] fp32 of a GGUF tensor's bytes."""
    weights = np.empty((rows, columns), np.float32)
    source = np.ascontiguousarray(source)
    library = load_library(choose_variant())
    if library.al_dequantise(int(kind), source.ctypes.data, rows, columns, weights.ctypes.data):
        raise ValueError(f"tensor type {kind!r} cannot be dequantised")
    return weights
