"""The torch decoder, whole and divided, against the plain one. Ranks are threads here."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference_pods.kernels.decoder import Chunk, DecoderLimits, DecoderShape, DecoderUnsupportedError
from inference_pods.kernels.formats import Precision, SourceType, TensorRole
from inference_pods.kernels.levels import LevelError, build_levels
from inference_pods.kernels.reference_decoder import ReferenceDecoder
from inference_pods.kernels.shards import divide
from inference_pods.kernels.step_plans import Backend
from inference_pods.kernels.torch_decoder import TorchDecoder
from inference_pods.kernels.torch_target import Target
from tests.inference_pods.kernels import random_model

SHAPE = DecoderShape(
    layers=2, dim=64, ffn=176, heads=9, kv_heads=3, head_dim=16, vocab=131, rms_eps=1e-5, rope_base=10000.0
)
LIMITS = DecoderLimits(max_rows=48, max_outputs=6, max_positions=96, kv_blocks=24, threads=1)
NESTED_LEVELS = build_levels((Precision.INT8, Precision.INT4), (2, 1), 2, skip_order=(1,))


class ThreadCollectives:
    """The collectives of `ranks` threads of this process."""

    def __init__(self, ranks):
        self.values = [None] * ranks
        self.barrier = threading.Barrier(ranks, timeout=20)

    def exchange(self, rank, value):
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values

    def of(self, rank):
        meeting = self

        class Rank:
            def sum(self, x):
                return torch.stack(meeting.exchange(rank, x)).sum(0)

            def gather_columns(self, x, widths):
                parts = meeting.exchange(rank, x)
                assert [part.shape[1] for part in parts] == list(widths)
                return torch.cat(parts, 1) if rank == 0 else None

        return Rank()


def load_random_weights(decoder, shape=SHAPE):
    return random_model.load_random_weights(decoder, shape=shape, shuffles_columns=True)


def script(shape=SHAPE):
    """Two prompts in chunks, then decoding together with a third that joins, then a verified draft of three."""
    tables = [[3, 1, 8], [2, 5, 9], [7, 4, 11]]
    random = np.random.default_rng(9)
    prompts = [random.integers(0, shape.vocab, count).tolist() for count in (21, 33, 5)]
    return [
        [Chunk(prompts[0][:10], 0, tables[0], 0), Chunk(prompts[1][:30], 0, tables[1], 0)],
        [Chunk(prompts[0][10:], 10, tables[0], 1), Chunk(prompts[1][30:], 30, tables[1], 1)],
        [Chunk([7], 21, tables[0], 1), Chunk(prompts[2], 0, tables[2], 1), Chunk([8], 33, tables[1], 1)],
        [Chunk([1], 22, tables[0], 1), Chunk([2], 5, tables[2], 1), Chunk([3], 34, tables[1], 1)],
        [Chunk([4], 23, tables[0], 0), Chunk([5], 6, tables[2], 1)],
        [Chunk([5, 6, 7], 24, tables[0], 3), Chunk([2], 35, tables[1], 1)],
    ]


def levelled_script():
    """The script's steps with its sequences at levels of their own, which change on the way."""
    levels = itertools.cycle((0, 1, 2, 3, 1, 2, 0))
    return [[replace(chunk, level=next(levels)) for chunk in chunks] for chunks in script()]


def run(decoder, steps):
    return [(s.best, s.log_total, s.logits.copy()) for chunks in steps for s in decoder.step(chunks)]


def run_divided(shape, precision, ranks, steps, **options):
    """Rank 0's scores; asserts that the others return none. One KV cache and one part of the weights per rank."""
    meeting = ThreadCollectives(ranks)
    decoders = [
        load_random_weights(TorchDecoder(shape, LIMITS, precision, shard, meeting.of(shard.rank), **options), shape)
        for shard in divide(shape, ranks)
    ]
    with ThreadPoolExecutor(ranks) as pool:
        results = list(pool.map(run, decoders, [steps] * ranks))
    assert not any(results[1:])
    return results[0], decoders


def assert_same(actual, expected, tolerance=3e-5):
    for (best, log_total, logits), (_, expected_total, expected_logits) in zip(actual, expected, strict=True):
        assert np.abs(logits - expected_logits).max() < tolerance
        assert log_total == pytest.approx(expected_total, abs=tolerance)
        assert logits[best] == logits.max()


@pytest.mark.parametrize("precision", list(Precision))
def test_the_whole_decoder_equals_the_reference_for_prompts_and_decoding_mixed(precision):
    expected = run(load_random_weights(ReferenceDecoder(SHAPE, LIMITS, precision)), script())
    assert_same(run(load_random_weights(TorchDecoder(SHAPE, LIMITS, precision)), script()), expected)


