"""TGI's routes: POST / (what its clients call), /generate, /generate_stream, /tokenize; GET /info."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from inference_pods.engine.bodies import MAX_STOP_SEQUENCES, GenerateBody, GenerateParameters, RootBody, TokenizeBody
from inference_pods.engine.errors import RequestError
from inference_pods.engine.http_common import SERVICE, error_body, frame, open_stream, read_body
from inference_pods.engine.sequence import GenerationRequest, SamplingParams, ScoredToken, TokenEvent
from inference_pods.engine.service import Completion, Service, join_text
from inference_pods.protocol import ROUTE_GENERATE, ROUTE_GENERATE_STREAM, ROUTE_INFO, ROUTE_ROOT, ROUTE_TOKENIZE

routes = web.RouteTableDef()


def build_sampling(parameters: GenerateParameters) -> SamplingParams:
    return SamplingParams(
        do_sample=parameters.do_sample,
        temperature=parameters.temperature or 1.0,
        top_k=parameters.top_k or 0,
        top_p=parameters.top_p or 1.0,
        typical_p=parameters.typical_p or 1.0,
        repetition_penalty=parameters.repetition_penalty or 1.0,
        frequency_penalty=parameters.frequency_penalty or 0.0,
        seed=parameters.seed,
    )


async def build_request(service: Service, body: GenerateBody) -> GenerationRequest:
    parameters = body.parameters
    prompt = await service.tokenise(body.inputs)
    prompt_ids, max_new_tokens = service.fit(prompt, parameters.max_new_tokens, parameters.truncate)
    return GenerationRequest(
        prompt_ids,
        max_new_tokens,
        build_sampling(parameters),
        tuple(stop for stop in parameters.stop if stop),
        parameters.top_n_tokens or 0,
        parameters.ignore_eos,
    )


def token_body(token: ScoredToken) -> dict[str, Any]:
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


def _details(completion: Completion, request: GenerationRequest) -> dict[str, Any]:
    details: dict[str, Any] = {
        "finish_reason": completion.finish,
        "generated_tokens": completion.generated_tokens,
        "seed": request.sampling.seed,
        "prefill": [],
        "tokens": [token_body(event.token) for event in completion.events if event.token],
    }
    if request.top_n_tokens:
        details["top_tokens"] = [[token_body(token) for token in event.top_tokens] for event in completion.events]
    return details


def _timing_headers(completion: Completion, started: float) -> dict[str, str]:
    total = time.monotonic() - started
    queued = completion.events[0].queue_seconds
    return {
        "x-total-time": str(round(total * 1000)),
        "x-queue-time": str(round(queued * 1000)),
        "x-inference-time": str(round((total - queued) * 1000)),
        "x-prompt-tokens": str(completion.prompt_tokens),
        "x-generated-tokens": str(completion.generated_tokens),
    }


async def _generate(service: Service, body: GenerateBody) -> tuple[dict[str, Any], dict[str, str]]:
    started = time.monotonic()
    service.check_admission()
    request = await build_request(service, body)
    completion = await service.complete(request)
    prefix = body.inputs if body.parameters.return_full_text else ""
    answer: dict[str, Any] = {"generated_text": prefix + completion.text}
    if body.parameters.details:
        answer["details"] = _details(completion, request)
    return answer, _timing_headers(completion, started)


@routes.post(ROUTE_GENERATE)
async def generate(request: web.Request) -> web.Response:
    answer, headers = await _generate(request.app[SERVICE], await read_body(request, GenerateBody))
    return web.json_response(answer, headers=headers)


@routes.post(ROUTE_GENERATE_STREAM)
async def generate_stream(request: web.Request) -> web.StreamResponse:
    return await _stream(request)


@routes.post(ROUTE_ROOT)
async def root(request: web.Request) -> web.StreamResponse:
    """Streams or answers a list of one; the prompt is part of the text unless the client says no."""
    body = await read_body(request, RootBody)
    if body.parameters.return_full_text is None:
        body.parameters.return_full_text = True
    if body.stream:
        return await _stream(request, body)
    answer, headers = await _generate(request.app[SERVICE], body)
    return web.json_response([answer], headers=headers)


async def _stream(request: web.Request, body: GenerateBody | None = None) -> web.StreamResponse:
    """TGI answers 200 and sends refusals as the first frame; only a replica that can't serve at all says 503."""
    service = request.app[SERVICE]
    service.check_phase()
    try:
        body = body or await read_body(request, GenerateBody)
        service.check_admission()
        generation_request = await build_request(service, body)
    except RequestError as error:
        return await _end_stream(await open_stream(request), error)
    response = await open_stream(request)
    try:
        await _stream_tokens(response, service, generation_request, body)
    except RequestError as error:
        return await _end_stream(response, error)
    await response.write_eof()
    return response


async def _end_stream(response: web.StreamResponse, error: RequestError) -> web.StreamResponse:
    await response.write(frame(error_body(error, openai=False)))
    await response.write_eof()
    return response


async def _stream_tokens(
    response: web.StreamResponse, service: Service, request: GenerationRequest, body: GenerateBody
) -> None:
    events: list[TokenEvent] = []
    with service.start(request) as generation:
        async for event in generation:
            events.append(event)
            await response.write(frame(_frame_body(events, request, body)))


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
            "seed": request.sampling.seed,
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
            "max_best_of": 1,
            "max_stop_sequences": MAX_STOP_SEQUENCES,
            "max_input_tokens": limits.max_input_tokens,
            "max_total_tokens": limits.max_total_tokens,
            "validation_workers": 1,
            "max_client_batch_size": 1,
            "router": "adaptive-llm-engine",
        }
    )
