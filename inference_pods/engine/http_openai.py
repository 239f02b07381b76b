"""OpenAI's routes: /v1/chat/completions, /v1/completions, /v1/models."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from inference_pods.engine.bodies import ChatBody, CompletionBody, OpenAiBody
from inference_pods.engine.errors import ValidationError
from inference_pods.engine.generation import Generation, build_siblings, rank_by_logprob
from inference_pods.engine.http_common import (
    SERVICE,
    end_stream,
    frame,
    open_stream,
    read_body,
    read_options,
    served_headers,
)
from inference_pods.engine.openai_choice import ChoiceText, show_all
from inference_pods.engine.openai_dialects import Answer, ChatDialect, Dialect, PlainDialect, usage
from inference_pods.engine.request_options import RequestOptions
from inference_pods.engine.sequence import GenerationRequest, SamplingParams
from inference_pods.engine.service import Names, Service
from inference_pods.protocol import ROUTE_CHAT_COMPLETIONS, ROUTE_COMPLETIONS, ROUTE_MODELS

routes = web.RouteTableDef()


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One accepted request: what runs, how it is answered. `shown` of the siblings are choices, the most probable."""

    http: web.Request
    body: OpenAiBody
    options: RequestOptions
    siblings: tuple[GenerationRequest, ...]
    shown: int
    answer: Answer
    dialect: Dialect

    @property
    def service(self) -> Service:
        return self.http.app[SERVICE]


def build_sampling(body: OpenAiBody) -> SamplingParams:
    """OpenAI's defaults: temperature 1 means sampling, 0 means greedy."""
    return SamplingParams(
        do_sample=True,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=body.top_p or 1.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        seed=None if body.seed is None else body.seed % 2**64,
    )


def build_request(
    service: Service,
    body: OpenAiBody,
    options: RequestOptions,
    prompt: list[int],
    max_tokens: int | None,
    top: int,
    names: Names,
) -> GenerationRequest:
    prompt_ids, max_new_tokens = service.fit(prompt, max_tokens, names=names)
    stops = tuple(stop for stop in body.stop_strings if stop)
    return GenerationRequest(
        prompt_ids,
        max_new_tokens,
        build_sampling(body),
        stops,
        top,
        body.ignore_eos,
        options.level,
        options.priority,
        options.deadline_seconds,
        options.speculate,
    )


@routes.post(ROUTE_CHAT_COMPLETIONS)
async def chat_completions(request: web.Request) -> web.StreamResponse:
    service, options = request.app[SERVICE], read_options(request)
    body = await read_body(request, ChatBody)
    service.check_admission()
    prompt = await service.tokenise(service.engine.template.render([m.as_template_input() for m in body.messages]))
    max_tokens = body.max_completion_tokens or body.max_tokens
    names = Names("messages", "max_completion_tokens" if body.max_completion_tokens else "max_tokens")
    generation = build_request(service, body, options, prompt, max_tokens, body.top_logprobs or 0, names)
    answer = _answer(service, "chatcmpl", (body.top_logprobs or 0) if body.logprobs else None)
    count = body.n or 1
    siblings = build_siblings(generation, count)
    return await _respond(_Exchange(request, body, options, siblings, count, answer, ChatDialect()))


@routes.post(ROUTE_COMPLETIONS)
async def completions(request: web.Request) -> web.StreamResponse:
    service, options = request.app[SERVICE], read_options(request)
    body = await read_body(request, CompletionBody)
    service.check_admission()
    prompt = await _completion_prompt(service, body)
    generation = build_request(
        service, body, options, prompt, body.max_tokens, body.logprobs or 0, Names("prompt", "max_tokens")
    )
    answer = _answer(service, "cmpl", body.logprobs)
    siblings = build_siblings(generation, _candidates(body))
    return await _respond(_Exchange(request, body, options, siblings, body.n or 1, answer, PlainDialect()))


