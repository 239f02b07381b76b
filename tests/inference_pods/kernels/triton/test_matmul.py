"""Every quantised matmul equals its plain-torch reference, and its packed weights are close to the originals."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference_pods.kernels.formats import SPANS, Precision
from inference_pods.kernels.reference import fake_quantise
from inference_pods.kernels.triton import linear as lib
from inference_pods.kernels.triton.linear import Format, linear, move, pack_linear
from inference_pods.kernels.triton.nested import NestedLevel, pack_nested, reference_nested, unpack_nested
from inference_pods.kernels.triton.sparse24 import pack_sparse24, reference_sparse24, unpack_sparse24
from inference_pods.kernels.triton.w4a16 import pack_int4, reference_w4a16, unpack_int4
from inference_pods.kernels.triton.w8a16 import pack_int8, read_rows, reference_w8a16, unpack_int8, w8a16

pytestmark = pytest.mark.slow

DTYPES = (torch.float16, torch.bfloat16)
CASES = {
    "int8": (pack_int8, reference_w8a16, linear),
    "int8 per row": (lambda w: pack_int8(w, per_row=True), reference_w8a16, linear),
    "int4": (pack_int4, reference_w4a16, linear),
    "nested int8": (
        pack_nested,
        lambda x, m: reference_nested(x, m, NestedLevel.INT8),
        lambda x, m: linear(x, m, NestedLevel.INT8),
    ),
    "nested int8, step 8": (
        lambda w: pack_nested(w, step=8),
        lambda x, m: reference_nested(x, m, NestedLevel.INT8),
        lambda x, m: linear(x, m, NestedLevel.INT8),
    ),
    "nested int4": (
        pack_nested,
        lambda x, m: reference_nested(x, m, NestedLevel.INT4),
        lambda x, m: linear(x, m, NestedLevel.INT4),
    ),
    "sparse24": (pack_sparse24, reference_sparse24, linear),
}


def random_operands(rows, outputs, columns, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator).to(dtype)
    return x, torch.randn(outputs, columns, generator=generator) * 0.1 + 0.02


def assert_close(got, want):
    # One rounding to the output's type, plus the order of fp32 sums.
    unit = torch.finfo(want.dtype).eps
    torch.testing.assert_close(got.float(), want.float(), rtol=unit, atol=unit * 0.5)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=6, deadline=None)
@given(
    rows=st.integers(1, 35),
    outputs=st.integers(1, 100),
    tiles=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
def test_a_kernel_equals_its_reference_at_every_border(name, rows, outputs, tiles, dtype, seed):
    pack, reference, kernel = CASES[name]
    columns = tiles * (64 if name == "sparse24" else 32)
    x, weights = random_operands(rows, outputs, columns, dtype, seed)
    matrix = pack(weights)
    assert_close(kernel(x, matrix), reference(x, matrix))


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_handles_the_shape_of_the_example_model(name):
    pack, reference, kernel = CASES[name]
    x, weights = random_operands(8, 192, 576, torch.float16, 0)
    matrix = pack(weights)
    assert_close(kernel(x, matrix), reference(x, matrix))


@pytest.mark.parametrize("name", CASES)
def test_each_group_has_its_own_scale(name):
    """One-hot activations read single weights back, groups of very different size side by side."""
    pack, reference, kernel = CASES[name]
    weights = torch.randn(5, 128, generator=torch.Generator().manual_seed(1))
    weights *= torch.tensor([1.0, 1e-2, 10.0, 1e-3]).repeat_interleave(32)
    x = torch.zeros(6, 128, dtype=torch.float16)
    x[torch.arange(6), torch.tensor([0, 31, 32, 63, 64, 127])] = 1
    matrix = pack(weights)
    torch.testing.assert_close(kernel(x, matrix), reference(x, matrix), rtol=1e-3, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(outputs=st.integers(1, 9), groups=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_unpacked_weights_are_within_half_a_step(outputs, groups, seed):
    _, weights = random_operands(1, outputs, groups * 32, torch.float16, seed)
    spread = weights.reshape(outputs, groups, 32)
    largest = spread.abs().amax(-1).repeat_interleave(32, 1)
    width = (spread.amax(-1) - spread.amin(-1)).repeat_interleave(32, 1)
    slack = largest * 2**-10  # scales and minima are fp16
    assert ((unpack_int8(pack_int8(weights)) - weights).abs() <= largest / 254 + slack).all()
    assert ((unpack_int4(pack_int4(weights)) - weights).abs() <= width / 30 + slack).all()
    refined = unpack_nested(pack_nested(weights), NestedLevel.INT8)
    # The signed low nibble reaches 7/16 of a step upwards: at most a whole low step is missed at the tie.
    assert ((refined - weights).abs() <= width / 15 / 16 + slack).all()


@settings(max_examples=30, deadline=None)
@given(outputs=st.integers(1, 9), groups=st.integers(1, 5), exponent=st.integers(-7, 2), seed=st.integers(0, 2**16))
@example(outputs=3, groups=2, exponent=-3, seed=0)  # scales that are subnormal in fp16
def test_the_packed_values_are_those_of_the_format(outputs, groups, exponent, seed):
    """What a tier's quality was measured with, whatever device serves it."""
    _, weights = random_operands(1, outputs, groups * 32, torch.float16, seed)
    weights *= 10.0**exponent
    assert torch.equal(unpack_int8(pack_int8(weights)), fake_quantise(weights, Precision.INT8))
    assert torch.equal(unpack_int4(pack_int4(weights)), fake_quantise(weights, Precision.INT4))
    nested = pack_nested(weights)
    assert torch.equal(unpack_nested(nested, NestedLevel.INT4), fake_quantise(weights, Precision.INT4))
    refined = fake_quantise(weights, Precision.NESTED)
    torch.testing.assert_close(unpack_nested(nested, NestedLevel.INT8), refined, rtol=1e-6, atol=0)


