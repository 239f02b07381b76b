"""Text to tokens and back. Decoding goes through bytes, so that a stream never shows half a character.

Knows no chat format, no model and no files.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from inference_pods.engine.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of a tokenised text with its place in it, in characters."""

    id: int
    text: str
    start: int
    stop: int


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte, reversed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


class TextTokenizer:
    """Encodes and decodes with one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._tokenizer, self._tokens = vocabulary.tokenizer, vocabulary.tokens
        self.special_ids = vocabulary.special_ids
        self.eos_ids = frozenset(vocabulary.eos_ids)
        self.eos_id = vocabulary.eos_ids[0]
        self.bos_token = vocabulary.bos_token
        self.eos_token = self._tokens[self.eos_id]
        alphabet = _byte_alphabet()
        self._bytes = [
            token.encode() if number in vocabulary.added_ids else _token_bytes(token, alphabet)
            for number, token in enumerate(self._tokens)
        ]

    @property
    def vocabulary_size(self) -> int:
        return len(self._tokens)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def encode_pieces(self, text: str) -> list[Piece]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [Piece(token, text[a:b], a, b) for token, (a, b) in zip(encoding.ids, encoding.offsets, strict=True)]

    def is_special(self, token_id: int) -> bool:
        return token_id in self.special_ids

    def token_bytes(self, token_id: int) -> bytes:
        return self._bytes[token_id]

    def token_text(self, token_id: int) -> str:
        """A token's text on its own; broken characters are replaced."""
        return self._tokens[token_id] if self.is_special(token_id) else self._bytes[token_id].decode(errors="replace")


def _token_bytes(token: str, alphabet: dict[str, int]) -> bytes:
    try:
        return bytes(map(alphabet.__getitem__, token))
    except KeyError:
        return token.encode()


class TextStream:
    """Turns one sequence's tokens into text as they come, and notices stop strings across token borders."""

    def __init__(self, tokenizer: TextTokenizer, stop_strings: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._stops = stop_strings
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.text = ""
        self.stopped = False

    def push(self, token_id: int, is_last: bool) -> str:
        """Text that this token completes; the last token also flushes what is left of a broken character."""
        if self._tokenizer.is_special(token_id):
            piece = self._decoder.decode(b"", is_last)
        else:
            piece = self._decoder.decode(self._tokenizer.token_bytes(token_id), is_last)
        if piece:
            self._append(piece)
        return piece

    def flush(self) -> str:
        """What is left when the end is known only after the last token was pushed."""
        piece = self._decoder.decode(b"", True)
        self.text += piece
        return piece

    def _append(self, piece: str) -> None:
        self.text += piece
        for stop in self._stops:
            if stop in self.text[-(len(piece) + len(stop) - 1) :]:
                self.stopped = True