def _candidates(body: CompletionBody) -> int:
    """How many runs `best_of` asks for; the `n` most probable become choices.

    Raises:
        ValidationError: fewer candidates than choices, or candidates that a stream would have to take back.
    """
    shown = body.n or 1
    count = body.best_of or shown
    if count < shown:
        raise ValidationError(f"`best_of` {count} is below `n` {shown}: raise it")
    if count > shown and body.stream:
        raise ValidationError("`best_of` above `n` is not supported when streaming: leave it out")
    return count


async def _completion_prompt(service: Service, body: CompletionBody) -> list[int]:
    """Token ids as given, or the tokenised text."""
    if isinstance(body.prompt, str):
        return await service.tokenise(body.prompt, add_special_tokens=True)
    first = body.prompt[0]
    if isinstance(first, str):
        return await service.tokenise(first, add_special_tokens=True)
    vocabulary = service.engine.tokenizer.vocabulary_size
    ids = [token for token in body.prompt if isinstance(token, int)]
    if any(not 0 <= token < vocabulary for token in ids):
        raise ValidationError(f"`prompt`: token ids must be between 0 and {vocabulary - 1}")
    return ids


def _answer(service: Service, prefix: str, logprobs: int | None) -> Answer:
    tokenizer = service.engine.tokenizer
    return Answer(f"{prefix}-{uuid.uuid4().hex}", service.model_name, int(time.time()), logprobs, tokenizer)


async def _respond(exchange: _Exchange) -> web.StreamResponse:
    if exchange.body.stream:
        return await _stream(exchange)
    completions = await exchange.service.complete(*exchange.siblings, name=exchange.options.request_name)
    if exchange.shown < len(completions):
        completions = rank_by_logprob(completions)
    choices = []
    for index, completion in enumerate(completions[: exchange.shown]):
        piece = show_all(completion.request.stop_strings, completion.events)
        choices.append(exchange.dialect.whole(exchange.answer, index, piece, completion.finish))
    whole = exchange.answer.wrap(exchange.dialect.WHOLE, choices)
    generated = sum(completion.generated_tokens for completion in completions)
    counts = usage(completions[0].prompt_tokens, generated)
    return web.json_response({**whole, "usage": counts}, headers=served_headers(exchange.options))


async def _stream(exchange: _Exchange) -> web.StreamResponse:
    """Refusals have a status of their own; a failure after that becomes an error frame, then [DONE]."""
    with exchange.service.start(*exchange.siblings, name=exchange.options.request_name) as running:
        stream = await open_stream(exchange.http, exchange.options)
        async for payload in _payloads(exchange, running):
            await stream.write(frame(payload))
    return await end_stream(stream, openai=True)


async def _payloads(exchange: _Exchange, running: Generation) -> AsyncIterator[dict[str, Any]]:
    """Chunk objects in the order of the stream; chunks of several choices interleave."""
    answer, dialect = exchange.answer, exchange.dialect
    choices = [ChoiceText(request.stop_strings) for request in exchange.siblings]
    for index in range(len(choices)):
        for head in dialect.head(index):
            yield answer.wrap(dialect.CHUNK, [head])
    async for index, event in running:
        piece = choices[index].push(event)
        if piece.text or (piece.tokens and answer.logprobs is not None):
            yield answer.wrap(dialect.CHUNK, [dialect.delta(answer, index, piece)])
        if event.finish is not None:
            yield answer.wrap(dialect.CHUNK, [dialect.tail(index, event.finish)])
    options = exchange.body.stream_options
    if options is not None and options.include_usage:
        generated = sum(choice.tokens for choice in choices)
        counts = usage(len(exchange.siblings[0].prompt_ids), generated)
        yield {**answer.wrap(dialect.CHUNK, []), "usage": counts}


@routes.get(ROUTE_MODELS)
async def models(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    entry = {"id": service.model_name, "object": "model", "created": service.created, "owned_by": "adaptive-llm"}
    return web.json_response({"object": "list", "data": [entry]})
