"""Server-sent events of TGI's `generate_stream`, as far as a measuring client needs them. Pure.

Takes bytes in whatever pieces the network made of them. Knows nothing of HTTP or time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

_MAX_LINE_BYTES = 1 << 20


class FrameError(Exception):
    """The stream is not what TGI sends."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One event: a token, and in the last one how many there were; or an error."""

    is_token: bool
    generated_tokens: int | None  # set in the final frame only
    error: str


class FrameParser:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[Frame]:
        """Frames that are complete after this piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            raise FrameError(f"an event is longer than {_MAX_LINE_BYTES} bytes")
        return [parse_frame(line[5:]) for line in lines if line.startswith(b"data:")]


def parse_frame(data: bytes) -> Frame:
    """Read the JSON after `data:`."""
    try:
        body = json.loads(data)
    except ValueError as error:
        raise FrameError(f"an event is not JSON: {data[:80]!r}") from error
    if not isinstance(body, dict):
        raise FrameError(f"an event is not an object: {data[:80]!r}")
    if "error" in body:
        return Frame(False, None, f"{body.get('error_type', 'error')}: {body['error']}"[:300])
    details = body.get("details") or {}
    return Frame("token" in body, details.get("generated_tokens"), "")
