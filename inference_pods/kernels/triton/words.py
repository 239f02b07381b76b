"""What the kernels on words (tiles.py) share: taking a slice of weights out, and multiplying with it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _shift(words, FIRST: tl.constexpr, TO: tl.constexpr):
    """The words as uint32 with bit FIRST moved to bit TO."""
    bits = words.to(tl.uint32, bitcast=True)
    if FIRST < TO:
        bits = bits << (TO - FIRST)
    if FIRST > TO:
        bits = bits >> (FIRST - TO)
    return bits


@triton.jit
def place(words, FIRST: tl.constexpr, WIDEN: tl.constexpr):
    """fp32 16 + code, of the nibbles in the bits FIRST to FIRST + 3 of each word.

    The code becomes the top of the fraction of a number with that exponent: a shift and one logical instruction (the
    compiler would take two), where converting an integer takes one of a quarter of their rate.
    """
    bits = _shift(words, FIRST, 19)
    if WIDEN:
        bits = (bits & 0x00780000) | 0x41800000
    else:
        bits = tl.inline_asm_elementwise(
            "lop3.b32 $0, $1, 0x00780000, 0x41800000, 0xEA;", "=r,r", [bits], dtype=tl.uint32, is_pure=True, pack=1
        )
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def place_pair(high, low, FIRST: tl.constexpr, STEP: tl.constexpr):
    """fp32 256 + STEP · hi + lo, of the nibbles in the bits FIRST to FIRST + 3 of each word. STEP: 8 or 16."""
    COARSE: tl.constexpr = 19 if STEP == 16 else 18  # the bit of a fraction that counts STEP beside 256
    bits = _shift(high, FIRST, COARSE) & (15 << COARSE)
    bits += _shift(low, FIRST, 15) & (15 << 15)
    return (bits | ((127 + 8) << 23)).to(tl.float32, bitcast=True)


@triton.jit
def half_of(words, WHICH: tl.constexpr):
    """fp32 of the lower (0) or upper (1) fp16 of each word."""
    return (words >> (16 * WHICH)).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def load_slice(x, rows, inner, column, M, K):
    """[BLOCK_M, 16] activations from `column` on; zeros beyond the last column, where a tile is filled up."""
    offsets = rows[:, None].to(tl.int64) * K + (column + inner)[None, :]
    return tl.load(x + offsets, mask=(rows[:, None] < M) & (column < K), other=0.0)


@triton.jit
def multiply_slice(total, a, w, WIDEN: tl.constexpr):
    """Adds the product of a slice, with fp32 weights [16, BLOCK_N] rounded to the activations' type, to the sums."""
    if WIDEN:
        w = round_interpreted(w, a.dtype)
        a = a.to(tl.float32)
    else:
        w = w.to(a.dtype)
    return tl.dot(a, w, total)


@triton.jit
def round_interpreted(w, KIND: tl.constexpr):
    """fp32 values of a 16-bit type, the nearest ones: interpreted, a conversion to bf16 cuts off."""
    if KIND.primitive_bitwidth == 16 and KIND.fp_mantissa_width == 10:
        nearest = w.to(tl.float16).to(tl.float32)
    else:
        bits = w.to(tl.uint32, bitcast=True)
        nearest = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return nearest
