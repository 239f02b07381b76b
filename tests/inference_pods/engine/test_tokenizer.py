import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pods.engine.tokenizer import TextStream


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The capital of France is", ["The", " capital", " of", " France", " is"]),
        ("a 1234", ["a", " ", "1", "2", "3", "4"]),
        ("<|im_start|>user\nHi<|im_end|>", ["<|im_start|>", "user", "\n", "Hi", "<|im_end|>"]),
    ],
    ids=["words", "digits one by one", "special tokens"],
)
def test_text_is_split_as_the_model_was_trained(tokenizer, text, tokens):
    assert [tokenizer.token_text(token) for token in tokenizer.encode(text)] == tokens
    assert [(piece.start, piece.stop) for piece in tokenizer.encode_pieces(text)][-1][1] == len(text)


@pytest.fixture(scope="module")
def known_bytes(tokenizer):
    return {tokenizer.token_bytes(token) for token in range(tokenizer.vocabulary_size)}


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_survives_encoding_and_streaming(tokenizer, known_bytes, text):
    stream = TextStream(tokenizer, ())
    ids = [token for token in tokenizer.encode(text) if not tokenizer.is_special(token)]
    pieces = [stream.push(token, is_last=False) for token in ids] + [stream.flush()]
    expected = b"".join(tokenizer.token_bytes(token) for token in ids).decode(errors="replace")
    assert "".join(pieces) == stream.text == expected
    if all(bytes([byte]) in known_bytes for byte in text.encode()):  # the vocabulary lacks 21 bytes that hardly occur
        assert expected == text


def test_a_character_of_several_tokens_appears_only_when_it_is_whole(tokenizer):
    ids = tokenizer.encode("\N{DRAGON FACE}")
    assert len(ids) > 1
    stream = TextStream(tokenizer, ())
    pieces = [stream.push(token, is_last=False) for token in ids]
    assert pieces == [""] * (len(ids) - 1) + ["\N{DRAGON FACE}"]


def test_a_character_that_never_completes_is_replaced_at_the_end(tokenizer):
    stream = TextStream(tokenizer, ())
    stream.push(tokenizer.encode("\N{DRAGON FACE}")[0], is_last=False)
    assert stream.flush() == codecs.decode(b"\xf0", "utf-8", "replace")


def test_a_stop_string_is_noticed_across_tokens(tokenizer):
    stream = TextStream(tokenizer, ("France is",))
    seen = []
    for token in tokenizer.encode("capital of France is Paris"):
        stream.push(token, is_last=False)
        seen.append(stream.stopped)
    assert seen == [False, False, False, True, True]
