"""The kernels as the wrappers launch them, and two faulty ones that the check must report.

Run as a child process without TRITON_INTERPRET: `python compile_cases.py 80 shipped` (or `faulty`); prints one JSON
object per kernel. compiled.py does the work.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import triton
import triton.language as tl
from compiled import Case, compile_case, find_faults

from inference_pods.kernels.triton.dispatch import TILE_ROWS, matmul_warps
from inference_pods.kernels.triton.nested import nested_kernel
from inference_pods.kernels.triton.norm_rope import norm_rope_kernel
from inference_pods.kernels.triton.paged_attention import TOKENS_PER_STEP, paged_attention_kernel
from inference_pods.kernels.triton.rms_norm import rms_norm_kernel
from inference_pods.kernels.triton.sparse24 import sparse24_kernel
from inference_pods.kernels.triton.w4a16 import w4a16_kernel
from inference_pods.kernels.triton.w8a16 import w8a16_kernel

SIZES = {"M": "i32", "N": "i32", "K": "i32"}
NIBBLE_SCALES = {"scales": "*fp16", "minima": "*fp16"}


def matmul_cases(kind: str, rows: int) -> list[Case]:
    """All quantised matmuls for activations `kind` (fp16, bf16) and tiles of `rows` activations."""
    common = {"x": f"*{kind}", "y": f"*{kind}", **SIZES}
    tile = {"WIDEN": False, "BLOCK_M": rows, "BLOCK_N": 64}
    int8 = {**common, "codes": "*i8", "scales": "*fp16"}
    int4 = {**common, "plane": "*u8", **NIBBLE_SCALES}
    nested = {**common, "high": "*u8", "low": "*u8", **NIBBLE_SCALES}
    warps = {"num_warps": matmul_warps(rows)}
    sparse = {**common, "values": "*i8", "positions": "*u8", "scales": "*fp16"}
    end = f"{kind}, {rows} rows"
    return [
        Case(f"w8a16, {end}", w8a16_kernel, int8, {**tile, "PER_ROW": False}, uses_mma=True),
        Case(f"w8a16 per row, {end}", w8a16_kernel, int8, {**tile, "PER_ROW": True}, uses_mma=True),
        Case(f"w4a16, {end}", w4a16_kernel, int4, tile, uses_mma=True),
        Case(
            f"nested int8, {end}", nested_kernel, nested, {**tile, "LEVEL": 0, "STEP": 16}, uses_mma=True, options=warps
        ),
        Case(
            f"nested int4, {end}", nested_kernel, nested, {**tile, "LEVEL": 1, "STEP": 16}, uses_mma=True, options=warps
        ),
        Case(f"sparse24, {end}", sparse24_kernel, sparse, tile, uses_mma=True),
    ]


def attention_case(kind: str, head_dim: int) -> Case:
    tensors = dict.fromkeys(("q", "keys", "values", "out"), f"*{kind}")
    rest = {"block_tables": "*i32", "lengths": "*i32", "max_blocks": "i32", "scale": "fp32"}
    heads = {"KV_HEADS": 3, "HEADS_PER_KV": 3, "HEAD_DIM": head_dim, "BLOCK_TOKENS": 16}
    step = {"WIDEN": False, "BLOCK_H": 16, "BLOCK_T": TOKENS_PER_STEP}
    name = f"paged attention, {kind}, head_dim {head_dim}"
    return Case(name, paged_attention_kernel, {**tensors, **rest}, {**heads, **step}, uses_mma=True)


def head_case(kind: str, rows: int) -> Case:
    """Scores leave the head in fp32."""
    int8 = {"x": f"*{kind}", "y": "*fp32", **SIZES, "codes": "*i8", "scales": "*fp16"}
    tile = {"WIDEN": False, "BLOCK_M": rows, "BLOCK_N": 64, "PER_ROW": False}
    return Case(f"w8a16 to fp32, {kind}, {rows} rows", w8a16_kernel, int8, tile, uses_mma=True)


def norm_cases(kind: str) -> list[Case]:
    norm = {
        **dict.fromkeys(("x", "residual", "y", "total"), f"*{kind}"),
        "weight": "*fp32",
        "K": "i32",
        "epsilon": "fp32",
    }
    stream = {**norm, "residual": "*fp32", "total": "*fp32"}
    rope = {
        **dict.fromkeys(("q", "k", "q_out", "k_out"), f"*{kind}"),
        "positions": "*i32",
        "q_gain": "*fp32",
        "k_gain": "*fp32",
        "table": "*fp32",
        "epsilon": "fp32",
    }
    heads = {"Q_HEADS": 9, "K_HEADS": 3, "HEAD_DIM": 64}
    return [
        Case(f"rms_norm, {kind}", rms_norm_kernel, norm, {"BLOCK_K": 4096}, uses_mma=False),
        Case(f"rms_norm, {kind}, fp32 residual", rms_norm_kernel, stream, {"BLOCK_K": 4096}, uses_mma=False),
        Case(
            f"norm_rope, {kind}",
            norm_rope_kernel,
            rope,
            {**heads, "NORMED": True, "INTERLEAVED": False},
            uses_mma=False,
        ),
        Case(f"rope, {kind}", norm_rope_kernel, rope, {**heads, "NORMED": False, "INTERLEAVED": True}, uses_mma=False),
    ]


@triton.jit
def product_without_dot_kernel(x, y, BLOCK: tl.constexpr):
    index = tl.arange(0, BLOCK)
    a = tl.load(x + index[:, None] * BLOCK + index[None, :])
    tl.store(y + index, tl.sum(a * a, axis=1))


@triton.jit
def large_dot_kernel(x, y, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.arange(0, ROWS)
    a = tl.load(x + rows[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :])
    tl.store(y + rows[:, None] * ROWS + rows[None, :], tl.dot(a, tl.trans(a)).to(y.dtype.element_ty))


HALVES = {"x": "*fp16", "y": "*fp16"}
FAULTY = [
    Case("no dot", product_without_dot_kernel, {"x": "*fp32", "y": "*fp32"}, {"BLOCK": 16}, uses_mma=True),
    Case("spills", large_dot_kernel, HALVES, {"ROWS": 128, "BLOCK": 64}, uses_mma=True, options={"num_warps": 1}),
    Case("too large", large_dot_kernel, HALVES, {"ROWS": 64, "BLOCK": 2048}, uses_mma=True, options={"num_warps": 16}),
]


def shipped_cases() -> list[Case]:
    """bf16, the type of most tiers, at every tile; fp16 at the largest, which needs the most resources."""
    return [
        *(case for rows in TILE_ROWS for case in matmul_cases("bf16", rows)),
        *matmul_cases("fp16", TILE_ROWS[-1]),
        *(head_case("bf16", rows) for rows in TILE_ROWS),
        attention_case("fp16", 64),
        attention_case("bf16", 128),
        *norm_cases("bf16"),
    ]


def main(arch: int, which: str) -> None:
    for case in shipped_cases() if which == "shipped" else FAULTY:
        built = compile_case(case, arch)
        print(json.dumps({**asdict(built), "faults": find_faults(built, case.uses_mma)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
