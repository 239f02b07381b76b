"""What a GGUF file says of its llama is believed only within bounds, before any memory is mapped for it."""

import numpy as np
import pytest

from inference_pods.engine.checkpoint import context_length, open_model, read_shape
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.model_runner import load_model
from inference_pods.kernels.decoder import DecoderLimits
from inference_pods.kernels.formats import Precision

METADATA = {
    "general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 64,
    "llama.feed_forward_length": 96, "llama.attention.head_count": 2, "llama.context_length": 128,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
EMBEDDING = {"token_embd.weight": ([64, 8], 0, np.zeros(512, np.float32).tobytes())}
LIMITS = DecoderLimits(max_rows=8, max_outputs=1, max_positions=64, kv_blocks=4, threads=1)


@pytest.fixture
def open_gguf(tmp_path, write_gguf):
    def open_changed(**changes):
        metadata = METADATA | {key.replace("__", "."): value for key, value in changes.items()}
        return open_model(write_gguf(tmp_path / "model.gguf", metadata, EMBEDDING))

    return open_changed


def test_the_shape_is_that_of_the_metadata(open_gguf):
    shape = read_shape(open_gguf())
    assert (shape.layers, shape.dim, shape.ffn, shape.vocab) == (1, 64, 96, 8)
    assert (shape.heads, shape.kv_heads, shape.head_dim, shape.rope_base) == (2, 2, 32, 10000.0)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("block_count", 2**32 - 1, "layers 4294967295"),
        ("block_count", 0, "block_count"),
        ("embedding_length", 2**32 - 64, "dim 4294967232"),
        ("embedding_length", ["64"], "embedding_length"),
        ("feed_forward_length", "many", "feed_forward_length"),
        ("attention__head_count", 0, "head_count"),
        ("attention__head_count_kv", 3, "2 heads"),
        ("rope__dimension_count", 2**32 - 64, "head_dim"),
        ("rope__freq_base", float("nan"), "rope_base nan"),
        ("attention__layer_norm_rms_epsilon", "small", "rms_epsilon"),
    ],
)
def test_a_field_out_of_range_or_of_another_type_is_corrupt_and_named(open_gguf, field, value, words):
    with pytest.raises(LoadError, match=words) as caught:
        read_shape(open_gguf(**{f"llama__{field}": value}))
    assert caught.value.reason is LoadReason.CORRUPT


@pytest.mark.parametrize("value", [0, "long", ["128"]])
def test_a_context_length_that_is_no_count_is_corrupt(open_gguf, value):
    with pytest.raises(LoadError, match="context_length") as caught:
        context_length(open_gguf(llama__context_length=value))
    assert caught.value.reason is LoadReason.CORRUPT


def test_the_tensors_are_compared_with_the_shape_before_a_decoder_is_made(open_gguf):
    def create(*_):
        raise AssertionError("memory would be mapped for tensors that are not there")

    with pytest.raises(LoadError, match="is missing") as caught:
        load_model(open_gguf(), LIMITS, Precision.INT8, 0, create=create)
    assert caught.value.reason is LoadReason.CORRUPT
