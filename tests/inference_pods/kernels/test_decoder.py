"""The compiled decoder against the plain-torch one, on a model small enough to draw at random."""

import ctypes
import gc
import sys
from dataclasses import astuple, replace
from functools import cache

import numpy as np
import pytest

from inference_pods.kernels.build import KernelUnavailableError
from inference_pods.kernels.cpu import MOST_THREADS
from inference_pods.kernels.decoder import (
    Chunk,
    Decoder,
    DecoderLimits,
    DecoderShape,
    DecoderUnsupportedError,
    ShapeError,
    required_bytes,
)
from inference_pods.kernels.formats import Precision, SourceType, TensorRole
from inference_pods.kernels.library import Config, load_library
from inference_pods.kernels.reference_decoder import ReferenceDecoder
from tests.inference_pods.kernels.random_model import LIMITS, SHAPE, load_random_weights

pytestmark = pytest.mark.timeout(300)  # the first use of a variant compiles it


def run_script(decoder):
    """Two prompts in chunks, then decoding together with a third that joins; scores of every output."""
    tables = [[3, 1, 8], [2, 5, 9], [7, 4, 11]]
    random = np.random.default_rng(9)
    prompts = [random.integers(0, SHAPE.vocab, count).tolist() for count in (21, 33, 5)]
    steps = [
        [Chunk(prompts[0][:10], 0, tables[0], 0), Chunk(prompts[1][:30], 0, tables[1], 0)],
        [Chunk(prompts[0][10:], 10, tables[0], 1), Chunk(prompts[1][30:], 30, tables[1], 1)],
        [Chunk([7], 21, tables[0], 1), Chunk(prompts[2], 0, tables[2], 1), Chunk([8], 33, tables[1], 1)],
        [Chunk([1], 22, tables[0], 1), Chunk([2], 5, tables[2], 1), Chunk([3], 34, tables[1], 1)],
    ]
    return [
        (scores.best, scores.log_total, scores.logits.copy()) for chunks in steps for scores in decoder.step(chunks)
    ]


@cache  # one for all variants
def reference_scores(precision, span):
    return run_script(load_random_weights(ReferenceDecoder(SHAPE, LIMITS, precision, span=span)))


@pytest.mark.parametrize(
    ("precision", "span"), [*((precision, 32) for precision in Precision), (Precision.INT4, 64), (Precision.INT4, 128)]
)
def test_a_step_equals_the_reference_for_prompts_and_decoding_mixed(variant, precision, span):
    expected = reference_scores(precision, span)
    actual = run_script(load_random_weights(Decoder(SHAPE, LIMITS, precision, variant, span=span)))
    tolerance = 5e-3 if precision.is_grouped else 2e-5
    for (best, log_total, logits), (expected_best, expected_log_total, expected_logits) in zip(
        actual, expected, strict=True
    ):
        assert np.abs(logits - expected_logits).max() < tolerance
        assert log_total == pytest.approx(expected_log_total, abs=tolerance)
        assert expected_logits[best] == pytest.approx(expected_logits[expected_best], abs=tolerance)


@pytest.mark.parametrize("precision", list(Precision))
def test_the_result_does_not_depend_on_the_number_of_threads(variant, precision):
    results = []
    for threads in (1, 3):
        limits = DecoderLimits(LIMITS.max_rows, LIMITS.max_outputs, LIMITS.max_positions, LIMITS.kv_blocks, threads)
        results.append(run_script(load_random_weights(Decoder(SHAPE, limits, precision, variant))))
    for (_, _, one), (_, _, three) in zip(*results, strict=True):
        assert np.array_equal(one, three)


def test_weights_take_the_bytes_of_their_format(variant):
    sizes = {p: Decoder(SHAPE, LIMITS, p, variant).weight_bytes for p in Precision}
    assert sizes[Precision.BF16] == sizes[Precision.FP16] < 0.6 * sizes[Precision.FP32]
    assert sizes[Precision.INT8] < 0.4 * sizes[Precision.FP32]
    assert sizes[Precision.INT4] < 0.75 * sizes[Precision.INT8]


