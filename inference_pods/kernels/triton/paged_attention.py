"""Attention of one new token per sequence over a paged KV cache (decode), with grouped queries and an online softmax.

One program per (sequence, KV head): the query heads of that KV head are the rows of one tile, padded to the tensor
cores' 16, so each key and value is read once for all of them. Blocks are found through the block table.
Layout of keys and values: [blocks, KV heads, BLOCK_TOKENS, head_dim]: one head's block is one contiguous run.
Not split along the context: one long sequence alone leaves most of a GPU idle.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference_pods.kernels.triton.dispatch import ACTIVATION_TYPES, PER_STEP, WIDEN, runs_triton

TOKENS_PER_STEP = 64


def check_paged(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block_tables: torch.Tensor, lengths: torch.Tensor
) -> None:
    """Raises ValueError unless shapes, types and layouts are those that `paged_attention` documents."""
    if q.ndim != 3 or keys.ndim != 4 or keys.shape != values.shape or keys.shape[3] != q.shape[2]:
        raise ValueError(f"q {tuple(q.shape)}, keys {tuple(keys.shape)} and values {tuple(values.shape)} don't fit")
    if q.shape[1] % keys.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads are no multiple of {keys.shape[1]} KV heads")
    if q.shape[2] < 16 or q.shape[2] & (q.shape[2] - 1):
        raise ValueError(f"head_dim is {q.shape[2]}; the kernel needs a power of two, at least 16")
    if q.dtype not in ACTIVATION_TYPES or keys.dtype != q.dtype or values.dtype != q.dtype:
        raise ValueError(f"q, keys and values are {q.dtype}, {keys.dtype}, {values.dtype}: all float16 or all bfloat16")
    if block_tables.dtype != torch.int32 or lengths.dtype != torch.int32:
        raise ValueError("block_tables and lengths must be int32")
    if block_tables.ndim != 2 or block_tables.shape[0] != q.shape[0] or lengths.shape != q.shape[:1]:
        raise ValueError("block_tables and lengths need one row per sequence")
    if not all(t.is_contiguous() for t in (q, keys, values, block_tables, lengths)):
        raise ValueError("all tensors must be contiguous")


def reference_paged_attention(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block_tables: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """The same in plain torch and fp32, one sequence after another."""
    group = q.shape[1] // keys.shape[1]
    out = torch.empty_like(q)
    for i, length in enumerate(lengths.tolist()):
        blocks = block_tables[i, : -(-length // keys.shape[2])].long()
        k, v = (
            cache[blocks].float().transpose(0, 1).flatten(1, 2)[:, :length].repeat_interleave(group, 0)
            for cache in (keys, values)
        )
        scores = torch.einsum("hd,htd->ht", q[i].float(), k) * q.shape[2] ** -0.5
        out[i] = torch.einsum("ht,htd->hd", scores.softmax(-1), v).to(q.dtype)
    return out


@triton.jit(do_not_specialize=PER_STEP)
def paged_attention_kernel(
    q, keys, values, block_tables, lengths, out, max_blocks,
    KV_HEADS: tl.constexpr, HEADS_PER_KV: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    SCALE: tl.constexpr, WIDEN: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    heads = tl.arange(0, BLOCK_H)
    dims = tl.arange(0, HEAD_DIM)
    head_mask = heads[:, None] < HEADS_PER_KV
    row = (sequence * KV_HEADS + kv_head) * HEADS_PER_KV + heads[:, None]
    queries = tl.load(q + row * HEAD_DIM + dims[None, :], mask=head_mask, other=0.0)
    length = tl.load(lengths + sequence)
    best = tl.full((BLOCK_H,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((BLOCK_H,), dtype=tl.float32)
    total = tl.zeros((BLOCK_H, HEAD_DIM), dtype=tl.float32)
    if WIDEN:
        queries = queries.to(tl.float32)
    for start in range(0, length, BLOCK_T):
        tokens = start + tl.arange(0, BLOCK_T)
        token_mask = tokens < length
        blocks = tl.load(block_tables + sequence * max_blocks + tokens // BLOCK_TOKENS, mask=token_mask, other=0)
        token_rows = (blocks.to(tl.int64) * KV_HEADS + kv_head) * BLOCK_TOKENS + tokens % BLOCK_TOKENS
        offsets = token_rows[:, None] * HEAD_DIM + dims[None, :]
        k = tl.load(keys + offsets, mask=token_mask[:, None], other=0.0)
        v = tl.load(values + offsets, mask=token_mask[:, None], other=0.0)
        if WIDEN:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(queries, tl.trans(k)) * SCALE
        scores = tl.where(token_mask[None, :], scores, float("-inf"))
        higher = tl.maximum(best, tl.max(scores, axis=1))
        shrink = tl.exp(best - higher)
        shares = tl.exp(scores - higher[:, None])
        weight = weight * shrink + tl.sum(shares, axis=1)
        total = tl.dot(shares.to(v.dtype), v, total * shrink[:, None])
        best = higher
    result = total / weight[:, None]
    tl.store(out + row * HEAD_DIM + dims[None, :], result.to(out.dtype.element_ty), mask=head_mask)


def paged_attention(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, block_tables: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """q [sequences, heads, head_dim], caches [blocks, KV heads, block tokens, head_dim] -> like q.

    block_tables int32 [sequences, max blocks] names each sequence's blocks in order; lengths int32 [sequences] counts
    its tokens, the new one included (at least 1). Raises ValueError when shapes, types or layouts don't fit.
    """
    check_paged(q, keys, values, block_tables, lengths)
    if not runs_triton(q):
        return reference_paged_attention(q, keys, values, block_tables, lengths)
    out = torch.empty_like(q)
    kv_heads = keys.shape[1]
    group = q.shape[1] // kv_heads
    paged_attention_kernel[(q.shape[0], kv_heads)](
        q, keys, values, block_tables, lengths, out, block_tables.shape[1],
        KV_HEADS=kv_heads, HEADS_PER_KV=group, HEAD_DIM=q.shape[2], BLOCK_TOKENS=keys.shape[2],
        SCALE=q.shape[2] ** -0.5, WIDEN=WIDEN, BLOCK_H=max(16, triton.next_power_of_2(group)), BLOCK_T=TOKENS_PER_STEP,
    )  # fmt: skip
    return out
