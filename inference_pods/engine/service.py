"""What the HTTP routes talk to: validates requests against the engine's limits and streams their events.

Lives on the asyncio side; the engine loop delivers events from its thread. Knows no HTTP bodies.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field, replace
from enum import StrEnum

from inference_pods.engine.chat import ChatTemplate
from inference_pods.engine.core import StepResult
from inference_pods.engine.errors import (
    LevelUnknownError,
    NotRunningError,
    OverloadedError,
    UnavailableError,
    ValidationError,
)
from inference_pods.engine.generation import Completion, Generation, collect
from inference_pods.engine.loop import EngineLoop
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import FailureKind, GenerationRequest, TokenEvent
from inference_pods.engine.tokenizer import Piece, TextTokenizer
from inference_pods.kernels.step_plans import PlanCounts

_THREAD_ABOVE_CHARACTERS = 20_000  # tokenising more than this would hold up other streams


class Phase(StrEnum):
    """Life of a replica."""

    LOADING = "loading"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for, how many there may be, and how long a client may take no event of its stream."""

    max_total_tokens: int
    max_batch_size: int
    max_waiting: int
    write_timeout_seconds: float

    @property
    def max_input_tokens(self) -> int:
        return self.max_total_tokens - 1


@dataclass(frozen=True, slots=True)
class Names:
    """What a client calls its prompt and output length, and what it may do about a prompt that is too long."""

    prompt: str
    output: str
    remedy: str = "shorten it"


TGI_NAMES = Names("inputs", "max_new_tokens", "shorten it or set truncate")


@dataclass(frozen=True, slots=True)
class Engine:
    """The parts that exist once the model is loaded."""

    loop: EngineLoop
    scheduler: Scheduler
    tokenizer: TextTokenizer
    template: ChatTemplate
    levels: tuple[str, ...]  # names of what x-level may ask for; the first is the default
    description: dict[str, object]
    context_tokens: int | None = None  # longest text that the model was trained for; it may lower --max-total-tokens
    plan_counts: PlanCounts = field(default_factory=PlanCounts)

    @property
    def kernels(self) -> str:
        """What computes the steps, in the words of /info and of the log."""
        return str(self.description["kernels"])


