"""RMSNorm with its residual, and the fused norm and rotation of q and k, equal their references."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pods.kernels.triton.norm_rope import norm_rope, reference_norm_rope, rotation_table
from inference_pods.kernels.triton.rms_norm import reference_rms_norm, rms_norm

pytestmark = pytest.mark.slow

TABLES = {width: rotation_table(8192, width, 100000.0) for width in (16, 64)}
DTYPES = (torch.float16, torch.bfloat16)


def tolerance(dtype):
    # Two roundings: that of the sum (the interpreter's differs by a unit in bf16) and that of the result.
    unit = torch.finfo(dtype).eps
    return {"rtol": 2 * unit, "atol": unit}


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 700),
    dtype=st.sampled_from(DTYPES),
    keeps_fp32=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_the_norm_of_a_sum_equals_the_reference(rows, columns, dtype, keeps_fp32, seed):
    generator = torch.Generator().manual_seed(seed)
    x, residual = (torch.randn(rows, columns, generator=generator).to(dtype) for _ in range(2))
    if keeps_fp32:
        residual = torch.randn(rows, columns, generator=generator)
    weight = torch.rand(columns, generator=generator) + 0.5
    (got, got_total), (want, want_total) = (norm(x, residual, weight, 1e-5) for norm in (rms_norm, reference_rms_norm))
    torch.testing.assert_close(got.float(), want.float(), **tolerance(dtype))
    torch.testing.assert_close(got_total.float(), want_total.float(), **tolerance(residual.dtype))
    assert (got.dtype, got_total.dtype) == (dtype, residual.dtype)


@settings(max_examples=15, deadline=None)
@given(
    positions=st.lists(st.integers(0, 8191), min_size=1, max_size=4),
    heads=st.sampled_from(((9, 3), (2, 1), (1, 1))),
    head_dim=st.sampled_from((16, 64)),
    normed=st.booleans(),
    interleaved=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
def test_norm_and_rotation_equal_the_reference(positions, heads, head_dim, normed, interleaved, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(len(positions), n, head_dim, generator=generator).to(dtype) for n in heads)
    gains = tuple(torch.rand(head_dim, generator=generator) + 0.5 for _ in range(2)) if normed else None
    at = torch.tensor(positions, dtype=torch.int32)
    out = norm_rope(q, k, at, TABLES[head_dim], gains, 1e-5, interleaved)
    for index, (got, x) in enumerate(zip(out, (q, k), strict=True)):
        want = reference_norm_rope(x, at, TABLES[head_dim], gains and gains[index], 1e-5, interleaved)
        torch.testing.assert_close(got.float(), want.float(), **tolerance(dtype))


def test_position_zero_changes_nothing():
    q, k = torch.randn(1, 2, 16).half(), torch.randn(1, 1, 16).half()
    out = norm_rope(q, k, torch.zeros(1, dtype=torch.int32), TABLES[16])
    assert torch.equal(out[0], q)
    assert torch.equal(out[1], k)


@pytest.mark.parametrize("interleaved", [False, True])
def test_scores_depend_on_the_distance_alone(interleaved):
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 1, 64, generator=generator).half() for _ in range(2))

    def score(at_q, at_k):
        rotated_q, _ = norm_rope(q, k, torch.tensor([at_q], dtype=torch.int32), TABLES[64], interleaved=interleaved)
        _, rotated_k = norm_rope(q, k, torch.tensor([at_k], dtype=torch.int32), TABLES[64], interleaved=interleaved)
        return (rotated_q.float() * rotated_k.float()).sum()

    torch.testing.assert_close(score(7, 3), score(107, 103), rtol=5e-3, atol=5e-2)
    assert abs(score(7, 3) - score(7, 5)) > 0.1


@pytest.mark.parametrize(
    ("q", "positions", "message"),
    [
        (torch.zeros(2, 1, 16, dtype=torch.float16), torch.zeros(1, dtype=torch.int32), "both need"),
        (torch.zeros(1, 1, 16), torch.zeros(1, dtype=torch.int32), "both float16"),
        (torch.zeros(1, 1, 16, dtype=torch.float16), torch.zeros(1), "expected int32"),
    ],
)
def test_heads_that_do_not_fit_are_refused(q, positions, message):
    with pytest.raises(ValueError, match=message):
        norm_rope(q, torch.zeros(1, 1, 16, dtype=torch.float16), positions, TABLES[16])


def test_a_residual_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="residual"):
        rms_norm(torch.zeros(2, 8).half(), torch.zeros(1, 8).half(), torch.ones(8), 1e-5)


def test_a_table_of_another_head_size_is_refused():
    q = torch.zeros(1, 1, 16).half()
    with pytest.raises(ValueError, match="rotation_table"):
        norm_rope(q, q, torch.zeros(1, dtype=torch.int32), TABLES[64])