@pytest.mark.parametrize(
    "chunk",
    [
        Chunk([SHAPE.vocab], 0, [0], 1),
        Chunk([-1], 0, [0], 1),
        Chunk([1] * 49, 0, [0, 1, 2, 3], 1),
        Chunk([1], 0, [LIMITS.kv_blocks], 1),
    ],
    ids=["token beyond the vocabulary", "negative token", "more rows than reserved", "block beyond the cache"],
)
def test_a_step_out_of_range_is_refused_before_it_runs(variant, chunk):
    decoder = load_random_weights(Decoder(SHAPE, LIMITS, Precision.FP32, variant))
    with pytest.raises(ValueError, match="exceeds"):
        decoder.step([chunk])


def test_a_block_table_that_is_too_short_is_refused(variant):
    decoder = Decoder(SHAPE, LIMITS, Precision.FP32, variant)
    with pytest.raises(ValueError, match="too short"):
        decoder.step([Chunk([1] * 17, 0, [0], 1)])


def test_shapes_that_the_kernels_cannot_run_are_named(variant):
    shape = DecoderShape(1, 96, 160, 5, 1, 32, 131, 1e-5, 10000.0)
    with pytest.raises(DecoderUnsupportedError, match="ratio"):
        Decoder(shape, LIMITS, Precision.FP32, variant)


def test_a_tensor_of_the_wrong_size_is_refused(variant):
    decoder = Decoder(SHAPE, LIMITS, Precision.FP32, variant)
    with pytest.raises(DecoderUnsupportedError, match="does not fit"):
        decoder.load(TensorRole.Q, 0, np.zeros(4 * 96, np.uint8), SourceType.F32, 1, 96)


def test_scores_of_several_trailing_tokens_equal_those_of_one_token_at_a_time(variant):
    table, tokens = [3, 1], list(range(5, 25))
    decoder = load_random_weights(Decoder(SHAPE, LIMITS, Precision.FP32, variant))
    together = [scores.logits.copy() for scores in decoder.step([Chunk(tokens, 0, table, 4)])]
    decoder.step([Chunk(tokens[:16], 0, table, 0)])
    alone = [decoder.step([Chunk([tokens[p]], p, table, 1)])[0].logits.copy() for p in range(16, 20)]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_steps_of_one_shape_reuse_their_plan_and_still_see_their_own_inputs(variant):
    decoder = load_random_weights(Decoder(SHAPE, LIMITS, Precision.FP32, variant))
    first = run_script(decoder)
    built = decoder.plans.counts.misses
    again = run_script(decoder)
    assert decoder.plans.counts.misses == built
    for (_, _, logits), (_, _, expected) in zip(again, first, strict=True):
        assert np.array_equal(logits, expected)


@pytest.mark.parametrize("precision", list(Precision))
def test_the_memory_demand_is_known_before_anything_is_mapped(variant, precision):
    decoder = Decoder(SHAPE, LIMITS, precision, variant)
    required = required_bytes(SHAPE, LIMITS, precision, variant)
    larger = DecoderLimits(LIMITS.max_rows, LIMITS.max_outputs, LIMITS.max_positions, 2 * LIMITS.kv_blocks, 2)
    assert required > decoder.weight_bytes + decoder.kv_bytes
    assert required_bytes(SHAPE, larger, precision, variant) - required == decoder.kv_bytes


def test_the_memory_demand_of_a_large_model_is_told_without_having_it(variant):
    shape = DecoderShape(80, 8192, 28672, 64, 8, 128, 128256, 1e-5, 500000.0)
    assert required_bytes(shape, LIMITS, Precision.FP32, variant) > 250e9


def test_the_memory_demand_of_a_shape_that_cannot_run_is_refused(variant):
    shape = DecoderShape(1, 96, 160, 5, 1, 32, 131, 1e-5, 10000.0)
    with pytest.raises(DecoderUnsupportedError, match="ratio"):
        required_bytes(shape, LIMITS, Precision.FP32, variant)


def test_a_nested_decoder_of_the_example_models_shape_takes_at_most_a_tenth_more_than_int8(variant):
    shape = DecoderShape(30, 576, 1536, 9, 3, 64, 49152, 1e-5, 100000.0)
    nested, int8 = (Decoder(shape, LIMITS, p, variant).weight_bytes for p in (Precision.NESTED, Precision.INT8))
    assert int8 < nested <= 1.1 * int8