class Service:
    """Admission, events and counts of one engine."""

    def __init__(self, limits: Limits, metrics: EngineMetrics, model_name: str) -> None:
        self.limits = limits
        self.metrics = metrics
        self.model_name = model_name
        self.created = int(time.time())
        self.phase = Phase.LOADING
        self._engine: Engine | None = None
        self._live: dict[int, Generation] = {}
        self._ids = itertools.count(1)
        self._asyncio = asyncio.get_running_loop()
        self.crashed = asyncio.Event()  # set once the loop of a loaded engine has ended by itself
        self._idle = asyncio.Event()
        self._idle.set()

    # Engine side, called in the engine's thread.

    def deliver(self, events: list[TokenEvent]) -> None:
        self._asyncio.call_soon_threadsafe(self._dispatch, events)

    def observe(self, result: StepResult, seconds: float) -> None:
        self.metrics.step_seconds.observe(seconds)
        self.metrics.prompt_tokens.inc(result.prompt_tokens)
        self.metrics.generated_tokens.inc(result.generated_tokens)

    # asyncio side.

    def _dispatch(self, events: list[TokenEvent]) -> None:
        for event in events:
            if generation := self._live.get(event.request_id):
                generation.queue.put_nowait(event)
        if not self.is_alive:
            self.crashed.set()

    def attach(self, engine: Engine) -> None:
        """The model is loaded; requests are still refused until phase is READY.

        From now on the limit of a request is also what the model was trained for and what the KV cache can hold.
        """
        self._engine = engine
        self.metrics.name_model(engine.kernels, engine.levels)
        blocks = engine.scheduler.blocks
        longest = min(self.limits.max_total_tokens, blocks.total_blocks * blocks.block_tokens)
        if engine.context_tokens is not None:
            longest = min(longest, engine.context_tokens)
        self.limits = replace(self.limits, max_total_tokens=longest)

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise UnavailableError("the model is still loading", retry_after_seconds=2)
        return self._engine

    @property
    def is_healthy(self) -> bool:
        return self.phase is Phase.READY and self._engine is not None and self._engine.loop.is_alive

    @property
    def is_alive(self) -> bool:
        """False once the loop of a loaded engine has ended by itself; only a restart helps then."""
        return self._engine is None or not self._engine.loop.has_crashed

    @property
    def live_requests(self) -> int:
        return len(self._live)

    def refresh_gauges(self) -> None:
        if self._engine is None:
            return
        scheduler = self._engine.scheduler
        self.metrics.follow(scheduler)
        self.metrics.waiting.set(max(0, len(self._live) - len(scheduler.running)))
        self.metrics.follow_plans(self._engine.plan_counts)

    def check_phase(self) -> None:
        """Raises UnavailableError unless ready."""
        if not self.is_healthy:
            state = self.phase if self.is_alive else "broken"
            raise UnavailableError(f"the engine is {state}; another replica may serve", retry_after_seconds=1)

    def check_admission(self, count: int = 1) -> None:
        """Raises UnavailableError unless ready, OverloadedError when the line has no room for `count` runs."""
        self.check_phase()
        room = self.limits.max_batch_size + self.limits.max_waiting
        if count > room:
            raise ValidationError(f"`n` and `best_of` of {count} exceed the {room} requests that this replica holds")
        if len(self._live) + count > room:
            raise OverloadedError("Model is overloaded", retry_after_seconds=self._drain_estimate_seconds())

    def _drain_estimate_seconds(self) -> int:
        """Whole seconds until a waiting place is free, from the age of the oldest request; 1 to 60."""
        oldest = min((generation.started_at for generation in self._live.values()), default=time.monotonic())
        age = time.monotonic() - oldest
        return max(1, min(60, round(age / max(1, self.limits.max_batch_size))))

    def start(self, *requests: GenerationRequest, name: str = "") -> Generation:
        """Submits the validated siblings of one HTTP request, which its client calls `name`."""
        self.check_admission(len(requests))
        return self._submit(*requests, name=name)

    def _submit(self, *requests: GenerationRequest, name: str = "") -> Generation:
        generation = Generation(requests, {next(self._ids): i for i in range(len(requests))}, self.close, name)
        self._idle.clear()
        for request_id, index in generation.index_of.items():
            self._live[request_id] = generation
            self.engine.loop.submit(request_id, requests[index])
        return generation

    def close(self, generation: Generation) -> None:
        """Ends a generation; runs that have not finished are cancelled within a step."""
        for request_id in generation.index_of:
            if self._live.pop(request_id, None) and request_id in generation.running:
                self.engine.loop.cancel(request_id)
        if not self._live:
            self._idle.set()

    def change_level(self, name: str, level_name: str) -> int:
        """Computes the live requests of this name at another level from their next token on; how many runs these are.

        Raises:
            LevelUnknownError: naming the levels that there are. NotRunningError: no such request.
        """
        levels = self.engine.levels
        if level_name not in levels:
            raise LevelUnknownError(f"level {level_name[:64]!r} is not served here; use {' or '.join(levels)}")
        runs = [number for number, one in self._live.items() if name and one.name == name and number in one.running]
        if not runs:
            raise NotRunningError(f"no request {name[:128]!r} is waiting or running")
        for request_id in runs:
            self.engine.loop.change_level(request_id, levels.index(level_name))
        return len(runs)

    async def wait_idle(self, timeout_seconds: float) -> bool:
        """Waits until no request is live; False if the time ran out first."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_seconds)
        except TimeoutError:
            return False
        return True

    def cut_off(self) -> None:
        """Ends every live request with an error; its client hears that another replica may serve."""
        for request_id, generation in self._live.items():
            error = "the replica stopped before the answer was complete"
            generation.queue.put_nowait(TokenEvent(request_id, error=error, failure=FailureKind.STOPPED))

    async def prove(self) -> None:
        """Generates one real token; only then may the replica be called ready."""
        tokenizer = self.engine.tokenizer
        with self._submit(GenerationRequest(tuple(tokenizer.encode("Hello")), 1, ignore_eos=True)) as generation:
            async for _ in generation:
                pass

    async def complete(self, *requests: GenerationRequest, name: str = "") -> list[Completion]:
        """Runs the siblings of one HTTP request to their ends.

        Raises:
            RequestError: refused or failed.
        """
        return await collect(self.start(*requests, name=name))

    async def tokenise(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Token ids; a raw prompt asks for the special tokens that the model's file puts around text, if any."""
        tokenizer = self.engine.tokenizer
        if len(text) > _THREAD_ABOVE_CHARACTERS:
            return await asyncio.to_thread(tokenizer.encode, text, add_special_tokens)
        return tokenizer.encode(text, add_special_tokens)

    async def tokenise_pieces(self, text: str) -> list[Piece]:
        return await asyncio.to_thread(self.engine.tokenizer.encode_pieces, text)

    def fit(
        self, prompt_ids: list[int], max_new_tokens: int | None, truncate: int | None = None, names: Names = TGI_NAMES
    ) -> tuple[tuple[int, ...], int]:
        """Prompt and output length within the limits; a missing output length means all that is left.

        `names`: what the client calls them.

        Raises:
            ValidationError: naming the limit that is broken.
        """
        prompt = prompt_ids[-truncate:] if truncate else prompt_ids
        if not prompt:
            raise ValidationError(f"`{names.prompt}` cannot be empty")
        if len(prompt) > self.limits.max_input_tokens:
            limit = self.limits.max_input_tokens
            raise ValidationError(
                f"`{names.prompt}` must have less than {limit + 1} tokens. Given: {len(prompt)}; {names.remedy}"
            )
        room = self.limits.max_total_tokens - len(prompt)
        if max_new_tokens is not None and max_new_tokens > room:
            raise ValidationError(
                f"`{names.prompt}` tokens + `{names.output}` must be <= {self.limits.max_total_tokens}. "
                f"Given: {len(prompt)} `{names.prompt}` tokens and {max_new_tokens} `{names.output}`"
            )
        return tuple(prompt), max_new_tokens or room
