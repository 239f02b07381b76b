"""What a model calls for a quantised matrix, whatever its format: `pack_linear` once, `linear` per step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from enum import StrEnum
from typing import Any, TypeVar

import torch

from inference_pods.kernels.triton.nested import NestedLevel, NestedWeights, nested, pack_nested
from inference_pods.kernels.triton.sparse24 import Sparse24Weights, pack_sparse24, sparse24
from inference_pods.kernels.triton.w4a16 import Int4Weights, pack_int4, w4a16
from inference_pods.kernels.triton.w8a16 import Int8Weights, pack_int8, w8a16

Weights = Int8Weights | Int4Weights | NestedWeights | Sparse24Weights
WeightsT = TypeVar("WeightsT", Int8Weights, Int4Weights, NestedWeights, Sparse24Weights, Weights)


class Format(StrEnum):
    """How a matrix is stored on the GPU."""

    INT8 = "int8"
    INT4 = "int4"
    NESTED = "nested"
    SPARSE24 = "sparse24"


PACK: dict[Format, Callable[[torch.Tensor], Weights]] = {
    Format.INT8: pack_int8,
    Format.INT4: pack_int4,
    Format.NESTED: pack_nested,
    Format.SPARSE24: pack_sparse24,
}


def pack_linear(weights: torch.Tensor, kind: Format) -> Weights:
    """Quantises and packs fp32 [N, K] on the weights' device; ValueError names a shape or type that doesn't fit."""
    return PACK[kind](weights)


def move(matrix: WeightsT, device: torch.device | str) -> WeightsT:
    """The same matrix with all its buffers on another device."""
    values = {field.name: getattr(matrix, field.name) for field in fields(matrix)}
    moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, torch.Tensor)}
    return replace(matrix, **moved)


def linear(x: torch.Tensor, matrix: Weights, level: NestedLevel = NestedLevel.INT8) -> torch.Tensor:
    """[M, K] fp16 or bf16 times Wᵀ -> [M, N] in the same type; `level` matters for nested weights only.

    Runs the Triton kernel for tensors on a GPU, else the plain torch reference. Raises ValueError when shape, type or
    device don't fit.
    """
    match matrix:
        case Int8Weights():
            return w8a16(x, matrix)
        case Int4Weights():
            return w4a16(x, matrix)
        case NestedWeights():
            return nested(x, matrix, level)
        case Sparse24Weights():
            return sparse24(x, matrix)
