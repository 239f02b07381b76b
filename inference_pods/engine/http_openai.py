"""OpenAI's routes: /v1/chat/completions, /v1/completions, /v1/models."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from aiohttp import web

from inference_pods.engine.bodies import ChatBody, CompletionBody, OpenAiBody
from inference_pods.engine.errors import RequestError, ValidationError
from inference_pods.engine.http_common import DONE_FRAME, SERVICE, error_body, frame, open_stream, read_body
from inference_pods.engine.sequence import FinishReason, GenerationRequest, SamplingParams, ScoredToken, TokenEvent
from inference_pods.engine.service import Completion, Service
from inference_pods.engine.stop_cutter import StopCutter
from inference_pods.protocol import ROUTE_CHAT_COMPLETIONS, ROUTE_COMPLETIONS, ROUTE_MODELS

routes = web.RouteTableDef()


class Dialect(Protocol):
    """How one route wraps text: chat messages or plain completions."""

    KIND: ClassVar[str]

    def head(self, answer: Answer) -> list[dict[str, Any]]: ...

    def delta(self, answer: Answer, text: str, event: TokenEvent) -> dict[str, Any]: ...

    def tail(self, answer: Answer, finish: FinishReason) -> list[dict[str, Any]]: ...

    def whole(self, answer: Answer, text: str, completion: Completion) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """The fields that all of an answer's objects share, and what the client asked to see."""

    id: str
    model: str
    created: int
    body: OpenAiBody
    logprobs: int | None

    def wrap(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def finish_name(finish: FinishReason) -> str:
    return "length" if finish is FinishReason.LENGTH else "stop"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def _chat_logprob(token: ScoredToken) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.text.encode())}


def _chat_logprobs(events: list[TokenEvent]) -> dict[str, Any]:
    content = [
        {**_chat_logprob(event.token), "top_logprobs": [_chat_logprob(t) for t in event.top_tokens]}
        for event in events
        if event.token is not None
    ]
    return {"content": content, "refusal": None}


def _plain_logprobs(events: list[TokenEvent], offset: int = 0) -> dict[str, Any]:
    tokens = [event.token for event in events if event.token is not None]
    offsets, at = [], offset
    for token in tokens:
        offsets.append(at)
        at += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{t.text: t.logprob for t in event.top_tokens} for event in events],
        "text_offset": offsets,
    }


class ChatDialect:
    """chat.completion and chat.completion.chunk objects."""

    KIND: ClassVar[str] = "chat.completion.chunk"

    def head(self, answer: Answer) -> list[dict[str, Any]]:
        return [self._chunk(answer, {"role": "assistant", "content": ""}, None)]

    def delta(self, answer: Answer, text: str, event: TokenEvent) -> dict[str, Any]:
        return self._chunk(answer, {"content": text}, None, event)

    def tail(self, answer: Answer, finish: FinishReason) -> list[dict[str, Any]]:
        return [self._chunk(answer, {}, finish_name(finish))]

    def _chunk(
        self, answer: Answer, delta: dict[str, str], finish: str | None, event: TokenEvent | None = None
    ) -> dict[str, Any]:
        logprobs = _chat_logprobs([event]) if event is not None and answer.logprobs is not None else None
        return answer.wrap(self.KIND, [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}])

    def whole(self, answer: Answer, text: str, completion: Completion) -> dict[str, Any]:
        logprobs = _chat_logprobs(completion.events) if answer.logprobs is not None else None
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_name(completion.finish)}
        return answer.wrap("chat.completion", [choice])


