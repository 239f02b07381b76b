"""The runs of one HTTP request in the engine, and what becomes of them. Knows tokens and events, no HTTP.

A request is one run, or several siblings for `n` and `best_of`: same prompt, each with a random generator of its own.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from types import TracebackType

from inference_pods.engine.errors import (
    DeadlineError,
    GenerationError,
    InternalError,
    RequestError,
    UnavailableError,
)
from inference_pods.engine.sequence import FailureKind, FinishReason, GenerationRequest, TokenEvent


@dataclass(slots=True, eq=False)
class Generation:
    """Running siblings; iterate for (index, event). Leaving the `with` block early cancels those that still run.

    Iterating raises GenerationError when the model fails on one of them, InternalError when the engine does,
    UnavailableError when it ends, DeadlineError when the time is over; the others end too.
    """

    requests: tuple[GenerationRequest, ...]
    index_of: dict[int, int]  # request id in the engine -> sibling
    on_close: Callable[[Generation], None]
    name: str = ""  # what its client calls it; empty: nothing
    queue: asyncio.Queue[TokenEvent] = field(default_factory=asyncio.Queue)
    started_at: float = field(default_factory=time.monotonic)
    running: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.running = set(self.index_of)

    def __enter__(self) -> Generation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.on_close(self)

    async def __aiter__(self) -> AsyncIterator[tuple[int, TokenEvent]]:
        while self.running:
            event = await self._next_event()
            if event.is_last:
                self.running.discard(event.request_id)
            if event.error is not None:
                self._refuse_if_late()
                raise _build_error(event)
            yield self.index_of[event.request_id], event

    async def _next_event(self) -> TokenEvent:
        deadline = self.requests[0].deadline_seconds
        if deadline is None:
            return await self.queue.get()
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await self.queue.get()
        except TimeoutError:
            self._refuse_if_late()
            raise

    def _refuse_if_late(self) -> None:
        deadline = self.requests[0].deadline_seconds
        # The clock that asyncio rounds may wake a millisecond early.
        if deadline is not None and time.monotonic() >= deadline - 0.002:
            raise DeadlineError("the deadline of `x-deadline-ms` passed before the answer was complete")


def _build_error(event: TokenEvent) -> RequestError:
    if event.failure is FailureKind.INTERNAL:
        return InternalError()
    if event.failure is FailureKind.STOPPED:
        return UnavailableError(f"{event.error}; another replica may serve", retry_after_seconds=1)
    return GenerationError(f"Request failed during generation: {event.error}")


@dataclass(frozen=True, slots=True)
class Completion:
    """One run from its first to its last token."""

    request: GenerationRequest
    events: list[TokenEvent]

    @property
    def text(self) -> str:
        return join_text(self.events)

    @property
    def finish(self) -> FinishReason:
        finish = self.events[-1].finish
        if finish is None:
            raise GenerationError("generation ended without a reason")
        return finish

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def generated_tokens(self) -> int:
        return len(self.events)

    @property
    def mean_logprob(self) -> float:
        """Nats per token by the model's own scores: what `best_of` compares, as TGI does."""
        return math.fsum(event.token.logprob for event in self.events if event.token) / max(1, len(self.events))


async def collect(generation: Generation) -> list[Completion]:
    """All siblings, run to their ends, in order."""
    events: list[list[TokenEvent]] = [[] for _ in generation.requests]
    with generation:
        async for index, event in generation:
            events[index].append(event)
    return [Completion(request, own) for request, own in zip(generation.requests, events, strict=True)]


def join_text(events: list[TokenEvent]) -> str:
    """The generated text: special tokens are left out."""
    return "".join(event.token.text for event in events if event.token is not None and not event.token.special)


def build_siblings(request: GenerationRequest, count: int) -> tuple[GenerationRequest, ...]:
    """`count` requests that differ in their seeds: the given seed and those after it, or random ones."""
    if not request.sampling.needs_sampling:
        return (request,) * count
    first = request.sampling.seed if request.sampling.seed is not None else secrets.randbits(63)
    return tuple(
        replace(request, sampling=replace(request.sampling, seed=(first + index) % 2**64)) for index in range(count)
    )


def rank_by_logprob(completions: list[Completion]) -> list[Completion]:
    """Most probable first; equals keep their order."""
    return sorted(completions, key=lambda completion: -completion.mean_logprob)
