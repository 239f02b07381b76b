"""Levels of one decoder: what each of them computes, mixed in a batch and switched from token to token."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pods.kernels.decoder import Chunk, Decoder
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision
from inference_pods.kernels.levels import Level, LevelError
from inference_pods.kernels.reference_decoder import ReferenceDecoder
from tests.inference_pods.kernels.random_model import LIMITS, SHAPE, load_random_weights

pytestmark = pytest.mark.timeout(300)  # the first use of a variant compiles it

LEVELS = (
    Level("int8", Precision.INT8),
    Level("int4", Precision.INT4),
    Level("int8-d2", Precision.INT8, (1,)),
    Level("int4-d1", Precision.INT4, (0, 2)),
)
TABLES = ([3, 1, 8], [2, 5, 9], [7, 4, 11])


def nested(variant, levels=LEVELS):
    return load_random_weights(Decoder(SHAPE, LIMITS, Precision.NESTED, variant, levels))


def copied(scores):
    return [(one.best, one.log_total, one.logits.copy()) for one in scores]


def decode(decoder, levels):
    """A prompt of 20 tokens, then one token per entry of `levels`; logits of each."""
    logits = [decoder.step([Chunk(list(range(20)), 0, TABLES[0], 1, levels[0])])[0].logits.copy()]
    for position, level in enumerate(levels[1:], start=20):
        logits.append(decoder.step([Chunk([position * 5 % 131], position, TABLES[0], 1, level)])[0].logits.copy())
    return np.stack(logits)


def test_the_int4_level_equals_the_int4_tier_bit_by_bit(variant):
    tier = load_random_weights(Decoder(SHAPE, LIMITS, Precision.INT4, variant))
    np.testing.assert_array_equal(decode(nested(variant), [1] * 6), decode(tier, [0] * 6))


def test_the_int8_level_is_much_closer_to_full_than_the_int4_level(variant):
    full = decode(load_random_weights(Decoder(SHAPE, LIMITS, Precision.FP32, variant)), [0] * 6)
    decoder = nested(variant)
    int8, int4 = (np.abs(decode(decoder, [level] * 6) - full).mean() for level in (0, 1))
    assert int8 < int4 / 8


def test_a_level_without_skipped_layers_is_the_plain_decoder(variant):
    levels = (Level("int8", Precision.INT8), Level("int8-d2", Precision.INT8, (1,)))
    decoder = load_random_weights(Decoder(SHAPE, LIMITS, Precision.INT8, variant, levels))
    plain = load_random_weights(Decoder(SHAPE, LIMITS, Precision.INT8, variant))
    np.testing.assert_array_equal(decode(decoder, [0] * 4), decode(plain, [0] * 4))
    assert np.abs(decode(decoder, [1] * 4) - decode(plain, [0] * 4)).max() > 0.01


@st.composite
def scripts(draw):
    """Steps of chunks of up to three sequences: how many tokens each brings, how many are scored, at which level."""
    lengths, steps = [0, 0, 0], []
    for _ in range(draw(st.integers(1, 5))):
        chunks = []
        for sequence in draw(st.lists(st.sampled_from(range(3)), min_size=1, max_size=3, unique=True)):
            count = draw(st.integers(1, min(14, len(TABLES[0]) * BLOCK_TOKENS - lengths[sequence])))
            tokens = draw(st.lists(st.integers(0, SHAPE.vocab - 1), min_size=count, max_size=count))
            scored, level = draw(st.integers(0, min(2, count))), draw(st.sampled_from(range(len(LEVELS))))
            chunks.append(Chunk(tokens, lengths[sequence], TABLES[sequence], scored, level))
            lengths[sequence] += count
            if lengths[sequence] > 30:
                lengths[sequence] = 0
        steps.append(chunks)
    return steps


@pytest.fixture(scope="module")
def loaded():
    """Decoders of all levels by variant, loaded once; what a sequence left in the cache is overwritten by the next."""
    decoders = {}

    def load(name):
        if name not in decoders:
            reference = load_random_weights(ReferenceDecoder(SHAPE, LIMITS, Precision.NESTED, LEVELS))
            decoders[name] = (nested(name), reference)
        return decoders[name]

    return load


@given(steps=scripts())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mixed_batches_and_switches_equal_the_reference(variant, loaded, steps):
    """The reference runs one chunk after another, so grouping by level and output order are checked too."""
    decoder, reference = loaded(variant)
    for chunks in steps:
        actual, expected = copied(decoder.step(chunks)), copied(reference.step(chunks))
        assert len(actual) == len(expected) == sum(chunk.scores for chunk in chunks)
        for (best, log_total, logits), (_, expected_log_total, expected_logits) in zip(actual, expected, strict=True):
            assert np.abs(logits - expected_logits).max() < 5e-3
            assert log_total == pytest.approx(expected_log_total, abs=5e-3)
            assert best == logits.argmax()


def test_a_batch_of_all_levels_gives_each_sequence_what_it_gets_alone(variant):
    decoder = nested(variant)
    chunks = [Chunk([5, 6, 7], 0, [block], 1, level) for block, level in enumerate((1, 0, 3, 2, 1, 0))]
    together = copied(decoder.step(chunks))
    alone = [copied(decoder.step([chunk]))[0] for chunk in chunks]
    for (_, _, mixed), (_, _, single) in zip(together, alone, strict=True):
        np.testing.assert_array_equal(mixed, single)
    assert not np.array_equal(together[0][2], together[1][2])


def test_keys_and_values_of_one_level_serve_another_at_any_token(variant):
    """Switching precision keeps the positions: a prompt read at int4 is continued at int8, close to all in int8."""
    decoder = nested(variant)
    always, switched = decode(decoder, [0] * 8), decode(decoder, [1, 1, 1, 0, 0, 0, 0, 0])
    coarse = decode(decoder, [1] * 8)
    assert np.abs(switched[3:] - always[3:]).mean() < np.abs(coarse[3:] - always[3:]).mean()


def test_after_a_skipped_layer_its_keys_and_values_are_there(variant):
    """All layers run after a prompt that skipped one: without its keys and values, zeros would be attended to."""
    reference = load_random_weights(ReferenceDecoder(SHAPE, LIMITS, Precision.NESTED, LEVELS))
    levels = [2, 0, 3, 0, 1, 2, 0]
    assert np.abs(decode(nested(variant), levels) - decode(reference, levels)).max() < 5e-3


@pytest.mark.parametrize("level", [-1, len(LEVELS)])
def test_a_level_that_is_not_there_is_refused(variant, level):
    for decoder in (Decoder(SHAPE, LIMITS, Precision.NESTED, variant, LEVELS),
                    ReferenceDecoder(SHAPE, LIMITS, Precision.NESTED, LEVELS)):  # fmt: skip
        with pytest.raises(ValueError, match="not one of the decoder's 4 levels"):
            decoder.step([Chunk([1], 0, [0], 1, level)])


def test_a_level_that_the_weights_cannot_be_read_in_is_refused(variant):
    with pytest.raises(LevelError, match="int4 weights cannot be read as int8, only int4"):
        Decoder(SHAPE, LIMITS, Precision.INT4, variant, (Level("int8", Precision.INT8),))


def test_nothing_runs_when_a_later_level_of_the_batch_is_out_of_range(variant):
    decoder = nested(variant)
    expected = decode(decoder, [0, 0])[1]
    with pytest.raises(ValueError, match="exceeds"):
        decoder.step([Chunk([1], 3, TABLES[0], 1, 0), Chunk([SHAPE.vocab], 0, TABLES[1], 1, 1)])
    np.testing.assert_array_equal(decoder.step([Chunk([100], 20, TABLES[0], 1, 0)])[0].logits, expected)
    decoder.step([Chunk([1], 3, TABLES[0], 1, 0)])
    assert not np.array_equal(decoder.step([Chunk([100], 20, TABLES[0], 1, 0)])[0].logits, expected)
