"""Paged attention equals the reference for any lengths, block order and grouping of heads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pods.kernels.triton.paged_attention import paged_attention, reference_paged_attention

pytestmark = pytest.mark.slow


def build_case(lengths, kv_heads, group, head_dim, dtype, seed, block_tokens=16):
    generator = torch.Generator().manual_seed(seed)
    needed = [-(-length // block_tokens) for length in lengths]
    total = sum(needed) + 3
    order = torch.randperm(total, generator=generator).tolist()
    tables = torch.full((len(lengths), max(needed)), 2**30, dtype=torch.int32)  # reading past the end would crash
    for row, count in enumerate(needed):
        tables[row, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
    q = torch.randn(len(lengths), kv_heads * group, head_dim, generator=generator).to(dtype)
    shape = (total, kv_heads, block_tokens, head_dim)
    keys, values = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return q, keys, values, tables, torch.tensor(lengths, dtype=torch.int32)


@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=3),
    kv_heads=st.integers(1, 2),
    group=st.sampled_from((1, 3, 4)),
    head_dim=st.sampled_from((16, 64)),
    dtype=st.sampled_from((torch.float16, torch.bfloat16)),
    seed=st.integers(0, 2**16),
)
def test_attention_equals_the_reference(lengths, kv_heads, group, head_dim, dtype, seed):
    case = build_case(lengths, kv_heads, group, head_dim, dtype, seed)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(
        paged_attention(*case).float(), reference_paged_attention(*case).float(), rtol=2 * unit, atol=2 * unit
    )


@pytest.mark.parametrize("length", [1, 15, 16, 17, 63, 64, 65])
def test_lengths_at_the_borders_of_blocks_and_steps(length):
    case = build_case([length], 1, 3, 64, torch.float16, 0)
    torch.testing.assert_close(paged_attention(*case), reference_paged_attention(*case), rtol=2e-3, atol=2e-3)


def test_large_scores_do_not_overflow():
    q, keys, values, tables, lengths = build_case([70], 1, 1, 16, torch.float16, 0)
    case = (q * 60, keys * 60, values, tables, lengths)
    got = paged_attention(*case)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, reference_paged_attention(*case), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(1, 4, 32, dtype=torch.float16)}, "don't fit"),
        ({0: torch.zeros(1, 3, 16, dtype=torch.float16)}, "no multiple"),
        ({0: torch.zeros(1, 4, 16)}, "all float16"),
        ({3: torch.zeros(1, 1, dtype=torch.int64)}, "int32"),
        ({4: torch.ones(2, dtype=torch.int32)}, "one row per sequence"),
    ],
)
def test_operands_that_do_not_fit_are_refused(change, message):
    case = list(build_case([5], 2, 2, 16, torch.float16, 0))
    for index, value in change.items():
        case[index] = value
    with pytest.raises(ValueError, match=message):
        paged_attention(*case)
