"""Clients that stream answers from an engine over HTTP at the same time, and what they saw.

Two dialects: ours (TGI's /generate_stream) and llama-server's (/completion). Every request has a prompt of its own and
exactly as many tokens as asked; a server that says otherwise ends the benchmark, because its figures would not compare.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

# Each is one token of the example's vocabulary, with a space before it and without.
_WORDS = ("the", "engine", "keep", "serving", "while", "clients", "come", "and", "go", "or", "ask", "for", "more")


@dataclass(frozen=True, slots=True)
class Ending:
    """What the last frame of a stream says: tokens read and tokens generated."""

    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server is asked. `read_ending`: of a frame; None unless it is the last one."""

    path: str
    build_body: Callable[[str, int], dict[str, Any]]
    read_ending: Callable[[Mapping[str, Any]], Ending | None]


def _our_body(prompt: str, new_tokens: int) -> dict[str, Any]:
    return {"inputs": prompt, "parameters": {"max_new_tokens": new_tokens, "ignore_eos": True}}


def _our_ending(frame: Mapping[str, Any]) -> Ending | None:
    details = frame["details"]
    return Ending(details["input_length"], details["generated_tokens"]) if details else None


def _llama_body(prompt: str, new_tokens: int) -> dict[str, Any]:
    return {
        "prompt": prompt, "n_predict": new_tokens, "ignore_eos": True, "temperature": 0, "cache_prompt": False,
        "stream": True,
    }  # fmt: skip


def _llama_ending(frame: Mapping[str, Any]) -> Ending | None:
    return Ending(frame["tokens_evaluated"], frame["tokens_predicted"]) if frame["stop"] else None


OURS = Dialect("/generate_stream", _our_body, _our_ending)
LLAMA = Dialect("/completion", _llama_body, _llama_ending)


@dataclass(frozen=True, slots=True)
class LoadShape:
    """`clients` at the same time, each with `requests` after each other."""

    clients: int
    requests: int
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """One answered request: monotonic seconds of its sending, its first and its last frame, and of all its frames."""

    sent: float
    first: float
    last: float
    tokens: int
    frames: tuple[float, ...] = ()

    @property
    def ttft_seconds(self) -> float:
        return self.first - self.sent

    @property
    def tpot_seconds(self) -> float:
        """Mean seconds per token after the first; 0 with one token."""
        return (self.last - self.first) / max(1, self.tokens - 1)


def tokens_per_second(times: list[StreamTimes]) -> float:
    """Generated tokens of all requests over the time from the first sending to the last frame."""
    seconds = max(one.last for one in times) - min(one.sent for one in times)
    return sum(one.tokens for one in times) / seconds


def build_prompts(shape: LoadShape, seed: int) -> list[str]:
    """One prompt for each request, all different."""
    draw = random.Random(seed)
    count = shape.clients * shape.requests
    return [" ".join(draw.choices(_WORDS, k=shape.prompt_tokens)) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask one server."""

    base: str
    dialect: Dialect
    headers: Mapping[str, str]


async def run_load(endpoint: Endpoint, shape: LoadShape, seed: int) -> list[StreamTimes]:
    """Times of all requests of the load. Exits the program at the first one that fails."""
    prompts = iter(build_prompts(shape, seed))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=endpoint.headers) as session:

        async def client() -> list[StreamTimes]:
            return [await stream(session, endpoint, shape, next(prompts)) for _ in range(shape.requests)]

        done = await asyncio.gather(*(client() for _ in range(shape.clients)))
    return [times for one in done for times in one]


async def stream(session: aiohttp.ClientSession, endpoint: Endpoint, shape: LoadShape, prompt: str) -> StreamTimes:
    """Times of one request, after checking that it had as many tokens as its shape says."""
    body = endpoint.dialect.build_body(prompt, shape.new_tokens)
    sent = time.monotonic()
    frames: list[float] = []
    async with session.post(endpoint.base + endpoint.dialect.path, json=body) as response:
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            frames.append(time.monotonic())
            ending = _read_frame(endpoint.dialect, line[5:])
            if ending is not None:
                _check(ending, shape)
                return StreamTimes(sent, frames[0], time.monotonic(), ending.new_tokens, tuple(frames))
        raise SystemExit(f"{endpoint.base}: status {response.status}, the stream ended without its last frame")


def _read_frame(dialect: Dialect, payload: bytes) -> Ending | None:
    frame = json.loads(payload)
    if "error" in frame:
        raise SystemExit(f"a request of the load failed: {payload.decode()[:500]}")
    return dialect.read_ending(frame)


def _check(ending: Ending, shape: LoadShape) -> None:
    expected = Ending(shape.prompt_tokens, shape.new_tokens)
    if ending != expected:
        raise SystemExit(f"a server counts {ending}, not {expected}: nothing to compare")