class PlainDialect:
    """text_completion objects, whole and as chunks."""

    KIND: ClassVar[str] = "text_completion"

    def head(self, answer: Answer) -> list[dict[str, Any]]:
        return []

    def delta(self, answer: Answer, text: str, event: TokenEvent) -> dict[str, Any]:
        logprobs = _plain_logprobs([event]) if answer.logprobs is not None else None
        return answer.wrap(self.KIND, [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": None}])

    def tail(self, answer: Answer, finish: FinishReason) -> list[dict[str, Any]]:
        return [
            answer.wrap(self.KIND, [{"index": 0, "text": "", "logprobs": None, "finish_reason": finish_name(finish)}])
        ]

    def whole(self, answer: Answer, text: str, completion: Completion) -> dict[str, Any]:
        logprobs = _plain_logprobs(completion.events) if answer.logprobs is not None else None
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish_name(completion.finish)}
        return answer.wrap(self.KIND, [choice])


def build_sampling(body: OpenAiBody) -> SamplingParams:
    """OpenAI's defaults: temperature 1 means sampling, 0 means greedy."""
    temperature = 1.0 if body.temperature is None else body.temperature
    return SamplingParams(
        do_sample=temperature > 0.0,
        temperature=temperature or 1.0,
        top_p=1.0 if temperature == 0.0 else body.top_p or 1.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        seed=None if body.seed is None else body.seed % 2**64,
    )


def build_request(
    service: Service, body: OpenAiBody, prompt: list[int], max_tokens: int | None, top: int
) -> GenerationRequest:
    prompt_ids, max_new_tokens = service.fit(prompt, max_tokens)
    stops = tuple(stop for stop in body.stop_strings if stop)
    return GenerationRequest(prompt_ids, max_new_tokens, build_sampling(body), stops, top, body.ignore_eos)


@routes.post(ROUTE_CHAT_COMPLETIONS)
async def chat_completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    service.check_phase()
    body = await read_body(request, ChatBody)
    service.check_admission()
    prompt = await service.tokenise(service.engine.template.render([m.as_template_input() for m in body.messages]))
    max_tokens = body.max_completion_tokens or body.max_tokens
    generation = build_request(service, body, prompt, max_tokens, body.top_logprobs or 0)
    answer = _answer(service, body, "chatcmpl", (body.top_logprobs or 0) if body.logprobs else None)
    return await _respond(request, generation, answer, ChatDialect())


@routes.post(ROUTE_COMPLETIONS)
async def completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    service.check_phase()
    body = await read_body(request, CompletionBody)
    service.check_admission()
    prompt = await _completion_prompt(service, body)
    generation = build_request(service, body, prompt, body.max_tokens, body.logprobs or 0)
    return await _respond(request, generation, _answer(service, body, "cmpl", body.logprobs), PlainDialect())


async def _completion_prompt(service: Service, body: CompletionBody) -> list[int]:
    """Token ids as given, or the tokenised text."""
    if isinstance(body.prompt, str):
        return await service.tokenise(body.prompt)
    first = body.prompt[0]
    if isinstance(first, str):
        return await service.tokenise(first)
    vocabulary = service.engine.tokenizer.vocabulary_size
    ids = [token for token in body.prompt if isinstance(token, int)]
    if any(not 0 <= token < vocabulary for token in ids):
        raise ValidationError(f"`prompt`: token ids must be between 0 and {vocabulary - 1}")
    return ids


def _answer(service: Service, body: OpenAiBody, prefix: str, logprobs: int | None) -> Answer:
    return Answer(f"{prefix}-{uuid.uuid4().hex}", service.model_name, int(time.time()), body, logprobs)


async def _respond(
    request: web.Request, generation: GenerationRequest, answer: Answer, dialect: Dialect
) -> web.StreamResponse:
    service = request.app[SERVICE]
    if answer.body.stream:
        return await _stream(request, service, generation, answer, dialect)
    completion = await service.complete(generation)
    cutter = StopCutter(generation.stop_strings)
    text = cutter.push(completion.text) + cutter.finish()
    whole = dialect.whole(answer, text, completion)
    return web.json_response({**whole, "usage": usage(completion.prompt_tokens, completion.generated_tokens)})


async def _stream(
    request: web.Request, service: Service, generation: GenerationRequest, answer: Answer, dialect: Dialect
) -> web.StreamResponse:
    """Refusals have a status of their own; a failure after the first frame becomes an error frame, then [DONE]."""
    with service.start(generation) as running:
        response = await open_stream(request)
        try:
            for chunk in dialect.head(answer):
                await response.write(frame(chunk))
            async for payload in _chunks(aiter(running), generation, answer, dialect):
                await response.write(frame(payload))
        except RequestError as error:
            await response.write(frame(error_body(error, openai=True)))
    await response.write(DONE_FRAME)
    await response.write_eof()
    return response


async def _chunks(
    events: AsyncIterator[TokenEvent], generation: GenerationRequest, answer: Answer, dialect: Dialect
) -> AsyncIterator[dict[str, Any]]:
    cutter = StopCutter(generation.stop_strings)
    count = 0
    async for event in events:
        count += 1
        text = cutter.push("" if event.token is None or event.token.special else event.token.text)
        if event.finish is not None:
            text += cutter.finish()
        if text or answer.logprobs is not None:
            yield dialect.delta(answer, text, event)
        if event.finish is not None:
            for chunk in dialect.tail(answer, event.finish):
                yield chunk
    if answer.body.stream_options is not None and answer.body.stream_options.include_usage:
        yield {**answer.wrap(dialect.KIND, []), "usage": usage(len(generation.prompt_ids), count)}


@routes.get(ROUTE_MODELS)
async def models(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    entry = {"id": service.model_name, "object": "model", "created": service.created, "owned_by": "adaptive-llm"}
    return web.json_response({"object": "list", "data": [entry]})