@pytest.mark.parametrize(
    ("ranks", "precision"), [*itertools.product((2, 3, 4), (Precision.FP32,)), (2, Precision.INT8), (4, Precision.INT4)]
)
def test_ranks_together_compute_what_one_does_though_heads_and_vocabulary_do_not_divide(ranks, precision):
    expected = run(load_random_weights(ReferenceDecoder(SHAPE, LIMITS, precision)), script())
    actual, decoders = run_divided(SHAPE, precision, ranks, script())
    assert_same(actual, expected)
    alone = load_random_weights(TorchDecoder(SHAPE, LIMITS, precision))
    norms = 4 * SHAPE.dim * (2 * SHAPE.layers + 1)
    assert sum(d.weight_bytes - norms for d in decoders) == alone.weight_bytes - norms
    assert sum(d.kv_bytes for d in decoders) == alone.kv_bytes


def test_levels_of_one_step_each_read_their_own_planes_and_skip_their_own_layers():
    expected = run(
        load_random_weights(ReferenceDecoder(SHAPE, LIMITS, Precision.NESTED, NESTED_LEVELS)), levelled_script()
    )
    alone = load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.NESTED, levels=NESTED_LEVELS))
    assert_same(run(alone, levelled_script()), expected)
    divided, _ = run_divided(SHAPE, Precision.NESTED, 2, levelled_script(), levels=NESTED_LEVELS)
    assert_same(divided, expected)


@pytest.mark.parametrize("span", [64, 128])
def test_int4_grids_that_span_several_groups_are_those_of_the_reference_divided_or_not(span):
    expected = run(load_random_weights(ReferenceDecoder(SHAPE, LIMITS, Precision.INT4, span=span)), script())
    assert_same(run(load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.INT4, span=span)), script()), expected)
    divided, _ = run_divided(SHAPE, Precision.INT4, 2, script(), span=span)
    assert_same(divided, expected)


@pytest.mark.parametrize(
    ("compute", "said"), [(torch.float32, "fp32"), (torch.float16, "fp16"), (torch.bfloat16, "bf16")], ids=str
)
def test_keys_and_values_are_said_to_be_stored_in_the_type_that_the_cache_has(monkeypatch, compute, said):
    target = Target(torch.device("cpu"), compute, uses_triton=False)
    monkeypatch.setattr("inference_pods.kernels.torch_decoder.choose_target", lambda *_: target)
    decoder = TorchDecoder(SHAPE, LIMITS, Precision.INT8)
    assert (decoder.kv_precision, decoder._attention._cache.dtype) == (said, compute)


def test_a_level_that_the_weights_cannot_serve_is_refused():
    with pytest.raises(LevelError, match="int4 weights cannot be read as int8"):
        TorchDecoder(SHAPE, LIMITS, Precision.INT4, levels=NESTED_LEVELS)


def test_plans_of_one_size_are_kept_apart_by_level(monkeypatch):
    monkeypatch.setattr("inference_pods.kernels.torch_graph._specialise", lambda forward, b, _: lambda: forward(b))
    plain = load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.NESTED, levels=NESTED_LEVELS))
    planned = load_random_weights(
        TorchDecoder(SHAPE, LIMITS, Precision.NESTED, levels=NESTED_LEVELS, backend=Backend.CUDA_GRAPH)
    )
    planned.warm()
    assert len(planned.plans) == 4 * 4  # 1, 2, 4 and 6 rows at each level
    assert_same(run(planned, levelled_script()), run(plain, levelled_script()))
    assert planned.plans.counts.misses == 0


def test_a_shape_whose_heads_divide_evenly_works_too():
    shape = DecoderShape(1, 64, 96, 8, 4, 32, 64, 1e-5, 10000.0)
    expected = run(load_random_weights(ReferenceDecoder(shape, LIMITS, Precision.FP32), shape), script(shape))
    actual, _ = run_divided(shape, Precision.FP32, 2, script(shape))
    assert_same(actual, expected)


def test_a_plan_of_padded_rows_equals_eager_steps_and_is_reused(monkeypatch):
    monkeypatch.setattr("inference_pods.kernels.torch_graph._specialise", lambda forward, b, _: lambda: forward(b))
    expected = run(load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32)), script())
    planned = load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32, backend=Backend.CUDA_GRAPH))
    assert_same(run(planned, script()), expected)
    assert (planned.plans.counts.misses, planned.plans.counts.hits) == (2, 0)
    assert_same(run(planned, script()), expected)
    assert (planned.plans.counts.misses, planned.plans.counts.hits) == (2, 2)


