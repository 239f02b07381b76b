"""The two error dialects: TGI's and OpenAI's bodies and stream frames, written and read.

Clients crash on the body of the other family, so every error goes out in the dialect of the route it answers. Knows
shapes only; deliberately does not know when something is an error.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from inference_pods.protocol import HEADER_LEVEL, ROUTE_GENERATE, ROUTE_GENERATE_STREAM

_STREAM_WANTED: Final = re.compile(rb'"stream"\s*:\s*true')
_TGI_TYPES: Final = {
    400: "validation",
    404: "not_found",
    413: "validation",
    422: "validation",
    424: "generation",
    429: "overloaded",
    503: "unavailable",
}
_TGI_STATUS: Final = {
    "validation": 422,
    "template_error": 422,
    "tool_error": 422,
    "generation": 424,
    "overloaded": 429,
    "unavailable": 503,
    "incomplete_generation": 500,
    "incomplete_generation_stream": 500,
}
_OPENAI_TYPES: Final = {
    400: ("invalid_request_error", "invalid_request"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "request_too_large"),
    422: ("invalid_request_error", "invalid_request"),
    429: ("rate_limit_error", "overloaded"),
    503: ("service_unavailable_error", "unavailable"),
}


class Dialect(StrEnum):
    TGI = "tgi"
    OPENAI = "openai"


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """An error that an engine sent inside a stream: the status it means, and its JSON body."""

    status: int
    body: bytes


def wants_stream(path: str, body: bytes) -> bool:
    """Whether the answer will come as a stream.

    A search instead of parsing a body of up to 2 MB: inside a JSON string the quotes would be escaped, so text of the
    prompt never matches.
    """
    if path in (ROUTE_GENERATE, ROUTE_GENERATE_STREAM):
        return path == ROUTE_GENERATE_STREAM
    return _STREAM_WANTED.search(body) is not None


def dialect_of(path: str) -> Dialect:
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.TGI


def build_error_body(dialect: Dialect, status: int, message: str) -> bytes:
    """The JSON body of an error answer."""
    if dialect is Dialect.TGI:
        return _dump({"error": message, "error_type": _TGI_TYPES.get(status, "generation")})
    kind, code = _OPENAI_TYPES.get(status, ("server_error", "server_error"))
    return _dump({"error": {"message": message, "type": kind, "param": None, "code": code}})


def build_error_frames(dialect: Dialect, message: str) -> bytes:
    """The last frames of a stream that broke: an error, and [DONE] where clients wait for it."""
    if dialect is Dialect.TGI:
        return b"data: " + _dump({"error": message, "error_type": "incomplete_generation_stream"}) + b"\n\n"
    error = {"message": message, "type": "server_error", "param": None, "code": "incomplete_stream"}
    return b"data: " + _dump({"error": error}) + b"\n\ndata: [DONE]\n\n"


def parse_stream_error(payload: bytes) -> UpstreamError | None:
    """Read the JSON of one `data:` frame: the error that it carries, or None if it is no error.

    TGI names an error_type; OpenAI engines give a code (TGI: http_status_code) as number or text.
    """
    if b'"error"' not in payload:
        return None
    try:
        document = json.loads(payload)
    except ValueError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    if not error:
        return None
    if isinstance(error, dict):
        return UpstreamError(_status_of(error), payload)
    return UpstreamError(_TGI_STATUS.get(str(document.get("error_type")), 500), payload)


def is_level_refusal(status: int, body: bytes, level: str) -> bool:
    """Whether an engine's answer says that it does not have this level: 400, its message beginning as pinned in
    tests/fixtures/contract.json. What a client wrote never stands at the beginning of an engine's message."""
    if status != 400:
        return False
    try:
        document = json.loads(body)
    except ValueError:
        return False
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return isinstance(message, str) and message.startswith(f"header {HEADER_LEVEL}: level {level!r} is not served")


def _status_of(error: dict[str, Any]) -> int:
    for name in ("http_status_code", "code"):
        digits = str(error.get(name, ""))
        if digits.isdigit() and 400 <= int(digits) <= 599:
            return int(digits)
    kinds = {str(error.get("type")), str(error.get("code"))}
    if kinds & {"overloaded", "rate_limit_error", "rate_limit_exceeded"}:
        return 429
    if kinds & {"unavailable", "service_unavailable_error"}:
        return 503
    return 400 if "invalid_request_error" in kinds else 500


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
