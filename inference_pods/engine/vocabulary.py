"""The vocabulary and the chat template of a checkpoint: from a GGUF file's metadata, or from tokenizer.json and its
companions. Byte-level BPE only. Knows no model and encodes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from inference_pods.engine.checkpoint import ModelFile, read_shape
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.hf_llama import parse_config
from inference_pods.engine.safetensors import SafetensorsModel, read_json

_CONTROL = 3  # GGUF's token_type of control tokens


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id in the byte alphabet (`added_ids`: as plain text), and what ends a generation."""

    tokenizer: Tokenizer
    tokens: list[str]
    special_ids: frozenset[int]
    eos_ids: tuple[int, ...]
    bos_token: str
    added_ids: frozenset[int] = field(default_factory=frozenset)


def read_vocabulary(file: ModelFile) -> Vocabulary:
    """Vocabulary of an open checkpoint.

    Raises:
        LoadError: ModelUnsupported for tokenizers of another kind, ModelNotFound or ModelCorrupt for their files, also
            when they do not belong to the model's embedding.
    """
    if not isinstance(file, GgufFile):
        return _read_hf_vocabulary(file)
    vocabulary, rows = read_gguf_vocabulary(file.metadata), read_shape(file).vocab
    if len(vocabulary.tokens) != rows:
        raise _corrupt(f"{len(vocabulary.tokens)} tokens, but an embedding of {rows} rows")
    return vocabulary


def read_chat_template(file: ModelFile) -> str | None:
    """Source of the chat template, None for a model without one."""
    if isinstance(file, GgufFile):
        source = file.metadata.get("tokenizer.chat_template")
        return source if isinstance(source, str) else None
    path = file.folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text()
    template = _optional_json(file.folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def read_gguf_vocabulary(metadata: dict[str, Any]) -> Vocabulary:
    """The `smollm` kind: digits split one by one, then GPT-2's pattern.

    Raises:
        LoadError: ModelUnsupported for another kind, ModelCorrupt for parts that are missing or contradict each other.
    """
    kind = (metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise LoadError(LoadReason.UNSUPPORTED, f"tokenizer {kind} is not supported; only byte-level BPE 'smollm' is")
    tokens, merges = _texts(metadata, "tokens"), _texts(metadata, "merges")
    eos, bos = (_token_id(metadata, f"{name}_token_id", len(tokens)) for name in ("eos", "bos"))
    special_ids = _control_ids(metadata, len(tokens))
    try:
        tokenizer = _build_tokenizer(tokens, merges, special_ids)
    except Exception as error:  # the library has no narrower type
        raise _corrupt(f"the merges do not fit the tokens: {error}") from error
    return Vocabulary(tokenizer, tokens, special_ids, (eos,), tokens[bos])


def _corrupt(message: str) -> LoadError:
    return LoadError(LoadReason.CORRUPT, f"tokenizer.ggml: {message}; the file is damaged, download it again")


def _texts(metadata: dict[str, Any], name: str) -> list[str]:
    texts = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _corrupt(f"`{name}` is missing or no list of texts")
    return texts


def _token_id(metadata: dict[str, Any], name: str, tokens: int) -> int:
    number = metadata.get(f"tokenizer.ggml.{name}")
    if type(number) is not int or not 0 <= number < tokens:
        raise _corrupt(f"`{name}` is {number!s:.40}, no token of the {tokens} there are")
    return number


def _control_ids(metadata: dict[str, Any], tokens: int) -> frozenset[int]:
    """Without the types special tokens would be shown as text, and could be written by whoever writes a prompt."""
    types = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, np.ndarray) or types.shape != (tokens,):
        raise _corrupt(f"`token_type` is missing or is not one number for each of {tokens} tokens")
    return frozenset(np.flatnonzero(types == _CONTROL).tolist())


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


def _read_hf_vocabulary(file: SafetensorsModel) -> Vocabulary:
    document, config = read_json(file.folder / "tokenizer.json"), parse_config(file.config)
    size = read_shape(file).vocab  # within bounds: a list of this length follows
    if not _is_byte_level(document):
        message = "tokenizer.json: only byte-level BPE is supported; choose a model with such a tokenizer"
        raise LoadError(LoadReason.UNSUPPORTED, message)
    try:
        tokenizer = Tokenizer.from_str(json.dumps(document))
    except Exception as error:
        raise LoadError(LoadReason.CORRUPT, f"tokenizer.json: {error}; download it again") from error
    ids = tokenizer.get_vocab(with_added_tokens=True)
    added = tokenizer.get_added_tokens_decoder()
    if max(ids.values(), default=-1) >= size:
        message = f"tokenizer.json has token {max(ids.values())}, config.json a vocabulary of {size}"
        raise LoadError(LoadReason.CORRUPT, f"{message}; these files do not belong together")
    tokens = [""] * size
    for token, number in ids.items():
        tokens[number] = token
    eos_ids = _eos_ids(file.folder) or config.eos_ids
    if not eos_ids or not all(0 <= number < len(tokens) for number in eos_ids):
        message = f"config.json: `eos_token_id` {eos_ids or 'is missing'}: no token of this vocabulary ends a text"
        raise LoadError(LoadReason.CORRUPT, f"{message}; add the field")
    if config.bos_token_id is not None and not 0 <= config.bos_token_id < len(tokens):
        message = f"config.json: `bos_token_id` {config.bos_token_id} is no token of this vocabulary; correct the field"
        raise LoadError(LoadReason.CORRUPT, message)
    bos = "" if config.bos_token_id is None else tokens[config.bos_token_id]
    special = frozenset(number for number, token in added.items() if token.special)
    return Vocabulary(tokenizer, tokens, special, eos_ids, bos, frozenset(added))


def _is_byte_level(document: dict[str, Any]) -> bool:
    decoder = document.get("decoder") or {}
    kinds = {decoder.get("type"), *(step.get("type") for step in decoder.get("decoders", ()))}
    return (document.get("model") or {}).get("type") == "BPE" and "ByteLevel" in kinds


def _eos_ids(folder: Path) -> tuple[int, ...]:
    """generation_config.json, where there is one, knows the ends of chat turns too."""
    ids = _optional_json(folder / "generation_config.json").get("eos_token_id")
    if isinstance(ids, int):
        return (ids,)
    return tuple(ids) if isinstance(ids, list) and all(type(number) is int for number in ids) else ()


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
