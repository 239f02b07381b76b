"""Where an operation runs: the Triton kernel on a GPU (or interpreted), else the reference in plain torch."""

from __future__ import annotations

import os

import torch

ACTIVATION_TYPES = (torch.float16, torch.bfloat16)

# Triton decides when a kernel is defined, so that later changes of the variable are without effect here too.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# bf16 operands of tl.dot are silently wrong when interpreted (numpy has no bf16): there the tiles are widened first.
WIDEN = INTERPRETED

# Numbers with a fraction are constants of a kernel: torch.compile would pass them as fp64, and what is computed with
# them would become fp64, too.

# Arguments that change from step to step. Triton would compile a version of its own for 1 and for multiples of 16,
# in the middle of serving; no access is faster for knowing these two.
PER_STEP = ("M", "max_blocks")

TILE_ROWS = (16, 32, 64)  # of activations: each is a version of its own, made before the replica is ready


def runs_triton(tensor: torch.Tensor) -> bool:
    """Whether a kernel on this tensor's device is the Triton one; the CPU has the C++ kernels and the reference."""
    return tensor.is_cuda or INTERPRETED


def check_activations(x: torch.Tensor, columns: int, device: torch.device) -> None:
    """Raises ValueError unless x is [rows, columns], fp16 or bf16, contiguous, on the weights' device."""
    if x.ndim != 2 or x.shape[1] != columns:
        raise ValueError(f"x has shape {tuple(x.shape)}, the weights need [rows, {columns}]")
    if x.dtype not in ACTIVATION_TYPES:
        raise ValueError(f"x is {x.dtype}; the kernels take float16 or bfloat16: convert it first")
    if not x.is_contiguous():
        raise ValueError("x is not contiguous: call .contiguous() first")
    if x.device != device:
        raise ValueError(f"x is on {x.device}, the weights on {device}: move one of them")
