"""Attention over several segments of tokens, scores over several slices of the vocabulary: whoever computes them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from inference_pods.kernels.decoder import Chunk, Decoder
from inference_pods.kernels.formats import Precision, SourceType, TensorRole
from inference_pods.kernels.reference_decoder import ReferenceDecoder
from tests.inference_pods.kernels.random_model import LIMITS, SHAPE, load_random_weights

pytestmark = pytest.mark.timeout(300)  # the first use of a variant compiles it

LONG = replace(LIMITS, max_positions=320, kv_blocks=40, max_rows=320)
TABLE = list(range(20))
OTHER = list(range(20, 40))


def decode_one(decoder, context, beside=0):
    """The logits of one new token behind `context` tokens, in a step with `beside` tokens of another sequence."""
    tokens = [position * 7 % 131 for position in range(context + 1)]
    if context:
        decoder.step([Chunk(tokens[:-1], 0, TABLE, 0)])
    others = [Chunk([position * 5 % 131 for position in range(beside)], 0, OTHER, 1)] if beside else []
    return decoder.step([Chunk(tokens[-1:], context, TABLE, 1), *others])[0].logits.copy()


@cache  # one for all variants
def reference_logits(context, kv):
    limits = replace(LONG, kv_precision=kv)
    return decode_one(load_random_weights(ReferenceDecoder(SHAPE, limits, Precision.FP32)), context)


@pytest.mark.slow
@pytest.mark.parametrize("kv", [Precision.FP32, Precision.FP16, Precision.INT8])
@pytest.mark.parametrize("context", [0, 63, 64, 127, 200, 319])
def test_a_token_behind_several_segments_equals_the_reference(variant, context, kv):
    limits = replace(LONG, kv_precision=kv)
    actual = decode_one(load_random_weights(Decoder(SHAPE, limits, Precision.FP32, variant)), context)
    np.testing.assert_allclose(actual, reference_logits(context, kv), atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kv", "heads"), [(Precision.FP32, 6), (Precision.FP16, 4), (Precision.INT8, 16), (Precision.FP32, 2)]
)
@pytest.mark.parametrize("context", [0, 64, 130, 319])
def test_neither_threads_nor_neighbours_change_a_bit_of_it(variant, context, kv, heads):
    shape, limits = replace(SHAPE, heads=heads), replace(LONG, kv_precision=kv)
    runs = [
        decode_one(
            load_random_weights(Decoder(shape, replace(limits, threads=threads), Precision.FP32, variant), shape=shape),
            *case,
        )
        for threads in (1, 2, 5)
        for case in ((context, 0), (context, 1), (context, 40))
    ]
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", list(Precision))
def test_a_long_prompt_in_strips_equals_the_same_prompt_in_short_steps(variant, precision, threads):
    decoder = load_random_weights(Decoder(SHAPE, replace(LONG, threads=threads), precision, variant))
    tokens = [position * 7 % 131 for position in range(200)]
    whole = decoder.step([Chunk(tokens, 0, TABLE, 1)])[0].logits.copy()
    for start in range(0, 200, 40):
        parts = decoder.step([Chunk(tokens[start : start + 40], start, OTHER, 1)])[0].logits
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("largest", [(0,), (4095, 4096), (9000, 12287), (12300,)])
def test_the_best_token_is_the_first_of_the_largest_in_any_slice_of_the_vocabulary(variant, largest):
    shape = replace(SHAPE, vocab=12301)
    head = np.random.default_rng(1).standard_normal((shape.vocab, shape.dim), dtype=np.float32)
    decoder = load_random_weights(Decoder(shape, LIMITS, Precision.FP32, variant), shape=shape)
    head[list(largest)] = 2 * head[load_head(decoder, head).best]
    scores = load_head(decoder, head)
    assert scores.best == largest[0]
    logits = scores.logits[: shape.vocab].astype(np.float64)
    assert scores.log_total == pytest.approx(np.log(np.exp(logits).sum()), abs=1e-3)


def load_head(decoder, head):
    decoder.load(TensorRole.HEAD, 0, head.reshape(-1).view(np.uint8), SourceType.F32, *head.shape)
    return decoder.step([Chunk([1], 0, [0], 1)])[0]
