"""The nested format: an int4 matrix as it always was, and the residuals that make int8 of it."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pods.kernels import linear as kernel
from inference_pods.kernels.formats import Precision

pytestmark = pytest.mark.timeout(300)  # the first use of a variant compiles it

several_shapes = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
shapes = st.tuples(st.integers(1, 70), st.integers(1, 200))


def random_weights(rows, columns, seed):
    return np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32) * np.float32(0.05)


def int4_steps(weights):
    """[rows, groups] fp16 steps of the groups of 32 columns."""
    padded = np.pad(weights, ((0, 0), (0, -weights.shape[1] % 32)), mode="edge")
    groups = padded.reshape(len(weights), -1, 32)
    return ((groups.max(2) - groups.min(2)) / np.float32(15)).astype(np.float16).astype(np.float32)


def packing_error(weights, variant):
    """(absolute errors, int4 steps) of all weights."""
    error = np.abs(kernel.pack(weights, Precision.NESTED, variant).unpack() - weights)
    return error, np.repeat(int4_steps(weights), 32, axis=1)[:, : weights.shape[1]]


@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
@several_shapes
def test_the_high_plane_is_the_int4_matrix_byte_by_byte(variant, shape, seed):
    weights = random_weights(*shape, seed)
    nested, int4 = (kernel.pack(weights, precision, variant).data for precision in (Precision.NESTED, Precision.INT4))
    assert np.array_equal(nested[: len(int4)], int4)
    assert len(nested) - len(int4) == len(int4) * 16 // 20


@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
@several_shapes
def test_no_weight_is_further_off_than_a_clipped_residual_allows(variant, shape, seed):
    """The residual reaches only +7/16 of a step, and step and minimum are rounded to fp16."""
    weights = random_weights(*shape, seed)
    error, steps = packing_error(weights, variant)
    assert np.all(error <= steps * (1.5 / 16) + np.abs(weights) * 2.0**-10 + 1e-7)


def test_most_weights_come_within_half_a_sixteenth_of_the_int4_step(variant):
    error, steps = packing_error(random_weights(64, 192, 5), variant)
    assert np.mean(error <= steps / 32 + 1e-7) > 0.95


def test_a_nested_matrix_is_at_most_a_tenth_larger_than_int8(variant):
    sizes = {p: kernel.pack(np.zeros((576, 1536), np.float32), p, variant).data.nbytes for p in Precision}
    assert sizes[Precision.NESTED] <= 1.1 * sizes[Precision.INT8]


def test_constant_weights_are_kept_exactly(variant):
    """Their step is 0, so there is nothing to divide a residual by."""
    matrix = kernel.pack(np.full((3, 40), 0.5, np.float32), Precision.NESTED, variant)
    assert np.array_equal(matrix.unpack(), np.full((3, 40), 0.5, np.float32))
