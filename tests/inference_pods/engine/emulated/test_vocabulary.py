"""The built-in vocabulary keeps every text, and counts the filler's words as one token each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.emulated.vocabulary import CHAT_TEMPLATE, SENTENCE, build_vocabulary
from inference_pods.engine.tokenizer import TextTokenizer

TOKENIZER = TextTokenizer(build_vocabulary())


def decode(ids: list[int]) -> str:
    return b"".join(TOKENIZER.token_bytes(token) for token in ids).decode()


@pytest.mark.slow
@given(st.text())
def test_text_comes_back_from_its_tokens(text: str) -> None:
    assert decode(TOKENIZER.encode(text)) == text


def test_each_word_of_the_sentence_is_one_token_of_its_own() -> None:
    words = [TOKENIZER.encode(word) for word in SENTENCE]
    assert {len(ids) for ids in words} == {1}
    assert len({ids[0] for ids in words}) == len(SENTENCE)
    assert len(TOKENIZER.encode("".join(SENTENCE) * 3)) == 3 * len(SENTENCE)


def test_other_text_is_a_token_per_byte() -> None:
    assert len(TOKENIZER.encode("Größe")) == 7


def test_the_end_token_is_special_and_none_of_the_sentence() -> None:
    assert TOKENIZER.is_special(TOKENIZER.eos_id)
    assert TOKENIZER.eos_id not in TOKENIZER.encode("".join(SENTENCE))


def test_a_chat_ends_where_the_answer_begins() -> None:
    template = ChatTemplate(CHAT_TEMPLATE, TOKENIZER.bos_token, TOKENIZER.eos_token)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert template.render(messages) == "system: Be brief.\nuser: Hi\nassistant:"
