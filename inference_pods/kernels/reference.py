"""The kernels' arithmetic in plain torch: what the C++ must compute, and the path for hosts without compiled kernels.

Slow on purpose: readable, vectorised where that is free. Knows formats, not models.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inference_pods.kernels.formats import GROUP, Precision, SourceType

_STORED_AS = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def dequantise(source: Tensor, kind: SourceType, rows: int, columns: int) -> Tensor:
    """uint8 bytes of a GGUF tensor -> fp32 [rows, columns]. Block formats: ggml's quantisation types."""
    if kind is SourceType.F32:
        return source.view(torch.float32).reshape(rows, columns).clone()
    if kind in (SourceType.F16, SourceType.BF16):
        plain = source.view(torch.float16 if kind is SourceType.F16 else torch.bfloat16)
        return plain.reshape(rows, columns).float()
    blocks = source.reshape(rows * columns // GROUP, kind.row_bytes(GROUP))
    scale = blocks[:, :2].clone().view(torch.float16).float()
    if kind is SourceType.Q8_0:
        return (scale * blocks[:, 2:].clone().view(torch.int8).float()).reshape(rows, columns)
    minimum = blocks[:, 2:4].clone().view(torch.float16).float() if kind is SourceType.Q4_1 else -8.0 * scale
    packed = blocks[:, 4:] if kind is SourceType.Q4_1 else blocks[:, 2:]
    codes = torch.cat([packed & 15, packed >> 4], dim=1).float()
    return (scale * codes + minimum).reshape(rows, columns)


def fake_quantise(weights: Tensor, precision: Precision) -> Tensor:
    """The values that a format can represent nearest to `weights` [rows, columns]; groups of 32 along the columns."""
    if precision is Precision.FP32:
        return weights.clone()
    if precision in _STORED_AS:
        return weights.to(_STORED_AS[precision]).float()
    rows, columns = weights.shape
    padding = -columns % GROUP
    groups = torch.nn.functional.pad(weights, (0, padding), value=torch.nan).reshape(rows, -1, GROUP)
    quantised = _ROUNDINGS[precision](groups)
    return quantised.reshape(rows, -1)[:, :columns].contiguous()


def inverse(scale: Tensor) -> Tensor:
    """1 / scale, 0 where there is none: a group of equal weights has no step. Scales may be subnormal in fp16."""
    return torch.where(scale > 0, 1.0 / scale, torch.zeros_like(scale))


def _round_int8(groups: Tensor) -> Tensor:
    top = groups.abs().nan_to_num(0.0).amax(dim=2, keepdim=True)
    scale = (top / 127.0).half().float()
    return torch.round(groups * inverse(scale)).clamp(-127, 127) * scale


def _int4_grid(groups: Tensor) -> tuple[Tensor, Tensor]:
    low = groups.nan_to_num(torch.inf).amin(dim=2, keepdim=True)
    high = groups.nan_to_num(-torch.inf).amax(dim=2, keepdim=True)
    return ((high - low) / 15.0).half().float(), low.half().float()


def _round_int4(groups: Tensor) -> Tensor:
    step, minimum = _int4_grid(groups)
    return torch.round((groups - minimum) * inverse(step)).clamp(0, 15) * step + minimum


def _round_nested(groups: Tensor) -> Tensor:
    """Both planes: what int4 leaves over is rounded to sixteenths of its step, -8 to 7 of them."""
    step = _int4_grid(groups)[0] / 16.0
    coarse = _round_int4(groups)
    return coarse + step * torch.round((groups - coarse) * inverse(step)).clamp(-8, 7)


_ROUNDINGS = {Precision.INT8: _round_int8, Precision.INT4: _round_int4, Precision.NESTED: _round_nested}


def linear(x: Tensor, weights: Tensor, precision: Precision) -> Tensor:
    """[batch, columns] x [rows, columns] -> [batch, rows], int16 activations where the kernels use them."""
    if precision.is_grouped:
        scale = x.abs().amax(dim=1, keepdim=True) / 32767.0
        x = torch.round(x * inverse(scale)) * scale
    return x @ fake_quantise(weights, precision).T
