"""The objects of OpenAI's answers: chat messages and plain completions, whole and as chunks. Shapes only, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from inference_pods.engine.openai_choice import Piece, PlacedToken
from inference_pods.engine.sequence import FinishReason, ScoredToken
from inference_pods.engine.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class Answer:
    """The fields that all of an answer's objects share; `logprobs`: how many alternatives, None without logprobs."""

    id: str
    model: str
    created: int
    logprobs: int | None
    tokenizer: TextTokenizer

    def wrap(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


class Dialect(Protocol):
    """How one route wraps text. `index` is the choice."""

    CHUNK: ClassVar[str]
    WHOLE: ClassVar[str]

    def head(self, index: int) -> list[dict[str, Any]]: ...

    def delta(self, answer: Answer, index: int, piece: Piece) -> dict[str, Any]: ...

    def tail(self, index: int, finish: FinishReason) -> dict[str, Any]: ...

    def whole(self, answer: Answer, index: int, piece: Piece, finish: FinishReason) -> dict[str, Any]: ...


def finish_name(finish: FinishReason) -> str:
    return "length" if finish is FinishReason.LENGTH else "stop"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The prompt counts once, the output of all choices together."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def _chat_logprob(tokenizer: TextTokenizer, token: ScoredToken) -> dict[str, Any]:
    """The token's own bytes, also when it is a part of a character and shows no text yet."""
    raw = tokenizer.token_bytes(token.id)
    return {"token": tokenizer.token_text(token.id), "logprob": token.logprob, "bytes": list(raw)}


def _chat_logprobs(tokenizer: TextTokenizer, tokens: list[PlacedToken]) -> dict[str, Any]:
    content = [
        {
            **_chat_logprob(tokenizer, token.event.token),
            "top_logprobs": [_chat_logprob(tokenizer, other) for other in token.event.top_tokens],
        }
        for token in tokens
        if token.event.token is not None
    ]
    return {"content": content, "refusal": None}


def _plain_logprobs(tokens: list[PlacedToken]) -> dict[str, Any]:
    scored = [(token.event.token, token) for token in tokens if token.event.token is not None]
    return {
        "tokens": [own.text for own, _ in scored],
        "token_logprobs": [own.logprob for own, _ in scored],
        "top_logprobs": [{one.text: one.logprob for one in token.event.top_tokens} for _, token in scored],
        "text_offset": [token.at for _, token in scored],
    }


class ChatDialect:
    """chat.completion and chat.completion.chunk objects."""

    CHUNK: ClassVar[str] = "chat.completion.chunk"
    WHOLE: ClassVar[str] = "chat.completion"

    def head(self, index: int) -> list[dict[str, Any]]:
        return [_chat_choice(index, {"role": "assistant", "content": ""}, None, None)]

    def delta(self, answer: Answer, index: int, piece: Piece) -> dict[str, Any]:
        logprobs = _chat_logprobs(answer.tokenizer, piece.tokens) if answer.logprobs is not None else None
        return _chat_choice(index, {"content": piece.text}, logprobs, None)

    def tail(self, index: int, finish: FinishReason) -> dict[str, Any]:
        return _chat_choice(index, {}, None, finish_name(finish))

    def whole(self, answer: Answer, index: int, piece: Piece, finish: FinishReason) -> dict[str, Any]:
        logprobs = _chat_logprobs(answer.tokenizer, piece.tokens) if answer.logprobs is not None else None
        message = {"role": "assistant", "content": piece.text}
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish_name(finish)}


def _chat_choice(
    index: int, delta: dict[str, str], logprobs: dict[str, Any] | None, finish: str | None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


class PlainDialect:
    """text_completion objects, whole and as chunks."""

    CHUNK: ClassVar[str] = "text_completion"
    WHOLE: ClassVar[str] = "text_completion"

    def head(self, index: int) -> list[dict[str, Any]]:
        return []

    def delta(self, answer: Answer, index: int, piece: Piece) -> dict[str, Any]:
        logprobs = _plain_logprobs(piece.tokens) if answer.logprobs is not None else None
        return {"index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": None}

    def tail(self, index: int, finish: FinishReason) -> dict[str, Any]:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": finish_name(finish)}

    def whole(self, answer: Answer, index: int, piece: Piece, finish: FinishReason) -> dict[str, Any]:
        logprobs = _plain_logprobs(piece.tokens) if answer.logprobs is not None else None
        return {"index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": finish_name(finish)}
