"""TGI's routes: POST / (what its clients call), /generate, /generate_stream, /tokenize; GET /info."""

from __future__ import annotations

import secrets
import time
from typing import Any

from aiohttp import web

from inference_pods.engine.bodies import (
    MAX_SIBLINGS,
    MAX_STOP_SEQUENCES,
    GenerateBody,
    GenerateParameters,
    RootBody,
    TokenizeBody,
)
from inference_pods.engine.errors import ValidationError
from inference_pods.engine.generation import Completion, build_siblings, join_text, rank_by_logprob
from inference_pods.engine.http_common import (
    SERVICE,
    end_stream,
    frame,
    open_stream,
    read_body,
    read_options,
    served_headers,
)
from inference_pods.engine.request_options import RequestOptions
from inference_pods.engine.sequence import GenerationRequest, SamplingParams, ScoredToken, TokenEvent
from inference_pods.engine.service import Service
from inference_pods.protocol import ROUTE_GENERATE, ROUTE_GENERATE_STREAM, ROUTE_INFO, ROUTE_ROOT, ROUTE_TOKENIZE

routes = web.RouteTableDef()


def build_sampling(parameters: GenerateParameters) -> SamplingParams:
    """A missing seed is drawn here, because the details report it."""
    return SamplingParams(
        do_sample=parameters.do_sample,
        temperature=parameters.temperature or 1.0,
        top_k=parameters.top_k or 0,
        top_p=parameters.top_p or 1.0,
        typical_p=parameters.typical_p or 1.0,
        repetition_penalty=parameters.repetition_penalty or 1.0,
        frequency_penalty=parameters.frequency_penalty or 0.0,
        seed=secrets.randbits(63) if parameters.seed is None else parameters.seed,
    )


async def build_request(service: Service, body: GenerateBody, options: RequestOptions) -> GenerationRequest:
    parameters = body.parameters
    prompt = await service.tokenise(body.inputs, add_special_tokens=True)
    prompt_ids, max_new_tokens = service.fit(prompt, parameters.max_new_tokens, parameters.truncate)
    return GenerationRequest(
        prompt_ids,
        max_new_tokens,
        build_sampling(parameters),
        tuple(stop for stop in parameters.stop if stop),
        parameters.top_n_tokens or 0,
        parameters.ignore_eos,
        options.level,
        options.priority,
        options.deadline_seconds,
        options.speculate,
    )


def check_best_of(parameters: GenerateParameters, sampling: SamplingParams, stream: bool) -> int:
    """How many candidates to run. The words are TGI's.

    Raises:
        ValidationError: best_of without sampling, with a seed, or in a stream.
    """
    count = parameters.best_of or 1
    if count == 1:
        return 1
    if stream:
        raise ValidationError("`best_of` != 1 is not supported when streaming tokens")
    if not sampling.needs_sampling:
        raise ValidationError("you must use sampling when `best_of` is > 1")
    if parameters.seed is not None:
        raise ValidationError("`seed` must not be set when `best_of` > 1")
    return count


def token_body(token: ScoredToken) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


def _reported_seed(request: GenerationRequest) -> int | None:
    return request.sampling.seed if request.sampling.needs_sampling else None


def _details(completion: Completion) -> dict[str, Any]:
    details: dict[str, Any] = {
        "finish_reason": completion.finish,
        "generated_tokens": completion.generated_tokens,
        "seed": _reported_seed(completion.request),
        "prefill": [],
        "tokens": [token_body(event.token) for event in completion.events if event.token],
    }
    if completion.request.top_n_tokens:
        details["top_tokens"] = [[token_body(token) for token in event.top_tokens] for event in completion.events]
    return details


def _timing_headers(completions: list[Completion], started: float) -> dict[str, str]:
    total = time.monotonic() - started
    queued = completions[0].events[0].queue_seconds
    return {
        "x-total-time": str(round(total * 1000)),
        "x-queue-time": str(round(queued * 1000)),
        "x-inference-time": str(round((total - queued) * 1000)),
        "x-prompt-tokens": str(completions[0].prompt_tokens),
        "x-generated-tokens": str(sum(completion.generated_tokens for completion in completions)),
    }


