"""What both API families share over HTTP: reading bodies, SSE frames, error answers by route family."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import pydantic
from aiohttp import web

from inference_pods.engine.errors import DeadlineError, InternalError, RequestError, ValidationError, locate
from inference_pods.engine.request_options import RequestOptions, parse_options
from inference_pods.engine.service import Service
from inference_pods.protocol import HEADER_LEVEL_SERVED

logger = logging.getLogger(__name__)

SERVICE = web.AppKey("service", Service)
MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_CAUSES = 5
Model = TypeVar("Model", bound=pydantic.BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OPENAI_TYPES = {
    400: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


def is_openai_route(request: web.Request) -> bool:
    return request.path.startswith("/v1/")


async def read_body(request: web.Request, model: type[Model]) -> Model:
    """The validated body.

    Raises:
        ValidationError: naming the fields that are wrong.
    """
    raw = await request.read()
    try:
        return model.model_validate_json(raw)
    except pydantic.ValidationError as error:
        raise ValidationError(_explain(error)) from error


def _explain(error: pydantic.ValidationError) -> str:
    """The first wrong fields, each once; values are left out, because they may be prompts."""
    causes: dict[str, None] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        field = ".".join(str(part) for part in item["loc"]) or "body"
        causes[f"`{field}`: {item['msg']}"] = None
    more = f"; and {len(causes) - MAX_CAUSES} more" if len(causes) > MAX_CAUSES else ""
    return "; ".join([*causes][:MAX_CAUSES]) + more


def error_body(error: RequestError, openai: bool) -> dict[str, Any]:
    """The body that this family's clients parse."""
    if not openai:
        return {"error": error.message, "error_type": error.kind}
    kind = _OPENAI_TYPES.get(error.openai_status or error.status, "server_error")
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.openai_code or error.kind}}


def error_response(error: RequestError, openai: bool) -> web.Response:
    headers = {} if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}
    if isinstance(error, DeadlineError):
        headers["x-should-retry"] = "false"
    status = (error.openai_status if openai else None) or error.status
    return web.json_response(error_body(error, openai), status=status, headers=headers)


class _HttpError(RequestError):
    """An error that aiohttp raised, with its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = {404: "not_found", 405: "method_not_allowed", 413: "validation"}.get(status, "validation")


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal is JSON in the dialect of the route's family: the answer, or the last frame of an open stream."""
    try:
        return await handler(request)
    except RequestError as error:
        return await _refuse(request, error)
    except web.HTTPException as error:
        message = f"{request.method} {request.path}: {error.reason}"
        if error.status == 413:
            message = f"the body is larger than {MAX_BODY_BYTES} bytes"
        return await _refuse(request, _HttpError(error.status, message))
    except SlowReaderError:
        return request[_STREAM]  # its connection is closed; raised further, the error would be logged as one of ours
    except ConnectionError:
        raise  # the client is gone: there is nobody to answer
    except Exception as error:  # noqa: BLE001 - a defect, which clients get in the form that they can parse
        logger.error("%s %s failed: %s", request.method, request.path, locate(error))
        return await _refuse(request, InternalError())


async def _refuse(request: web.Request, error: RequestError) -> web.StreamResponse:
    """An answer with the error's status; a stream has a status already, so it ends with the error."""
    openai = is_openai_route(request)
    stream = request.get(_STREAM)
    if stream is None:
        return error_response(error, openai)
    await stream.write(frame(error_body(error, openai)))
    return await end_stream(stream, openai)


class SlowReaderError(ConnectionError):
    """The client left an event of its stream unread for too long; its connection is closed."""


class _EventStream(web.StreamResponse):
    """A 200 answer of SSE frames whose reader must take each within `timeout_seconds`."""

    def __init__(self, request: web.Request, headers: Mapping[str, str], timeout_seconds: float) -> None:
        super().__init__(headers=headers)
        self._request = request
        self._timeout_seconds = timeout_seconds

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """See StreamResponse.write.

        Raises:
            SlowReaderError: the buffers on the way stayed full; an error frame would not arrive either.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await super().write(data)
        except TimeoutError as error:
            logger.warning("%s: a client took nothing for %g s", self._request.path, self._timeout_seconds)
            if self._request.transport is not None:
                self._request.transport.abort()
            raise SlowReaderError("the client reads too slowly") from error


_STREAM = web.RequestKey("stream", web.StreamResponse)
_STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def read_options(request: web.Request) -> RequestOptions:
    """What the headers ask for; read before the body, so that a deadline counts from the arrival.

    A full engine refuses here already: it has no time for bodies that it would not serve.

    Raises:
        UnavailableError: not ready. OverloadedError: no room. HeaderError: naming the header.
    """
    service = request.app[SERVICE]
    service.check_admission()
    return parse_options(request.headers, service.engine.levels)


def served_headers(options: RequestOptions) -> dict[str, str]:
    return {HEADER_LEVEL_SERVED: options.level_name}


async def open_stream(request: web.Request, options: RequestOptions) -> web.StreamResponse:
    """A 200 answer that stays open for SSE frames; what the handler raises from now on becomes its last frame."""
    timeout_seconds = request.app[SERVICE].limits.write_timeout_seconds
    response = _EventStream(request, {**_STREAM_HEADERS, **served_headers(options)}, timeout_seconds)
    await response.prepare(request)
    request[_STREAM] = response
    return response


async def end_stream(stream: web.StreamResponse, openai: bool) -> web.StreamResponse:
    """Says that nothing more comes, as the family does."""
    if openai:
        await stream.write(_DONE_FRAME)
    await stream.write_eof()
    return stream


def frame(payload: dict[str, Any]) -> bytes:
    """One SSE frame: a single `data: ` line and a blank line."""
    return b"data: " + json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


_DONE_FRAME = b"data: [DONE]\n\n"
