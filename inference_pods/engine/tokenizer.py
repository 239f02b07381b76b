"""Text to tokens and back, from the vocabulary in the GGUF file.

Byte-level BPE of the `smollm` kind: digits split one by one, then GPT-2's pattern. Decoding goes through bytes, so that
a stream never shows half a character. Knows no chat format and no model.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from inference_pods.engine.errors import LoadError, LoadReason

_SPECIAL = 3  # token_type of control tokens


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
    """Raises LoadError (ModelUnsupported) for tokenizers of another kind."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
        if kind != ("gpt2", "smollm"):
            raise LoadError(
                LoadReason.UNSUPPORTED, f"tokenizer {kind} is not supported; only byte-level BPE 'smollm' is"
            )
        tokens: list[str] = metadata["tokenizer.ggml.tokens"]
        types: list[int] = metadata["tokenizer.ggml.token_type"]
        self.special_ids = frozenset(i for i, kind in enumerate(types) if kind == _SPECIAL)
        self.eos_id = int(metadata["tokenizer.ggml.eos_token_id"])
        self.bos_token = tokens[int(metadata["tokenizer.ggml.bos_token_id"])]
        self.eos_token = tokens[self.eos_id]
        self._tokenizer = _build_tokenizer(tokens, metadata["tokenizer.ggml.merges"], self.special_ids)
        alphabet = _byte_alphabet()
        self._bytes = [_token_bytes(token, alphabet) for token in tokens]
        self._tokens = tokens

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


def _build_tokenizer(tokens: list[str], merges: list[str], special_ids: frozenset[int]) -> Tokenizer:
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(tokens[i], special=True, normalized=False) for i in sorted(special_ids)])
    return tokenizer


def _token_bytes(token: str, alphabet: dict[str, int]) -> bytes:
    try:
        return bytes(alphabet[character] for character in token)
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