@pytest.mark.parametrize("name", ["layers", "dim", "ffn", "heads", "kv_heads", "head_dim", "vocab"])
@pytest.mark.parametrize("value", [0, -1, -64, 2**20 + 32, 2**32 - 64, 2**32 + 64, 2**64 - 64])
def test_a_shape_with_a_number_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(ShapeError, match=name):
        replace(SHAPE, **{name: value})


@pytest.mark.parametrize("name", ["rms_eps", "rope_base"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shape_with_a_constant_that_is_no_positive_number_is_refused_by_its_name(name, value):
    with pytest.raises(ShapeError, match=name):
        replace(SHAPE, **{name: value})


@pytest.mark.parametrize("change", [{"heads": 5}, {"head_dim": 33}, {"heads": 2**11, "head_dim": 2**10}])
def test_heads_that_do_not_come_out_even_or_are_too_wide_are_refused(change):
    with pytest.raises(ShapeError, match="heads"):
        replace(SHAPE, **change)


@pytest.mark.parametrize("name", ["max_rows", "max_outputs", "max_positions", "kv_blocks", "threads"])
@pytest.mark.parametrize("value", [0, -1, 2**31 - 1, 2**32 + 1])
def test_limits_that_the_kernels_cannot_hold_are_refused_by_their_name(variant, name, value):
    with pytest.raises(DecoderUnsupportedError, match=name):
        Decoder(SHAPE, replace(LIMITS, **{name: value}), Precision.FP32, variant)


HOSTILE = [
    {"dim": -576, "max_positions": 2**30}, {"head_dim": -64}, {"layers": -1}, {"layers": 0}, {"ffn": -32},
    {"vocab": -1}, {"heads": 0}, {"kv_heads": -2}, {"max_rows": -1}, {"max_outputs": 0}, {"max_positions": -16},
    {"kv_blocks": -1}, {"threads": 0}, {"threads": 2**31 - 1}, {"precision": 6}, {"precision": -1}, {"kv_precision": 2},
    {"span": 0}, {"span": 48}, {"span": 256},
    {"layers": 4096, "dim": 2**20, "head_dim": 2**17, "kv_blocks": 2**31 - 1},
]  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_the_library_itself_maps_nothing_for_a_shape_out_of_range(variant, change):
    library, shape = load_library(variant), astuple(SHAPE)
    config = Config(*shape[:7], 48, 6, 96, 24, Precision.FP32.code, Precision.FP32.code, 2, 32, *shape[7:])
    assert library.al_required_bytes(ctypes.byref(config)) > 0
    for name, value in change.items():
        setattr(config, name, value)
    assert library.al_required_bytes(ctypes.byref(config)) == -1
    assert library.al_create(ctypes.byref(config)) is None


def test_the_library_takes_as_many_threads_as_the_flag_does(variant):
    at_most = replace(LIMITS, threads=MOST_THREADS)
    assert required_bytes(SHAPE, at_most, Precision.FP32, variant) > 0
    with pytest.raises(DecoderUnsupportedError):
        required_bytes(SHAPE, replace(at_most, threads=MOST_THREADS + 1), Precision.FP32, variant)


def test_a_score_that_is_no_number_makes_the_total_none_either(variant):
    decoder = load_random_weights(Decoder(SHAPE, LIMITS, Precision.FP32, variant))
    weights = np.ones((SHAPE.vocab, SHAPE.dim), np.float32)
    weights[5] = np.nan
    decoder.load(TensorRole.HEAD, 0, np.frombuffer(weights.tobytes(), np.uint8), SourceType.F32, *weights.shape)
    (scores,) = decoder.step([Chunk([1, 2, 3], 0, [0], 1)])
    assert np.flatnonzero(np.isnan(scores.logits)).tolist() == [5]
    assert np.isnan(scores.log_total)


def test_a_decoder_without_kernels_is_dropped_without_a_word(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ADAPTIVE_KERNEL_CACHE", str(tmp_path / "file" / "cache"))
    load_library.cache_clear()
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with pytest.raises(KernelUnavailableError):
        Decoder(SHAPE, LIMITS, Precision.FP32)
    gc.collect()
    assert complaints == []
