"""Paged attention in torch over one rank's KV heads: rotation, cache writes, and the two shapes of a step's reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from inference_pods.kernels.decoder import DecoderLimits, DecoderShape
from inference_pods.kernels.formats import BLOCK_TOKENS
from inference_pods.kernels.torch_batch import Batch


class PagedAttention:
    """KV cache [layers, 2, slots, kv_heads, head_dim]. One spare block takes what padded rows write."""

    def __init__(self, shape: DecoderShape, limits: DecoderLimits, kv_heads: int, device: torch.device) -> None:
        self._heads, self._group, self._head_dim = kv_heads, shape.heads // shape.kv_heads, shape.head_dim
        self.spare_slot = limits.kv_blocks * BLOCK_TOKENS
        slots = self.spare_slot + BLOCK_TOKENS
        self._cache = torch.zeros(shape.layers, 2, slots, kv_heads, shape.head_dim, device=device)
        exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        angles = torch.arange(limits.max_positions, dtype=torch.float32)[:, None] / shape.rope_base**exponents
        self._cos, self._sin = angles.cos().to(device), angles.sin().to(device)

    @property
    def kv_bytes(self) -> int:
        return self._cache.numel() * self._cache.element_size()

    def __call__(self, layer: int, qkv: Tensor, batch: Batch) -> Tensor:
        """[rows, (q, k, v) of the rank's heads] -> [rows, q]."""
        rows = qkv.shape[0]
        if not self._heads:
            return qkv.new_zeros(rows, 0)
        heads = qkv.view(rows, -1, self._head_dim)
        queries, keys_end = self._heads * self._group, self._heads * (self._group + 1)
        q, k, v = heads[:, :queries], heads[:, queries:keys_end], heads[:, keys_end:]
        cos, sin = self._cos[batch.positions, None], self._sin[batch.positions, None]
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        cache = self._cache[layer]
        cache[0, batch.write_slots], cache[1, batch.write_slots] = k, v
        q = q.view(rows, self._heads, self._group, self._head_dim)
        if batch.is_decoding_only:
            return self._decode(q, cache, batch).flatten(1)
        mixed = torch.empty_like(q)
        if len(batch.decoding):
            mixed[batch.decoding] = self._decode(q[batch.decoding], cache, batch)
        for prompt in batch.prompts:
            own = slice(prompt.start, prompt.stop)
            keys, values = cache[:, prompt.slots].transpose(1, 2)[:, :, None].expand(-1, -1, self._group, -1, -1)
            chunk = q[own].permute(1, 2, 0, 3)
            attended = scaled_dot_product_attention(chunk, keys, values, attn_mask=prompt.visible)
            mixed[own] = attended.permute(2, 0, 1, 3)
        return mixed.flatten(1)

    @staticmethod
    def _decode(q: Tensor, cache: Tensor, batch: Batch) -> Tensor:
        """[sequences, heads, group, dim], one row each; the group's queries share each key that is read."""
        keys, values = cache[:, batch.read_slots].transpose(2, 3)
        return scaled_dot_product_attention(q, keys, values, attn_mask=batch.visible[:, None, None])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
