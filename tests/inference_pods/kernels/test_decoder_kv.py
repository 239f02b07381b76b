"""Keys and values in fp16 and int8: what the reference computes with them, in a half and a quarter of the memory."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from inference_pods.kernels.decoder import Chunk, Decoder, required_bytes
from inference_pods.kernels.formats import Precision, SourceType, TensorRole
from inference_pods.kernels.reference_decoder import ReferenceDecoder
from tests.inference_pods.kernels.random_model import LIMITS, SHAPE, load_random_weights

pytestmark = pytest.mark.timeout(300)  # the first use of a variant compiles it

INT8_KV = replace(LIMITS, kv_precision=Precision.INT8)
TABLE = [3, 1, 8]


def decode(decoder):
    """A prompt in two chunks, then eight tokens one by one; the logits of all that want them."""
    decoder.step([Chunk(list(range(15)), 0, TABLE, 0)])
    chunks = [Chunk(list(range(15, 25)), 15, TABLE, 1)]
    chunks += [Chunk([position * 7 % 131], position, TABLE, 1) for position in range(25, 33)]
    return np.stack([decoder.step([chunk])[0].logits.copy() for chunk in chunks])


@cache  # one for all variants
def reference_logits():
    return decode(load_random_weights(ReferenceDecoder(SHAPE, INT8_KV, Precision.FP32)))


def test_int8_keys_and_values_equal_the_reference(variant):
    actual = decode(load_random_weights(Decoder(SHAPE, INT8_KV, Precision.FP32, variant)))
    np.testing.assert_allclose(actual, reference_logits(), atol=2e-3)


def test_int8_keys_and_values_cost_little_and_not_nothing(variant):
    full = decode(load_random_weights(Decoder(SHAPE, LIMITS, Precision.FP32, variant)))
    rounded = decode(load_random_weights(Decoder(SHAPE, INT8_KV, Precision.FP32, variant)))
    error = np.abs(rounded - full).max()
    assert 0 < error < 0.1 * np.abs(full).max()


def test_fp16_keys_and_values_cost_next_to_nothing_for_half_of_the_memory(variant):
    limits = replace(LIMITS, kv_precision=Precision.FP16)
    decoders = [load_random_weights(Decoder(SHAPE, chosen, Precision.FP32, variant)) for chosen in (LIMITS, limits)]
    full, rounded = (decode(decoder) for decoder in decoders)
    assert 0 < np.abs(rounded - full).max() < 2e-3 * np.abs(full).max()
    assert decoders[1].kv_bytes == decoders[0].kv_bytes / 2


def test_int8_keys_and_values_take_little_more_than_a_quarter_of_the_memory(variant):
    full, small = (Decoder(SHAPE, limits, Precision.INT8, variant) for limits in (LIMITS, INT8_KV))
    assert small.kv_bytes < 0.32 * full.kv_bytes
    saved = required_bytes(SHAPE, LIMITS, Precision.INT8, variant) - required_bytes(
        SHAPE, INT8_KV, Precision.INT8, variant
    )
    assert saved == full.kv_bytes - small.kv_bytes


def test_numbers_that_are_none_are_not_hidden_by_the_rounding(variant):
    decoder = load_random_weights(Decoder(SHAPE, INT8_KV, Precision.FP32, variant))
    assert np.isfinite(decoder.step([Chunk([5, 6], 0, [2], 1)])[0].log_total)
    norm = np.full(SHAPE.dim, np.nan, np.float32)
    decoder.load(TensorRole.ATTN_NORM, 1, np.frombuffer(norm.tobytes(), np.uint8), SourceType.F32, 1, SHAPE.dim)
    assert not np.isfinite(decoder.step([Chunk([5, 6], 0, [2], 1)])[0].log_total)
