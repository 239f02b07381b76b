"""RMSNorm fused with RoPE: the heads of q and k, normed (if the model does so) and rotated in one launch.

Per head vector x: x · rsqrt(mean x² + ε) · gain (skipped without gains; Qwen3 has them, Llama not), then each pair is
rotated by position · base^(−2i/head_dim). Pairs are (i, i + half) as in Hugging Face checkpoints, or interleaved
(2i, 2i + 1) as in GGUF files of the llama architecture. Cosines and sines come from a table: computed in the kernel,
the range reduction of large angles would need local memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference_pods.kernels.triton.dispatch import ACTIVATION_TYPES, runs_triton


def pair_indices(head_dim: int, interleaved: bool, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the first and the second elements of all pairs."""
    index = torch.arange(head_dim // 2, device=device)
    return (2 * index, 2 * index + 1) if interleaved else (index, index + head_dim // 2)


def rotation_table(tokens: int, head_dim: int, base: float, device: torch.device | str = "cpu") -> torch.Tensor:
    """fp32 [tokens, 2, head_dim / 2]: cosines, then sines, of every position below `tokens`; computed in fp64."""
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(tokens, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()], dim=1).float().to(device)


def reference_norm_rope(
    x: torch.Tensor,
    positions: torch.Tensor,
    table: torch.Tensor,
    gain: torch.Tensor | None = None,
    epsilon: float = 1e-5,
    interleaved: bool = False,
) -> torch.Tensor:
    """One of q and k, [M, heads, head_dim], normed and rotated in plain torch through fp32."""
    head_dim = x.shape[2]
    wide = x.float()
    if gain is not None:
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * gain.float()
    i, j = pair_indices(head_dim, interleaved, x.device)
    cosine, sine = table[positions.long()][:, None].unbind(2)
    out = torch.empty_like(wide)
    out[..., i] = wide[..., i] * cosine - wide[..., j] * sine
    out[..., j] = wide[..., j] * cosine + wide[..., i] * sine
    return out.to(x.dtype)


@triton.jit
def norm_rope_kernel(
    q, k, q_out, k_out, positions, table, q_gain, k_gain,
    Q_HEADS: tl.constexpr, K_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr,
    EPSILON: tl.constexpr, NORMED: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    HALF: tl.constexpr = HEAD_DIM // 2
    pairs = tl.arange(0, HALF)
    first = 2 * pairs if INTERLEAVED else pairs
    second = first + 1 if INTERLEAVED else first + HALF
    if head < Q_HEADS:
        source = q + (token * Q_HEADS + head) * HEAD_DIM
        target = q_out + (token * Q_HEADS + head) * HEAD_DIM
        gain = q_gain
    else:
        source = k + (token * K_HEADS + head - Q_HEADS) * HEAD_DIM
        target = k_out + (token * K_HEADS + head - Q_HEADS) * HEAD_DIM
        gain = k_gain
    a = tl.load(source + first).to(tl.float32)
    b = tl.load(source + second).to(tl.float32)
    if NORMED:
        scale = tl.rsqrt((tl.sum(a * a, axis=0) + tl.sum(b * b, axis=0)) / HEAD_DIM + EPSILON)
        a *= scale * tl.load(gain + first).to(tl.float32)
        b *= scale * tl.load(gain + second).to(tl.float32)
    rotation = table + tl.load(positions + token).to(tl.int64) * HEAD_DIM + pairs
    cosine = tl.load(rotation)
    sine = tl.load(rotation + HALF)
    tl.store(target + first, (a * cosine - b * sine).to(q_out.dtype.element_ty))
    tl.store(target + second, (b * cosine + a * sine).to(q_out.dtype.element_ty))


def check_heads(q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor) -> None:
    """Raises ValueError unless q and k are [M, heads, head_dim] of one 16-bit type and positions int32 [M]."""
    if q.ndim != 3 or k.ndim != 3 or q.shape[::2] != k.shape[::2]:
        raise ValueError(f"q is {tuple(q.shape)}, k {tuple(k.shape)}; both need [tokens, heads, head_dim]")
    if q.dtype not in ACTIVATION_TYPES or k.dtype != q.dtype:
        raise ValueError(f"q is {q.dtype}, k {k.dtype}: both float16 or both bfloat16")
    if q.shape[2] < 4 or q.shape[2] & (q.shape[2] - 1):
        raise ValueError(f"head_dim is {q.shape[2]}; the kernel needs a power of two, at least 4")
    if positions.dtype != torch.int32 or positions.shape != q.shape[:1]:
        raise ValueError(f"positions are {positions.dtype} {tuple(positions.shape)}; expected int32 [{q.shape[0]}]")
    if not (q.is_contiguous() and k.is_contiguous()):
        raise ValueError("q and k must be contiguous")


def check_table(table: torch.Tensor, q: torch.Tensor) -> None:
    """Raises ValueError unless the table is contiguous fp32 [tokens, 2, head_dim / 2] on q's device."""
    if table.dtype != torch.float32 or table.shape[1:] != (2, q.shape[2] // 2) or not table.is_contiguous():
        raise ValueError(f"table is {table.dtype} {tuple(table.shape)}: make it with rotation_table")
    if table.device != q.device:
        raise ValueError(f"table is on {table.device}, q on {q.device}: move one of them")


def norm_rope(
    q: torch.Tensor,
    k: torch.Tensor,
    positions: torch.Tensor,
    table: torch.Tensor,
    gains: tuple[torch.Tensor, torch.Tensor] | None = None,
    epsilon: float = 1e-5,
    interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q and k [M, heads, head_dim], positions int32 [M] -> both, normed and rotated.

    `table` is `rotation_table` of more tokens than the largest position (not checked: that would wait for the GPU);
    `gains` are the norm's [head_dim] of q and of k. Raises ValueError when shape or type don't fit.
    """
    check_heads(q, k, positions)
    check_table(table, q)
    q_gain, k_gain = gains or (None, None)
    if not runs_triton(q):
        return (
            reference_norm_rope(q, positions, table, q_gain, epsilon, interleaved),
            reference_norm_rope(k, positions, table, k_gain, epsilon, interleaved),
        )
    q_out, k_out = torch.empty_like(q), torch.empty_like(k)
    norm_rope_kernel[(q.shape[0], q.shape[1] + k.shape[1])](
        q, k, q_out, k_out, positions, table, q if q_gain is None else q_gain, k if k_gain is None else k_gain,
        Q_HEADS=q.shape[1], K_HEADS=k.shape[1], HEAD_DIM=q.shape[2],
        EPSILON=epsilon, NORMED=gains is not None, INTERLEAVED=interleaved,
    )  # fmt: skip
    return q_out, k_out