async def _generate(
    service: Service, body: GenerateBody, options: RequestOptions
) -> tuple[dict[str, Any], dict[str, str]]:
    started = time.monotonic()
    service.check_admission()
    request = await build_request(service, body, options)
    count = check_best_of(body.parameters, request.sampling, stream=False)
    best, *others = rank_by_logprob(await service.complete(*build_siblings(request, count), name=options.request_name))
    prefix = body.inputs if body.parameters.return_full_text else ""
    answer: dict[str, Any] = {"generated_text": prefix + best.text}
    if body.parameters.details:
        answer["details"] = _details(best)
        if others:
            sequences = [{"generated_text": prefix + other.text, **_details(other)} for other in others]
            answer["details"]["best_of_sequences"] = sequences
    return answer, {**_timing_headers([best, *others], started), **served_headers(options)}


@routes.post(ROUTE_GENERATE)
async def generate(request: web.Request) -> web.Response:
    options = read_options(request)
    answer, headers = await _generate(request.app[SERVICE], await read_body(request, GenerateBody), options)
    return web.json_response(answer, headers=headers)


@routes.post(ROUTE_GENERATE_STREAM)
async def generate_stream(request: web.Request) -> web.StreamResponse:
    return await _stream(request, read_options(request))


@routes.post(ROUTE_ROOT)
async def root(request: web.Request) -> web.StreamResponse:
    """Streams or answers a list of one; the prompt is part of the text unless the client says no."""
    options = read_options(request)
    body = await read_body(request, RootBody)
    if body.parameters.return_full_text is None:
        body.parameters.return_full_text = True
    if body.stream:
        return await _stream(request, options, body)
    answer, headers = await _generate(request.app[SERVICE], body, options)
    return web.json_response([answer], headers=headers)


async def _stream(
    request: web.Request, options: RequestOptions, body: GenerateBody | None = None
) -> web.StreamResponse:
    """TGI answers 200 and tells in the first frame what is wrong with a request.

    What another replica or a later time may serve (429, 503) has its own status instead, as bad headers have (400).
    """
    service = request.app[SERVICE]
    try:
        body = body or await read_body(request, GenerateBody)
        service.check_admission()
        generation_request = await build_request(service, body, options)
        check_best_of(body.parameters, generation_request.sampling, stream=True)
    except ValidationError:
        await open_stream(request, options)
        raise
    events: list[TokenEvent] = []
    with service.start(generation_request, name=options.request_name) as generation:
        stream = await open_stream(request, options)
        async for _, event in generation:
            events.append(event)
            await stream.write(frame(_frame_body(events, generation_request, body)))
    return await end_stream(stream, openai=False)


def _frame_body(events: list[TokenEvent], request: GenerationRequest, body: GenerateBody) -> dict[str, Any]:
    event = events[-1]
    payload: dict[str, Any] = {
        "index": len(events),
        "token": event.token and token_body(event.token),
        "generated_text": None,
        "details": None,
    }
    if request.top_n_tokens:
        payload["top_tokens"] = [token_body(token) for token in event.top_tokens]
    if event.finish is not None:
        payload["generated_text"] = (body.inputs if body.parameters.return_full_text else "") + join_text(events)
        payload["details"] = {
            "finish_reason": event.finish,
            "generated_tokens": len(events),
            "seed": _reported_seed(request),
            "input_length": len(request.prompt_ids),
        }
    return payload


@routes.post(ROUTE_TOKENIZE)
async def tokenize(request: web.Request) -> web.Response:
    body = await read_body(request, TokenizeBody)
    pieces = await request.app[SERVICE].tokenise_pieces(body.inputs)
    return web.json_response([{"id": p.id, "text": p.text, "start": p.start, "stop": p.stop} for p in pieces])


@routes.get(ROUTE_INFO)
async def info(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    limits = service.limits
    return web.json_response(
        {
            **service.engine.description,
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": limits.max_batch_size + limits.max_waiting,
            "max_best_of": MAX_SIBLINGS,
            "max_stop_sequences": MAX_STOP_SEQUENCES,
            "max_input_tokens": limits.max_input_tokens,
            "max_total_tokens": limits.max_total_tokens,
            "validation_workers": 1,
            "max_client_batch_size": 1,
            "router": "adaptive-llm-engine",
        }
    )
