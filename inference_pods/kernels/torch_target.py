"""Where the torch decoder computes, in which type, and whether Triton's kernels are there for it.

Each operation (torch_linear.py, torch_attention.py, torch_norm.py) asks its target and falls back to plain torch for
shapes that its kernel does not know; what it decided stands in `/info`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec

import torch

from inference_pods.kernels.formats import GROUP, Precision

logger = logging.getLogger(__name__)

COMPUTE = torch.bfloat16  # no activation of any llama overflows it; the residual stream keeps what it would round away
_OLDEST_CAPABILITY = (8, 0)  # the kernels are compiled and checked for sm_80 and sm_90; bf16 needs sm_80


class Kernels(StrEnum):
    """Which kernels a torch decoder is to use."""

    AUTO = "auto"
    TORCH = "torch"
    TRITON = "triton"


_PRECISIONS = {torch.float32: Precision.FP32, torch.float16: Precision.FP16, torch.bfloat16: Precision.BF16}


@dataclass(frozen=True, slots=True)
class Target:
    """`compute`: type of activations and of the KV cache. Sums and the residual stream are fp32 whatever it is."""

    device: torch.device
    compute: torch.dtype
    uses_triton: bool
    span: int = GROUP  # weights that share an int4 grid

    @property
    def kv_precision(self) -> Precision:
        """That keys and values are stored in."""
        return _PRECISIONS[self.compute]


def choose_target(
    device: torch.device, precision: Precision, kernels: Kernels = Kernels.AUTO, span: int = GROUP
) -> Target:
    """Triton's kernels on a GPU that has them, else plain torch in fp32, with the reason in the log.

    fp32 weights have no kernel of their own: fp16 or bf16 activations would not be their quality.

    Raises:
        ValueError: kernels are asked for that cannot run here.
    """
    plain = Target(device, torch.float32, uses_triton=False, span=span)
    is_wanted = kernels is Kernels.TRITON or (kernels is Kernels.AUTO and device.type == "cuda")
    if precision is Precision.FP32 or not is_wanted:
        return plain
    obstacle = _find_obstacle(device)
    if obstacle is None:
        return Target(device, torch.float16 if precision is Precision.FP16 else COMPUTE, uses_triton=True, span=span)
    if kernels is Kernels.TRITON:
        raise ValueError(f"Triton's kernels cannot run: {obstacle}")
    logger.warning("%s: decoding %s weights in plain torch, dense in fp32: slower and larger", obstacle, precision)
    return plain


def _find_obstacle(device: torch.device) -> str | None:
    """Why Triton's kernels cannot run on a device; None if they can."""
    if find_spec("triton") is None:
        return "Triton is not installed (extra: gpu)"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return None if capability >= _OLDEST_CAPABILITY else f"compute capability {capability} is below (8, 0)"
    from inference_pods.kernels.triton.dispatch import INTERPRETED  # imports Triton

    return None if INTERPRETED else f"{device} is no GPU, and TRITON_INTERPRET=1 is not set"
