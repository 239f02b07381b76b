"""The built-in vocabulary of an emulated engine: no file is read. A byte of text is a token, and so is each word of the
sentence that it answers with.
"""

from __future__ import annotations

import re

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from inference_pods.engine.vocabulary import Vocabulary

# What every answer repeats. All words differ, so that what comes after a word depends on that word alone.
_TEXT = " This text is filler from an emulated engine that has no weights."
SENTENCE = tuple(re.findall(r" [^ ]+", _TEXT))
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
_BOS, _EOS = "<|begin|>", "<|end|>"
_SPACE = "Ġ"  # how a byte-level vocabulary writes a space


def build_vocabulary() -> Vocabulary:
    """Bytes, the sentence's words with what they grow from, and two control tokens."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in SENTENCE:
        _add_word(word.replace(" ", _SPACE), tokens, merges)
    special = (len(tokens), len(tokens) + 1)
    tokens += [_BOS, _EOS]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (_BOS, _EOS)])
    return Vocabulary(tokenizer, tokens, frozenset(special), (special[1],), _BOS)


def _add_word(word: str, tokens: list[str], merges: list[tuple[str, str]]) -> None:
    """A chain of merges that grows the word letter by letter from its space, so that no two words compete."""
    for length in range(2, len(word) + 1):
        if word[:length] not in tokens:
            tokens.append(word[:length])
            merges.append((word[: length - 1], word[length - 1]))
