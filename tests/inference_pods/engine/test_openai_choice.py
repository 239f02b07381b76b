"""Tokens that are listed are those of the text that is shown, whole or in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.engine.openai_choice import ChoiceText, show_all
from inference_pods.engine.sequence import FinishReason, ScoredToken, TokenEvent


def build_events(texts, finish=FinishReason.STOP, special=()):
    tokens = [ScoredToken(number, text, -1.0, number in special) for number, text in enumerate(texts)]
    last = len(tokens) - 1
    return [TokenEvent(1, token, finish=finish if token.id == last else None) for token in tokens]


@pytest.mark.parametrize(
    ("texts", "stops", "shown", "listed"),
    [
        (["a", "b", "c", "d"], ("cd",), "ab", [0, 1]),
        (["a", "bc", "d"], ("cd",), "ab", [0, 1]),
        (["a", "b", "cde"], ("d",), "abc", [0, 1, 2]),
        (["stop"], ("stop",), "", []),
        (["", "", "x", "y"], ("x",), "", []),
        (["a", "", "b", "c"], ("c",), "ab", [0, 1, 2]),
        (["a", "c", "e"], ("cd",), "ace", [0, 1, 2]),
        (["a", "c"], ("cd",), "ac", [0, 1]),
        (["a", "b"], (), "ab", [0, 1]),
    ],
    ids=[
        "the stop string's own tokens are not listed",
        "a token that ends with a part of it is",
        "a token that holds all of it after other text is",
        "nothing is shown, nothing listed",
        "parts of a character that belongs to it are not listed",
        "parts of a character before it are",
        "what only looked like it is shown and listed",
        "the end comes before it was complete",
        "no stop string",
    ],
)
def test_the_tokens_listed_are_those_that_begin_in_the_text_shown(texts, stops, shown, listed):
    piece = show_all(stops, build_events(texts))
    assert piece.text == shown
    assert [token.event.token.id for token in piece.tokens] == listed


def test_special_tokens_are_listed_and_take_no_place_in_the_text():
    piece = show_all((), build_events(["a", "<end>", "b"], FinishReason.LENGTH, special={1}))
    assert (piece.text, [token.at for token in piece.tokens]) == ("ab", [0, 1, 1])


@given(
    texts=st.lists(st.text("abc", max_size=3), min_size=1, max_size=12),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_no_piece_lists_what_is_not_shown_and_together_they_are_the_uncut_tokens(texts, stops):
    choice, text, tokens = ChoiceText(tuple(stops)), "", []
    for event in build_events(texts, FinishReason.LENGTH):
        piece = choice.push(event)
        text += piece.text
        tokens += piece.tokens
        assert all(token.at <= len(text) for token in tokens)
    whole = "".join(texts)
    cut = min((whole.find(stop) for stop in stops if stop in whole), default=None)
    assert choice.tokens == len(texts)
    begins = [len("".join(texts[:number])) for number in range(len(texts))]
    if cut is None:
        assert (text, [token.at for token in tokens]) == (whole, begins)
    else:
        assert [token.at for token in tokens] == [at for at in begins if at < len(text)]
        assert text == whole[: len(text)]
        assert not any(stop in text for stop in stops)
