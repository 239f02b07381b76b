"""The one place where the torch decoder's products with weights are chosen: dense in torch, or a device's own kernel.

A kernel for a device adds a class with `Linear`'s two members and its line in `build_linear`; nothing else changes.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from inference_pods.kernels.formats import Precision


class Linear(Protocol):
    """One rank's weights of a projection."""

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]."""
        ...

    @property
    def weight_bytes(self) -> int: ...


class DenseLinear:
    """fp32 values of the tier's weights, [out, in]."""

    def __init__(self, weights: Tensor) -> None:
        self._weights = weights

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self._weights.T

    @property
    def weight_bytes(self) -> int:
        return self._weights.numel() * self._weights.element_size()


def build_linear(weights: Tensor, precision: Precision, device: torch.device) -> Linear:
    """The product with `weights` [out, in], fp32 values on `precision`'s grid, for a device."""
    del precision  # what a quantised kernel packs by; dense weights are already on the grid
    return DenseLinear(weights.to(device))
