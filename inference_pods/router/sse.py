"""Server-sent events read beside the stream: frame borders, the first and the last frame, token counts.

Bytes pass unmodified; only a frame that is not complete yet is held back (no client can use half a frame), so that a
stream that breaks can be ended with a well-formed error frame. JSON is parsed for the first and the last frame only:
per token, a few byte searches. Deliberately does not know sockets.
"""

from __future__ import annotations

import json
from typing import Any, Final

from inference_pods.router.dialect import Dialect, UpstreamError, parse_stream_error

MAX_HELD_BYTES: Final = 1 << 20  # a frame beyond this is passed on as it comes
_DONE: Final = b"[DONE]"


class FrameWatch:
    """Follows one stream. Feed chunks, forward what comes back, ask at the end whether it was complete."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._held = b""
        self._last_data = b""
        self._done = False
        self.data_frames = 0
        self.first_data = b""
        self.error: UpstreamError | None = None

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk of any size; returns the bytes that complete frames, unmodified."""
        buffered = self._held + chunk if self._held else chunk
        end = _end_of_last_frame(buffered)
        if end == 0 and len(buffered) > MAX_HELD_BYTES:
            end = len(buffered)
        complete, self._held = buffered[:end], buffered[end:]
        if complete:
            self._scan(complete)
        return complete

    def finish(self) -> bytes:
        """At a clean end of the upstream: a last frame without its blank line still counts; returns it, closed."""
        rest, self._held = self._held.rstrip(b"\r\n"), b""
        if not rest:
            return b""
        self._scan(rest)
        return rest + b"\n\n" if self.is_complete() else b""

    def has_token(self) -> bool:
        """Whether an output token has come. An engine may name the role of a chat answer while the request still
        waits: that frame says nothing of its queue."""
        return self.data_frames > 1 or (self.data_frames == 1 and not _is_role_only(self.first_data))

    def is_complete(self) -> bool:
        """Whether the stream has had its final frame (an error frame of the engine is one too)."""
        if self.error is not None:
            return True
        return self._done if self._dialect is Dialect.OPENAI else self._final_tgi_frame() is not None

    def token_count(self) -> int:
        """Generated tokens: as the engine reports them, else the frames that carried text. 0 = none seen."""
        if self._dialect is Dialect.TGI:
            details = (self._final_tgi_frame() or {}).get("details")
            count = details.get("generated_tokens") if isinstance(details, dict) else None
            return count if isinstance(count, int) else self.data_frames
        usage = _parse(self._last_data).get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            return int(usage["completion_tokens"])
        # Without usage: the closing chunk has no text, nor has a first chunk that only names the role.
        return max(self.data_frames - 1 - _is_role_only(self.first_data), 0)

    def _final_tgi_frame(self) -> dict[str, Any] | None:
        frame = _parse(self._last_data)
        return frame if isinstance(frame.get("generated_text"), str) else None

    def _scan(self, frames: bytes) -> None:
        for line in frames.splitlines():
            if line.startswith(b"data:"):
                self._note(line[5:].strip())

    def _note(self, payload: bytes) -> None:
        if payload == _DONE:
            self._done = True
            return
        self.data_frames += 1
        self._last_data = payload
        if not self.first_data:
            self.first_data = payload
        if b'"error"' in payload:
            self.error = parse_stream_error(payload) or self.error


def _end_of_last_frame(buffer: bytes) -> int:
    """Length of the prefix that consists of complete frames (ended by a blank line, LF or CRLF)."""
    if buffer.endswith(b"\n\n"):
        return len(buffer)
    line_feed, carriage = buffer.rfind(b"\n\n"), buffer.rfind(b"\r\n\r\n")
    return max(line_feed + 2 if line_feed >= 0 else 0, carriage + 4 if carriage >= 0 else 0)


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        document = json.loads(payload)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _is_role_only(payload: bytes) -> bool:
    choices = _parse(payload).get("choices")
    delta = choices[0].get("delta") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    return isinstance(delta, dict) and not delta.get("content")
