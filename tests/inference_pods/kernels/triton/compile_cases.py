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

from inference_pods.kernels.triton import nested, sparse24, w4a16, w8a16
from inference_pods.kernels.triton.dispatch import TILE_ROWS
from inference_pods.kernels.triton.norm_rope import norm_rope_kernel
from inference_pods.kernels.triton.paged_attention import TOKENS_PER_STEP, paged_attention_kernel
from inference_pods.kernels.triton.rms_norm import rms_norm_kernel
from inference_pods.kernels.triton.spread import choose_tile

SIZES = {"M": "i32", "N": "i32", "K": "i32", "partial": "*fp32", "counters": "*i32"}


def matmul_cases(kind: str, rows: int) -> list[Case]:
    """All quantised matmuls for activations `kind` (fp16, bf16) and tiles of `rows` activations."""
    common = {"x": f"*{kind}", "y": f"*{kind}", **SIZES}
    int8 = {**common, "codes": "*i8", "scales": "*fp16"}
    int4 = {**common, "plane": "*i32", "grid": "*i32"}
    planes = {**common, "high": "*i32", "low": "*i32", "grid": "*i32"}
    sparse = {**common, "values": "*i8", "positions": "*u8", "scales": "*fp16"}
    return [
        matmul_case(f"{name}, {kind}", kernel, tiles, rows, types, constants)
        for name, kernel, tiles, types, constants in (
            ("w8a16", w8a16.w8a16_kernel, w8a16.TILES, int8, {"PER_ROW": False}),
            ("w8a16 per row", w8a16.w8a16_kernel, w8a16.TILES, int8, {"PER_ROW": True}),
            ("w4a16", w4a16.w4a16_kernel, w4a16.TILES, int4, {}),
            ("nested int8", nested.nested_kernel, nested.TILES, planes, {"LEVEL": 0, "STEP": 16}),
            ("nested int4", nested.nested_kernel, nested.TILES, planes, {"LEVEL": 1, "STEP": 16}),
            ("sparse24", sparse24.sparse24_kernel, sparse24.TILES, sparse, {}),
        )
    ]


def matmul_case(name, kernel, tiles, rows, types, constants) -> Case:
    tile = choose_tile(tiles, rows)
    every = {"WIDEN": False, **tile.constants, **constants}
    return Case(f"{name}, {rows} rows", kernel, types, every, uses_mma=True, options=tile.options)


def attention_case(kind: str, head_dim: int) -> Case:
    tensors = dict.fromkeys(("q", "keys", "values", "out"), f"*{kind}")
    rest = {"block_tables": "*i32", "lengths": "*i32", "max_blocks": "i32"}
    heads = {"KV_HEADS": 3, "HEADS_PER_KV": 3, "HEAD_DIM": head_dim, "BLOCK_TOKENS": 16}
    step = {"SCALE": head_dim**-0.5, "WIDEN": False, "BLOCK_H": 16, "BLOCK_T": TOKENS_PER_STEP}
    name = f"paged attention, {kind}, head_dim {head_dim}"
    return Case(name, paged_attention_kernel, {**tensors, **rest}, {**heads, **step}, uses_mma=True)


def head_case(kind: str, rows: int) -> Case:
    """Scores leave the head in fp32."""
    int8 = {"x": f"*{kind}", "y": "*fp32", **SIZES, "codes": "*i8", "scales": "*fp16"}
    return matmul_case(f"w8a16 to fp32, {kind}", w8a16.w8a16_kernel, w8a16.TILES, rows, int8, {"PER_ROW": False})


def norm_cases(kind: str) -> list[Case]:
    norm = {
        **dict.fromkeys(("x", "residual", "y", "total"), f"*{kind}"),
        "weight": "*fp32",
        "K": "i32",
    }
    stream = {**norm, "residual": "*fp32", "total": "*fp32"}
    rope = {
        **dict.fromkeys(("q", "k", "q_out", "k_out"), f"*{kind}"),
        "positions": "*i32",
        "q_gain": "*fp32",
        "k_gain": "*fp32",
        "table": "*fp32",
    }
    heads = {"Q_HEADS": 9, "K_HEADS": 3, "HEAD_DIM": 64, "EPSILON": 1e-5}
    return [
        Case(f"rms_norm, {kind}", rms_norm_kernel, norm, {"EPSILON": 1e-5, "BLOCK_K": 4096}, uses_mma=False),
        Case(
            f"rms_norm, {kind}, fp32 residual",
            rms_norm_kernel,
            stream,
            {"EPSILON": 1e-5, "BLOCK_K": 4096},
            uses_mma=False,
        ),
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
