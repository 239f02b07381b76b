"""RMSNorm with the residual add before it in the same pass: what a decoder layer does between two matmuls."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference_pods.kernels.triton.dispatch import check_activations, runs_triton


def reference_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in plain torch, through fp32."""
    total = (x.float() + residual.float()).to(residual.dtype)
    wide = total.float()
    norm = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * weight.float()
    return norm.to(x.dtype), total


@triton.jit
def rms_norm_kernel(x, residual, weight, y, total, K, EPSILON: tl.constexpr, BLOCK_K: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * K + tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_K)
    mask = columns < K
    sums = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
    sums += tl.load(residual + offsets, mask=mask, other=0.0).to(tl.float32)
    stored = sums.to(total.dtype.element_ty)
    tl.store(total + offsets, stored, mask=mask)
    wide = stored.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / K + EPSILON)
    gains = tl.load(weight + columns, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + offsets, (wide * scale * gains).to(y.dtype.element_ty), mask=mask)


def rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """x and residual [M, K], weight [K] -> (norm of their sum in x's type, the sum in the residual's), both [M, K].

    The residual is of x's type or fp32: the sum over all layers then loses nothing and cannot overflow.
    Raises ValueError when shape, type or device don't fit.
    """
    check_activations(x, weight.shape[0], weight.device)
    if residual.shape != x.shape or residual.dtype not in (x.dtype, torch.float32):
        raise ValueError(f"residual is {residual.dtype} {tuple(residual.shape)}, x {x.dtype} {tuple(x.shape)}")
    if not residual.is_contiguous() or residual.device != x.device:
        raise ValueError(f"residual on {residual.device} must be contiguous and on x's device, {x.device}")
    if not runs_triton(x):
        return reference_rms_norm(x, residual, weight, epsilon)
    y, total = torch.empty_like(x), torch.empty_like(residual)
    block = triton.next_power_of_2(x.shape[1])
    rms_norm_kernel[(x.shape[0],)](x, residual, weight, y, total, x.shape[1], EPSILON=epsilon, BLOCK_K=block)
    return y, total
