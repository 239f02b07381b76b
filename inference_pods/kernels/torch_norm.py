"""The residual add and the RMSNorm after it, as the torch decoder does them: one Triton kernel, or plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pods.kernels.torch_target import Target


class AddNorm:
    """Called between any two products of a layer."""

    def __init__(self, epsilon: float, target: Target) -> None:
        self._epsilon, self._compute, self._fuses = epsilon, target.compute, target.uses_triton
        self.path = "triton rms_norm" if self._fuses else "torch"

    def __call__(self, delta: Tensor | None, residual: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """delta in the computing type, residual fp32, both [rows, dim] -> (norm of their sum, the sum).

        No delta: nothing is to be added yet.
        """
        if self._fuses:
            from inference_pods.kernels.triton.rms_norm import rms_norm

            added = torch.zeros_like(residual, dtype=self._compute) if delta is None else delta
            return rms_norm(added.contiguous(), residual, gain, self._epsilon)
        total = residual if delta is None else residual + delta
        scale = torch.rsqrt(total.square().mean(-1, keepdim=True) + self._epsilon)
        return (total * scale * gain).to(self._compute), total