@settings(max_examples=20, deadline=None)
@given(outputs=st.integers(1, 9), groups=st.integers(1, 9), span=st.sampled_from(SPANS), seed=st.integers(0, 2**16))
def test_an_int4_grid_may_span_several_groups(outputs, groups, span, seed):
    _, weights = random_operands(1, outputs, groups * 32, torch.float16, seed)
    matrix = pack_int4(weights, span)
    assert torch.equal(unpack_int4(matrix), fake_quantise(weights, Precision.INT4, span))
    assert matrix.grid.shape == pack_int4(weights).grid.shape


@pytest.mark.parametrize("per_row", [False, True])
def test_the_head_gives_scores_in_fp32_and_its_rows_are_the_embedding(per_row):
    x, weights = random_operands(3, 70, 96, torch.bfloat16, 6)
    matrix = pack_int8(weights, per_row)
    scores = w8a16(x, matrix, torch.float32)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, reference_w8a16(x, matrix, torch.float32), rtol=1e-5, atol=1e-5)
    tokens = torch.tensor([69, 0, 13])
    assert torch.equal(read_rows(matrix, tokens), unpack_int8(matrix)[tokens])


def test_the_nested_high_plane_is_the_direct_int4_matrix():
    _, weights = random_operands(1, 9, 96, torch.float16, 3)
    direct, nested = pack_int4(weights), pack_nested(weights)
    assert torch.equal(direct.plane, nested.high)
    assert torch.equal(direct.grid, nested.grid)
    assert torch.equal(unpack_int4(direct), unpack_nested(nested, NestedLevel.INT4))


def test_the_int4_level_never_reads_the_low_plane():
    x, weights = random_operands(3, 9, 96, torch.float16, 4)
    matrix = pack_nested(weights)
    before = linear(x, matrix, NestedLevel.INT4)
    top = linear(x, matrix, NestedLevel.INT8)
    matrix.low.random_(0, 256, generator=torch.Generator().manual_seed(0))
    assert torch.equal(linear(x, matrix, NestedLevel.INT4), before)
    assert not torch.equal(linear(x, matrix, NestedLevel.INT8), top)


@pytest.mark.parametrize("size", [1.0, 1e-2])  # scales of 1e-5 are subnormal in fp16
def test_sparse_weights_keep_the_two_largest_of_every_four(size):
    _, weights = random_operands(1, 7, 128, torch.float16, 5)
    weights *= size
    dense = unpack_sparse24(pack_sparse24(weights))
    order = weights.reshape(7, -1, 4).abs().argsort(-1)
    kept = torch.zeros(7, 32, 4, dtype=torch.bool).scatter(-1, order[..., 2:], True).reshape(7, 128)
    assert (dense[~kept] == 0).all()
    torch.testing.assert_close(dense[kept], weights[kept], rtol=0, atol=weights.abs().max().item() / 200)


@pytest.mark.parametrize("kind", list(Format))
def test_constant_and_zero_weights_stay_finite_and_exact(kind):
    weights = torch.zeros(4, 64)
    assert (linear(torch.ones(2, 64, dtype=torch.float16), pack_linear(weights, kind)) == 0).all()


@pytest.mark.parametrize("kind", list(Format))
def test_moving_a_matrix_keeps_its_fields(kind):
    matrix = pack_linear(torch.ones(4, 64), kind)
    moved = move(matrix, "cpu")
    assert type(moved) is type(matrix)
    assert (moved.rows, moved.columns) == (4, 64)


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 32, dtype=torch.float16), "the weights need"),
        (torch.zeros(2, 64), "float16 or bfloat16"),
        (torch.zeros(64, 2, dtype=torch.float16).T, "contiguous"),
        (torch.zeros(2, 64, dtype=torch.float16, device="meta"), "move one"),
    ],
)
def test_activations_that_do_not_fit_are_refused(kind, x, message):
    with pytest.raises(ValueError, match=message):
        linear(x, pack_linear(torch.ones(4, 64), kind))


@pytest.mark.parametrize("kind", list(Format))
@pytest.mark.parametrize(
    "weights",
    [torch.ones(4, 40), torch.ones(4, 0), torch.ones(4, 64, dtype=torch.float16), torch.full((4, 64), torch.nan)],
)
def test_weights_that_do_not_fit_are_refused(kind, weights):
    with pytest.raises(ValueError, match="weights"):
        pack_linear(weights, kind)


def test_a_step_that_no_plane_has_is_refused():
    with pytest.raises(ValueError, match="step is 4"):
        pack_nested(torch.ones(4, 64), step=4)


def test_every_format_can_be_packed():
    assert set(lib.PACK) == set(Format)
