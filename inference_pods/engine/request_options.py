"""What a client may say in headers: level, priority, deadline, no drafts. Parses and refuses, decides nothing.

x-level: name of a level that this replica serves; absent or empty means its first one.
x-request-id: what the request is called while it runs (see http_control.py); of several with one name all are meant.
x-priority: an integer, lower goes first, default 0.
x-speculate: off exempts the request from speculative decoding, where the replica does that; its answer is the same.
x-deadline-ms: whole milliseconds from now until the answer must be complete. A request whose time is over leaves the
batch and is answered in a way that its family's clients do not repeat by themselves: TGI's get 424 `generation`
(GenerationError in huggingface_hub), OpenAI's 504 `deadline_exceeded` with `x-should-retry: false` (otherwise the SDK
would repeat 408 and 5xx); a stream that has begun ends with an error frame.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inference_pods.engine.errors import HeaderError
from inference_pods.protocol import (
    HEADER_DEADLINE_MS,
    HEADER_LEVEL,
    HEADER_PRIORITY,
    HEADER_REQUEST_ID,
    HEADER_SPECULATE,
)

_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Parsed headers; `deadline_seconds` is on the monotonic clock. `request_name`: empty if it has none."""

    level: int
    level_name: str
    priority: int
    deadline_seconds: float | None
    request_name: str = ""
    speculate: bool = True


def parse_options(
    headers: Mapping[str, str], levels: Sequence[str], clock: Callable[[], float] = time.monotonic
) -> RequestOptions:
    """Options of one request; `levels` are the names that are served, the first is the default.

    Raises:
        HeaderError: naming the header, and for a level those that are there.
    """
    name = headers.get(HEADER_LEVEL, "").strip() or levels[0]
    if name not in levels:
        raise HeaderError(f"header {HEADER_LEVEL}: level {name[:64]!r} is not served here; use {' or '.join(levels)}")
    milliseconds = _integer(headers, HEADER_DEADLINE_MS)
    if milliseconds is not None and milliseconds <= 0:
        raise HeaderError(f"header {HEADER_DEADLINE_MS}: {milliseconds} is not above 0; give milliseconds from now")
    deadline = None if milliseconds is None else clock() + milliseconds / 1000
    return RequestOptions(
        levels.index(name),
        name,
        _integer(headers, HEADER_PRIORITY) or 0,
        deadline,
        headers.get(HEADER_REQUEST_ID, ""),
        _may_speculate(headers),
    )


def _may_speculate(headers: Mapping[str, str]) -> bool:
    text = headers.get(HEADER_SPECULATE)
    if text is not None and text.strip() != "off":
        raise HeaderError(f"header {HEADER_SPECULATE}: {text[:64]!r} is not off; use off, or leave the header out")
    return text is None


def _integer(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text.strip()):
        raise HeaderError(f"header {name}: {text[:64]!r} is not an integer of up to nine digits")
    return int(text)