def test_a_smaller_step_after_a_larger_one_leaves_the_others_cache_alone(monkeypatch):
    monkeypatch.setattr("inference_pods.kernels.torch_graph._specialise", lambda forward, b, _: lambda: forward(b))
    planned = load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32, backend=Backend.CUDA_GRAPH))
    plain = load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32))
    steps = [
        *([Chunk([9, 9], 0, [block], 1)] for block in range(4)),
        [Chunk([token], 2, [token], 1) for token in range(4)],
        [Chunk([8, 8, 8], 0, [3], 1)],  # another sequence takes the block that the fourth row wrote to
        [Chunk([token], 3, [token], 1) for token in range(3)],  # bucket of 4: one row is padding
        [Chunk([5], 3, [3], 1)],
    ]
    assert_same(run(planned, steps), run(plain, steps))


def test_warming_builds_the_plans_of_decoding_and_eager_steps_need_none(monkeypatch):
    monkeypatch.setattr("inference_pods.kernels.torch_graph._specialise", lambda forward, b, _: lambda: forward(b))
    planned = load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32, backend=Backend.CUDA_GRAPH))
    assert planned.warm().misses == 0
    assert len(planned.plans) == 4  # 1, 2, 4 and 6 rows
    eager = load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32))
    eager.warm()
    assert len(eager.plans) == 0


@pytest.mark.slow
def test_torch_can_trace_the_step_without_a_break(monkeypatch):
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda forward, **options: compile_(forward, backend="eager", **options))
    compiled = load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32, backend=Backend.COMPILE))
    assert_same(
        run(compiled, script()), run(load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32)), script())
    )


def test_compiling_a_divided_decoder_is_refused():
    with pytest.raises(DecoderUnsupportedError, match="eager"):
        TorchDecoder(SHAPE, LIMITS, Precision.FP32, divide(SHAPE, 2)[0], backend=Backend.COMPILE)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (Chunk([SHAPE.vocab], 0, [0], 1), "vocabulary"),
        (Chunk([-1], 0, [0], 1), "vocabulary"),
        (Chunk([1] * 49, 0, [0, 1, 2, 3], 1), "49 rows"),
        (Chunk([1], 0, [LIMITS.kv_blocks], 1), "block"),
        (Chunk([1], 0, [-1], 1), "block"),
        (Chunk([1], 96, [0] * 7, 1), "positions 96 to 97"),
        (Chunk([], 0, [0], 0), "positions"),
        (Chunk([1], 0, [0], 1, level=1), "level 1"),
        (Chunk([1], 16, [0], 1), "too short"),
    ],
)
def test_a_step_out_of_range_is_refused_before_it_runs(chunk, message):
    decoder = TorchDecoder(SHAPE, LIMITS, Precision.FP32)
    with pytest.raises(ValueError, match=message):
        decoder.step([chunk])


def test_what_a_blocks_last_owner_left_reaches_no_answer_not_even_when_it_is_no_number():
    clean, spoilt = (load_random_weights(TorchDecoder(SHAPE, LIMITS, Precision.FP32)) for _ in range(2))
    spoilt._attention._cache.fill_(float("nan"))
    assert_same(run(spoilt, script()), run(clean, script()))


def test_a_tensor_of_the_wrong_size_is_refused():
    decoder = TorchDecoder(SHAPE, LIMITS, Precision.FP32)
    with pytest.raises(DecoderUnsupportedError, match=r"tensor Q is \[1, 64\]"):
        decoder.load(TensorRole.Q, 0, np.zeros(4 * 64, np.uint8), SourceType.F32, 1, 64)


def test_a_rank_reads_only_the_rows_that_are_its_own(monkeypatch):
    read = []
    module = "inference_pods.kernels.torch_weights"
    import inference_pods.kernels.torch_weights as weights

    original = weights.dequantise

    def count(source, kind, rows, columns):
        read.append((rows, columns))
        return original(source, kind, rows, columns)

    monkeypatch.setattr(f"{module}.dequantise", count)
    shard = divide(SHAPE, 4)[3]
    decoder = TorchDecoder(SHAPE, LIMITS, Precision.FP32, shard)
    head = np.zeros((SHAPE.vocab, SHAPE.dim), np.float32).view(np.uint8).reshape(-1)
    decoder.load(TensorRole.HEAD, 0, head, SourceType.F32, SHAPE.vocab, SHAPE.dim)
    assert read == [(len(shard.vocabulary), SHAPE.dim)]
