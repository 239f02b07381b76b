"""One streamed TGI request over a pooled aiohttp session, measured.

Not huggingface_hub, though that is the maintained TGI client: its streams do not expose response headers, so
`x-tier-served` would be lost, and it costs four times the CPU per call, which on a small machine is CPU that the
engines need. huggingface_hub is used where the question is whether TGI clients work (`probe.py`).
Knows nothing of schedules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from e2e.load.frames import FrameError, FrameParser
from e2e.load.record import RequestRecord

GENERATE_STREAM = "/generate_stream"
_MAX_ERROR_CHARS = 300


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to ask for."""

    text: str
    output_tokens: int
    tier: str = ""  # x-tier pin


@dataclass(frozen=True, slots=True)
class Due:
    """Which request this is and when it should have left."""

    index: int
    step: int
    at: float


@dataclass(slots=True)
class _Progress:
    """What has arrived so far."""

    status: int | None = None
    tier: str = ""
    quality_permille: int | None = None
    reason: str = ""
    tokens: int = 0
    first_token_at: float | None = None
    last_token_at: float | None = None
    generated_tokens: int | None = None
    parser: FrameParser = field(default_factory=FrameParser)


class _RequestFailedError(Exception):
    """The answer is not a complete success."""


class StreamClient:
    """Sends requests to one endpoint. `now` gives seconds since the start of the run."""

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, now: Callable[[], float], timeout_seconds: float
    ) -> None:
        self._session = session
        self._url = base_url.rstrip("/") + GENERATE_STREAM
        self._now = now
        self._timeout_seconds = timeout_seconds

    async def send(self, prompt: Prompt, due: Due) -> RequestRecord:
        """Send once, read to the end, never raise for what the other side did."""
        sent_at = self._now()
        seen = _Progress()
        error = ""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._exchange(prompt, seen)
        except TimeoutError:
            error = f"no complete answer within {self._timeout_seconds:g} s"
        except (_RequestFailedError, FrameError) as failure:
            error = str(failure)
        except (aiohttp.ClientError, OSError) as failure:
            error = f"{type(failure).__name__}: {failure}"
        return RequestRecord(
            index=due.index,
            step=due.step,
            due_at=due.at,
            sent_at=sent_at,
            ended_at=self._now(),
            first_token_at=seen.first_token_at,
            last_token_at=seen.last_token_at,
            status=seen.status,
            tier_asked=prompt.tier,
            tier_served=seen.tier,
            quality_permille=seen.quality_permille,
            route_reason=seen.reason,
            tokens=seen.tokens,
            error=error[:_MAX_ERROR_CHARS],
        )

    async def _exchange(self, prompt: Prompt, seen: _Progress) -> None:
        body = {"inputs": prompt.text, "parameters": {"max_new_tokens": prompt.output_tokens, "details": True}}
        headers = {"x-tier": prompt.tier} if prompt.tier else {}
        async with self._session.post(self._url, json=body, headers=headers) as response:
            _note_headers(response, seen)
            if response.status != 200:
                raise _RequestFailedError(f"HTTP {response.status}: {(await response.text())[:200]}")
            async for piece in response.content.iter_any():
                self._note_piece(piece, seen)
        _require_complete(seen)

    def _note_piece(self, piece: bytes, seen: _Progress) -> None:
        for frame in seen.parser.feed(piece):
            if frame.error:
                raise _RequestFailedError(f"error in the stream: {frame.error}")
            if frame.is_token:
                seen.tokens += 1
                seen.last_token_at = self._now()
                seen.first_token_at = seen.first_token_at or seen.last_token_at
            if frame.generated_tokens is not None:
                seen.generated_tokens = frame.generated_tokens


def _note_headers(response: aiohttp.ClientResponse, seen: _Progress) -> None:
    seen.status = response.status
    seen.tier = response.headers.get("x-tier-served", "")
    seen.reason = response.headers.get("x-route-reason", "")
    quality = response.headers.get("x-quality-served", "")
    seen.quality_permille = int(quality) if quality.isdigit() else None


def _require_complete(seen: _Progress) -> None:
    """A clean end without the final frame is a cut answer, and a frame lost on the way is one too."""
    if seen.generated_tokens is None:
        raise _RequestFailedError(f"the stream ended without its final frame, after {seen.tokens} tokens")
    if seen.generated_tokens != seen.tokens:
        raise _RequestFailedError(f"{seen.tokens} of {seen.generated_tokens} tokens arrived")
