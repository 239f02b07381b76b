"""Loads the compiled kernels through ctypes and declares their C interface. Knows no model."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from functools import cache

from inference_pods.kernels.build import KernelUnavailableError, ensure_library
from inference_pods.kernels.cpu import VARIANTS, detect_cpu

_VARIANT = "ADAPTIVE_KERNEL_VARIANT"


class Config(Structure):
    """Mirror of `struct Config` in cpp/model.h."""

    _fields_ = [
        *((name, c_int32) for name in ("layers", "dim", "ffn", "heads", "kv_heads", "head_dim", "vocab")),
        *(
            (name, c_int32)
            for name in (
                "max_rows",
                "max_outputs",
                "max_positions",
                "kv_blocks",
                "precision",
                "kv_precision",
                "threads",
                "span",
            )
        ),
        ("rms_eps", c_float),
        ("rope_base", c_float),
    ]


_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "al_variant": (c_char_p, ()),
    "al_create": (c_void_p, (POINTER(Config),)),
    "al_required_bytes": (c_int64, (POINTER(Config),)),
    "al_destroy": (None, (c_void_p,)),
    "al_weight_bytes": (c_int64, (c_void_p,)),
    "al_kv_bytes": (c_int64, (c_void_p,)),
    "al_add_level": (c_int, (c_void_p, c_int, c_void_p)),
    "al_load": (c_int, (c_void_p, c_int, c_int, c_int, c_void_p, c_int64, c_int64, c_void_p, c_void_p)),
    "al_step": (
        c_int,
        (c_void_p, c_int64, *(c_void_p,) * 5, c_int64, *(c_void_p,) * 4),
    ),
    "al_packed_bytes": (c_int64, (c_int, c_int64, c_int64)),
    "al_pack": (None, (c_int, c_void_p, c_int64, c_int64, c_int64, c_void_p)),
    "al_unpack": (None, (c_int, c_void_p, c_int64, c_int64, c_void_p)),
    "al_dequantise": (c_int, (c_int, c_void_p, c_int64, c_int64, c_void_p)),
    "al_matmul": (None, (c_int, c_void_p, c_int64, c_int64, c_void_p, c_int64, c_void_p)),
}


class VariantUnknownError(ValueError):
    """ADAPTIVE_KERNEL_VARIANT names no variant, or none of this CPU's; the message says which there are."""


def choose_variant() -> str:
    """The best variant of this CPU, or the one that ADAPTIVE_KERNEL_VARIANT asks for (benchmarks, tests).

    Raises:
        VariantUnknownError: there is none of that name, or this CPU would die of its instructions.
    """
    asked, cpu = os.environ.get(_VARIANT), detect_cpu()
    if asked and asked not in VARIANTS:
        raise VariantUnknownError(f"{_VARIANT}={asked[:80]}: no such kernels; choose one of {', '.join(VARIANTS)}")
    if asked and not cpu.can_run(asked):
        able = ", ".join(filter(cpu.can_run, VARIANTS))
        raise VariantUnknownError(f"{_VARIANT}={asked}: this CPU ({cpu.describe()}) lacks them; choose one of {able}")
    return asked or cpu.best_variant()


@cache
def load_library(variant: str) -> ctypes.CDLL:
    """The shared object of a variant, its functions typed.

    Raises:
        KernelUnavailableError: it is neither prebuilt nor buildable here, or the file is none of these libraries.
    """
    path = ensure_library(variant)
    try:
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, list(arguments)
    except (OSError, AttributeError) as error:
        raise KernelUnavailableError(f"{path} cannot be loaded ({error}); remove it, it is built again") from error
    return library
