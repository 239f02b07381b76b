import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pods.kernels import linear as kernel
from inference_pods.kernels import reference
from inference_pods.kernels.formats import SPANS, Precision, SourceType

pytestmark = pytest.mark.timeout(300)  # the first use of a variant compiles it

several_shapes = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
shapes = st.tuples(st.integers(1, 70), st.integers(1, 200), st.integers(1, 19))


def random_case(rows, columns, batch, seed):
    random = np.random.default_rng(seed)
    weights = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.05)
    return weights, random.standard_normal((batch, columns), dtype=np.float32)


def assert_close(actual, expected, weights, x):
    """Within what rounding can do, for up to 200 columns.

    int16 codes share one scale per token, so each activation is off by up to half a step of the token's largest one,
    2^-16 of it (and 2^-24 by the division that finds its code). Sums of 200 products in fp32 lose 2^-16 of their size.
    """
    largest = np.abs(x).max(axis=1, keepdims=True)
    bound = (1.01 * largest * np.abs(weights).sum(axis=1) + np.abs(x) @ np.abs(weights).T) * 2.0**-16 + 1e-6
    assert np.all(np.abs(actual - expected) <= bound), np.abs(actual - expected).max()


@pytest.mark.parametrize("precision", list(Precision))
@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
@several_shapes
def test_the_product_equals_the_reference_for_any_shape(variant, precision, shape, seed):
    weights, x = random_case(*shape, seed)
    expected = reference.linear(torch.from_numpy(x), torch.from_numpy(weights), precision).numpy()
    assert_close(kernel.linear(x, kernel.pack(weights, precision, variant)), expected, weights, x)


@pytest.mark.parametrize("span", SPANS)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
@several_shapes
def test_an_int4_grid_may_span_several_groups(variant, span, shape, seed):
    weights, x = random_case(*shape, seed)
    matrix = kernel.pack(weights, Precision.INT4, variant, span)
    assert matrix.data.nbytes == kernel.pack(weights, Precision.INT4, variant).data.nbytes
    expected = reference.fake_quantise(torch.from_numpy(weights), Precision.INT4, span).numpy()
    steps = np.abs(matrix.unpack() - expected) / (np.abs(weights).max() / 15 + 1e-9)
    assert np.mean(steps > 1e-3) < 0.01  # a tie may fall either way
    product = x @ matrix.unpack().T
    assert_close(kernel.linear(x, matrix), product, np.abs(weights) + np.abs(weights).max() / 15, x)


def test_a_wider_span_is_one_grid_for_all_its_weights():
    """The largest weight of each 128 stretches the steps of all, whichever group of 32 it lies in."""
    weights, _ = random_case(3, 200, 1, 4)
    weights[:, 100] = 8.0
    near, far = (
        np.abs(reference.fake_quantise(torch.from_numpy(weights), Precision.INT4, span).numpy() - weights)
        for span in (32, 128)
    )
    assert far[:, :96].mean() > 10 * near[:, :96].mean()
    assert far[:, 128:].mean() < 2 * near[:, 128:].mean()


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT4, Precision.NESTED])
@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
@several_shapes
def test_packing_keeps_exactly_the_values_that_the_reference_rounds_to(variant, precision, shape, seed):
    weights, _ = random_case(*shape, seed)
    expected = reference.fake_quantise(torch.from_numpy(weights), precision).numpy()
    unpacked = kernel.pack(weights, precision, variant).unpack()
    steps = np.abs(unpacked - expected) / (np.abs(weights).max() / 15 + 1e-9)
    assert np.mean(steps > 1e-3) < 0.01  # a tie may fall either way, nothing else may differ
    assert steps.max() < 1.01 if precision is Precision.INT4 else steps.max() < 0.2


@pytest.mark.parametrize("precision", [p for p in Precision if not p.is_grouped])
def test_weights_stored_as_floats_are_rounded_once_to_the_nearest(variant, precision):
    weights, _ = random_case(37, 75, 1, 3)
    weights[0, :6] = [0.0, -0.0, 1.00390625, 3e-5, 6e-8, -65504.0]  # signs, a bf16 tie, fp16 subnormals, fp16's largest
    expected = reference.fake_quantise(torch.from_numpy(weights), precision).numpy()
    assert np.array_equal(kernel.pack(weights, precision, variant).unpack(), expected)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("signs", ["all positive", "all negative", "alternating", "opposed"])
def test_extreme_inputs_do_not_saturate(variant, precision, signs):
    """Every weight and activation at its limit: partial sums that do not fit their integers would show here."""
    columns = 1536
    sign = np.where(np.arange(columns) % 2, -1.0, 1.0).astype(np.float32) if signs == "alternating" else np.float32(1)
    weights = np.broadcast_to(np.float32(3.0) * sign, (33, columns)) * np.ones((33, 1), np.float32)
    x = np.broadcast_to(np.float32(7.0) * sign, (9, columns)) * np.ones((9, 1), np.float32)
    x = -x if signs in ("all negative", "opposed") else x
    weights = -weights if signs == "all negative" else weights
    product = kernel.linear(x, kernel.pack(weights, precision, variant))
    assert np.allclose(product, x @ weights.T, rtol=2e-3)


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("columns", [1, 31, 33, 577])
def test_a_token_gets_the_same_result_in_any_batch(variant, precision, columns):
    """However many passes over the weights a batch takes, and wherever the last columns end."""
    weights, x = random_case(64, columns, 40, 5)
    matrix = kernel.pack(weights, precision, variant)
    alone = np.concatenate([kernel.linear(row[None], matrix) for row in x])
    for batch in (*range(2, 18), 40):
        assert np.array_equal(kernel.linear(x[:batch], matrix), alone[:batch]), batch


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_activation_poisons_its_own_row_only(variant, precision, poison):
    weights, x = random_case(40, 64, 3, 6)
    x[1, 5] = poison
    product = kernel.linear(x, kernel.pack(weights, precision, variant))
    assert np.isfinite(product[[0, 2]]).all()
    assert not np.isfinite(product[1]).any()


def test_zero_weights_and_zero_activations_give_zero(variant):
    for precision in Precision:
        matrix = kernel.pack(np.zeros((5, 40), np.float32), precision, variant)
        assert not kernel.linear(np.ones((2, 40), np.float32), matrix).any()
        matrix = kernel.pack(np.ones((5, 40), np.float32), precision, variant)
        assert not kernel.linear(np.zeros((2, 40), np.float32), matrix).any()


@pytest.mark.parametrize("kind", list(SourceType), ids=lambda kind: kind.name)
def test_gguf_blocks_are_read_like_the_reference_reads_them(kind):
    random = np.random.default_rng(int(kind))
    rows, columns = 6, 96
    source = random.integers(0, 256, rows * kind.row_bytes(columns), dtype=np.uint8)
    if kind in (SourceType.F32, SourceType.F16, SourceType.BF16):
        dtype = {SourceType.F32: torch.float32, SourceType.F16: torch.float16, SourceType.BF16: torch.bfloat16}[kind]
        source = torch.randn(rows * columns).to(dtype).view(torch.uint8).numpy()
    else:  # any codes, but scales that are numbers
        blocks = source.reshape(-1, kind.row_bytes(32))
        blocks[:, :4] = np.frombuffer(
            random.standard_normal(blocks.shape[0] * 2).astype(np.float16).tobytes(), np.uint8
        ).reshape(-1, 4)
    expected = reference.dequantise(torch.from_numpy(source.copy()), kind, rows, columns).numpy()
    assert np.allclose(kernel.dequantise(source, kind, rows, columns), expected, rtol=1e-6, atol=1e-6)
