"""Paged attention over one rank's KV heads: rotation, cache writes, and the two shapes of a step's reads.

Rotation and decoding go through Triton's kernels where these know the size of a head; prompt chunks attend in torch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from inference_pods.kernels.decoder import DecoderLimits, DecoderShape
from inference_pods.kernels.formats import BLOCK_TOKENS
from inference_pods.kernels.torch_batch import Batch
from inference_pods.kernels.torch_target import Target

_SMALLEST_HEAD = 16  # of Triton's kernels: powers of two from here on


class PagedAttention:
    """KV cache [layers, 2, blocks, kv_heads, BLOCK_TOKENS, head_dim]. One spare block takes what padded rows write."""

    def __init__(self, shape: DecoderShape, limits: DecoderLimits, kv_heads: int, target: Target) -> None:
        self._heads, self._group, self._head_dim = kv_heads, shape.heads // shape.kv_heads, shape.head_dim
        self.spare_block = limits.kv_blocks
        self._cache = torch.zeros(_cache_size(shape, limits, kv_heads), device=target.device, dtype=target.compute)
        exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        angles = torch.arange(limits.max_positions, dtype=torch.float32)[:, None] / shape.rope_base**exponents
        self._rotations = torch.stack([angles.cos(), angles.sin()], 1).to(target.device)
        is_known = shape.head_dim >= _SMALLEST_HEAD and not shape.head_dim & (shape.head_dim - 1)
        self._uses_triton = target.uses_triton and is_known
        self.paths = {
            "rotation": "triton norm_rope" if self._uses_triton else "torch",
            "decode_attention": "triton paged_attention" if self._uses_triton else "torch",
            "prompt_attention": "torch",
        }

    @property
    def kv_bytes(self) -> int:
        return self._cache.numel() * self._cache.element_size()

    def store(self, layer: int, qkv: Tensor, batch: Batch) -> Tensor:
        """[rows, (q, k, v) of the rank's heads]: writes k and v to the cache and returns q, rotated as k is,
        [rows, heads, head_dim]."""
        heads = qkv.view(qkv.shape[0], -1, self._head_dim)
        queries, keys_end = self._heads * self._group, self._heads * (self._group + 1)
        q, k = self._rotate(heads[:, :queries], heads[:, queries:keys_end], batch.positions)
        cache = self._cache[layer]
        cache[0, batch.write_blocks, :, batch.write_offsets] = k
        cache[1, batch.write_blocks, :, batch.write_offsets] = heads[:, keys_end:]
        return q

    def __call__(self, layer: int, qkv: Tensor, batch: Batch) -> Tensor:
        """[rows, (q, k, v) of the rank's heads] -> [rows, q]."""
        if not self._heads:
            return qkv.new_zeros(qkv.shape[0], 0)
        q, cache = self.store(layer, qkv, batch), self._cache[layer]
        if batch.is_decoding_only:
            return self._decode(q, cache, batch).flatten(1)
        mixed = torch.empty_like(q)
        if len(batch.decoding):
            mixed[batch.decoding] = self._decode(q[batch.decoding], cache, batch)
        for prompt in batch.prompts:
            own = slice(prompt.start, prompt.stop)
            read = cache[:, prompt.blocks].transpose(1, 2).flatten(2, 3)[:, :, : prompt.visible.shape[1]]
            keys, values = read[:, :, None].expand(-1, -1, self._group, -1, -1)
            chunk = q[own].view(-1, self._heads, self._group, self._head_dim).permute(1, 2, 0, 3)
            attended = scaled_dot_product_attention(chunk, keys, values, attn_mask=prompt.visible)
            mixed[own] = attended.permute(2, 0, 1, 3).flatten(1, 2)
        return mixed.flatten(1)

    def _decode(self, q: Tensor, cache: Tensor, batch: Batch) -> Tensor:
        """[sequences, heads, head_dim], one row each; a group's queries share each key that is read."""
        if self._uses_triton:
            from inference_pods.kernels.triton.paged_attention import paged_attention

            return paged_attention(q, cache[0], cache[1], batch.block_tables, batch.lengths)
        grouped = q.view(-1, self._heads, self._group, self._head_dim)
        read = cache[:, batch.block_tables].transpose(2, 3).flatten(3, 4)
        visible = torch.arange(read.shape[3], device=q.device) < batch.lengths[:, None]
        # A slot that nobody wrote yet keeps what its block's last owner left, perhaps NaN, which no mask outweighs.
        keys, values = read.masked_fill(~visible[:, None, :, None], 0)
        return scaled_dot_product_attention(grouped, keys, values, attn_mask=visible[:, None, None]).flatten(1, 2)

    def _rotate(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """q and k [rows, heads, head_dim], pairs half a head apart."""
        if self._uses_triton:
            from inference_pods.kernels.triton.norm_rope import norm_rope

            return norm_rope(q.contiguous(), k.contiguous(), positions, self._rotations)
        cos, sin = self._rotations[positions, None].unbind(2)
        return _turn(q, cos, sin), _turn(k, cos, sin)


def plan_kv_bytes(shape: DecoderShape, limits: DecoderLimits, kv_heads: int, target: Target) -> int:
    """Bytes that the KV cache of `kv_heads` heads will take."""
    return math.prod(_cache_size(shape, limits, kv_heads)) * target.compute.itemsize


def _cache_size(shape: DecoderShape, limits: DecoderLimits, kv_heads: int) -> tuple[int, ...]:
    spare_blocks = 1
    return shape.layers, 2, limits.kv_blocks + spare_blocks, kv_heads, BLOCK_TOKENS, shape.head_dim


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)
