"""A vocabulary is compared with the model that it comes with: what contradicts it is refused, before it serves."""

import numpy as np
import pytest

from inference_pods.engine.checkpoint import open_model
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.vocabulary import read_chat_template, read_vocabulary

MODEL = {
    "general.architecture": "llama", "llama.block_count": 1, "llama.embedding_length": 64,
    "llama.feed_forward_length": 96, "llama.attention.head_count": 2, "llama.context_length": 128,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip
TOKENIZER = {
    "model": "gpt2", "pre": "smollm", "tokens": ["<s>", "</s>", "a", "b", "ab"], "merges": ["a b"],
    "token_type": np.array([3, 3, 1, 1, 1], np.int32), "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


@pytest.fixture
def open_gguf(tmp_path, write_gguf):
    def open_changed(rows=5, without=(), **changes):
        parts = {f"tokenizer.ggml.{key}": value for key, value in (TOKENIZER | changes).items() if key not in without}
        embedding = {"token_embd.weight": ([64, rows], 0, bytes(256 * rows))}
        return open_model(write_gguf(tmp_path / "model.gguf", MODEL | parts, embedding))

    return open_changed


def test_a_vocabulary_that_fits_is_read(open_gguf):
    vocabulary = read_vocabulary(open_gguf())
    assert vocabulary.tokens == TOKENIZER["tokens"]
    assert (vocabulary.special_ids, vocabulary.eos_ids, vocabulary.bos_token) == ({0, 1}, (1,), "<s>")
    assert vocabulary.tokenizer.encode("ab").ids == [4]


@pytest.mark.parametrize("rows", [4, 6])
def test_tokens_that_are_not_as_many_as_the_embeddings_rows_are_corrupt(open_gguf, rows):
    with pytest.raises(LoadError, match=f"5 tokens, but an embedding of {rows} rows") as caught:
        read_vocabulary(open_gguf(rows))
    assert caught.value.reason is LoadReason.CORRUPT


@pytest.mark.parametrize("name", ["tokens", "merges", "token_type", "bos_token_id", "eos_token_id"])
def test_a_missing_part_is_corrupt_and_named(open_gguf, name):
    with pytest.raises(LoadError, match=name) as caught:
        read_vocabulary(open_gguf(without=(name,)))
    assert caught.value.reason is LoadReason.CORRUPT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokens", np.arange(5, dtype=np.int32)),
        ("merges", "a b"),
        ("token_type", np.ones(4, np.int32)),
        ("token_type", ["3", "3", "1", "1", "1"]),
        ("bos_token_id", 5),
        ("eos_token_id", 2**32 - 1),
        ("eos_token_id", "</s>"),
    ],
)
def test_a_part_of_another_kind_or_out_of_range_is_corrupt_and_named(open_gguf, name, value):
    with pytest.raises(LoadError, match=name) as caught:
        read_vocabulary(open_gguf(**{name: value}))
    assert caught.value.reason is LoadReason.CORRUPT


def test_merges_of_tokens_that_there_are_not_are_corrupt(open_gguf):
    with pytest.raises(LoadError, match="merges") as caught:
        read_vocabulary(open_gguf(merges=["x y"]))
    assert caught.value.reason is LoadReason.CORRUPT


def test_a_chat_template_that_is_no_text_is_none(tmp_path, write_gguf):
    path = write_gguf(tmp_path / "odd.gguf", {"tokenizer.chat_template": 7}, {})
    assert read_chat_template(open_model(path)) is None
