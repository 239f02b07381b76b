"""One replica's engine: continuous batching with a KV limit, advanced from event to event, never token by token.

A nested replica computes each level's sequences together, one level after the other: its step takes the sum of theirs.
Requests are admitted first come, first served while there are slots and KV memory; their prefill ends with their first
token. It stalls the decode of the others or, with a curve that has `step_tokens`, is cut into chunks that are read
within their steps. Between two events all running sequences decode the same number of steps.
Knows nothing of tiers, routers or pods.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Final

from adaptive_operator.simulate.curve import StepCurve
from adaptive_operator.simulate.events import EventQueue
from adaptive_operator.simulate.requests import Outcome, Request

PREFILL_TOKENS: Final = 8192  # prompts that are read in one go; a longer one is read alone
_ROUNDING: Final = 1e-9  # steps

Notice = Callable[[Request], None]


class _Phase(Enum):
    IDLE = 0
    PREFILL = 1
    DECODE = 2
    TURNING = 3  # between two phases: what arrives now is seen when the next one begins


class Replica:
    """One engine. It tells of first tokens and of ends (finished or timed out); what it holds can be taken away."""

    def __init__(
        self,
        curve: StepCurve,
        events: EventQueue,
        on_first_token: Notice,
        on_end: Notice,
        patience_seconds: float = math.inf,
        levels: Mapping[str, StepCurve] | None = None,
    ) -> None:
        """`levels`: the curves of a nested tier's levels; what asks for none of them runs at `curve`."""
        self._curve, self._events = curve, events
        self._base, self._base_levels = curve, dict(levels or {})  # as they are at pace 1
        self._on_first_token, self._on_end = on_first_token, on_end
        self._patience = patience_seconds
        self._levels = dict(self._base_levels)
        self._decoding: Counter[str] = Counter()  # sequences by level, of a nested replica
        self._waiting: deque[Request] = deque()
        self._prefilling: dict[Request, int] = {}  # tokens of each prompt that are not read yet, in order
        self._running: list[tuple[int, int, Request]] = []  # a heap by the step after which each is finished
        self._kv_used = 0
        self._steps = 0  # decode steps since the start
        self._order = 0
        self._phase = _Phase.IDLE
        self._phase_start = 0.0
        self._phase_step = 0.0  # seconds of each decode step of this phase
        self._planned_steps = 0
        self._version = 0  # of the wake-up that counts

    @property
    def running(self) -> int:
        """Sequences that have their place in the batch."""
        return len(self._running) + len(self._prefilling)

    @property
    def waiting(self) -> int:
        """Requests that wait for a place in the batch."""
        return len(self._waiting)

    @property
    def kv_share(self) -> float:
        """Part of the KV memory that is taken, 0..1."""
        return self._kv_used / self._curve.kv_tokens

    def submit(self, request: Request) -> None:
        """Take a request in; it never refuses."""
        self._waiting.append(request)
        if self._phase is _Phase.IDLE:
            self._go_on()
        elif self._phase is _Phase.DECODE and len(self._waiting) == 1 and self._fits(request, self.running):
            self._shorten()

    def set_pace(self, prefill: float, decode: float) -> None:
        """From now on it reads prompts and decodes so many times (above 0) faster than its curves say.

        A prefill that has begun ends as it would have, a step with chunks too, and decode goes on at the new pace after
        the next whole step. How many sequences an objective admits stays as it is.
        """
        if self._phase is _Phase.DECODE:
            self._shorten()
        self._curve = self._base.scaled(prefill, decode)
        self._levels = {level: curve.scaled(prefill, decode) for level, curve in self._base_levels.items()}

    def drop_all(self) -> tuple[list[Request], list[Request]]:
        """The replica is gone: (requests without a first token, answers that are cut)."""
        unanswered = [*self._prefilling, *self._waiting]
        cut = [request for _, _, request in sorted(self._running)]
        self._waiting.clear()
        self._prefilling, self._running, self._kv_used = {}, [], 0
        self._decoding.clear()
        self._phase = _Phase.IDLE
        self._version += 1
        return unanswered, cut

    def _go_on(self) -> None:
        """Begin what comes next: a prefill if someone fits, else decode, else nothing."""
        self._phase = _Phase.TURNING
        self._admit()
        if self._prefilling:
            self._phase = _Phase.PREFILL
            chunks = self._plan_chunks()
            self._wake(self._events.now + self._prefill_seconds(chunks), partial(self._end_prefill, chunks))
        elif self._running:
            self._phase = _Phase.DECODE
            self._phase_start, self._phase_step = self._events.now, self._step_seconds()
            self._planned_steps = self._running[0][0] - self._steps
            self._wake_after_steps()
        else:
            self._phase = _Phase.IDLE

    def _plan_chunks(self) -> dict[Request, int]:
        """The tokens of each prompt that are read next: all of them, or what fits into one step."""
        if self._curve.step_tokens is None:
            return dict(self._prefilling)
        room = self._prompt_room()
        chunks: dict[Request, int] = {}
        for request, unread in self._prefilling.items():
            chunks[request] = min(unread, room)
            room -= chunks[request]
        return chunks

    def _prompt_room(self) -> int:
        return self._curve.prompt_room(len(self._running), self._step_seconds())

    def _prefill_seconds(self, chunks: Mapping[Request, int]) -> float:
        """Seconds of a prefill, or of a step with chunks of prompts in it."""
        decoding = 0 if self._curve.step_tokens is None else len(self._running)
        if not self._levels:
            return self._curve.mixed(decoding, sum(chunks.values()))
        tokens: Counter[str] = Counter()
        for request, count in chunks.items():
            tokens[request.level] += count
        beside = self._decoding if decoding else Counter[str]()
        levels = {level for level in (*tokens, *beside) if tokens[level] or beside[level]}
        return math.fsum(self._curve_of(level).mixed(beside[level], tokens[level]) for level in sorted(levels))

    def _step_seconds(self) -> float:
        if not self._levels:
            return self._curve.step(len(self._running))
        return math.fsum(self._curve_of(level).step(count) for level, count in self._decoding.items() if count)

    def _curve_of(self, level: str) -> StepCurve:
        return self._levels.get(level, self._curve)

    def _admit(self) -> None:
        """Fill the next prefill from the queue, in order."""
        whole = self._curve.step_tokens is None
        room = PREFILL_TOKENS if whole else self._prompt_room()
        tokens = sum(self._prefilling.values())
        while self._waiting:
            request = self._waiting[0]
            if self._events.now - request.arrival > self._patience:
                self._give_up(self._waiting.popleft())
                continue
            too_long = bool(self._prefilling) and tokens + (request.prompt_tokens if whole else 1) > room
            if too_long or not self._fits(request, self.running):
                return
            tokens += request.prompt_tokens
            self._kv_used += request.tokens
            self._prefilling[self._waiting.popleft()] = request.prompt_tokens

    def _fits(self, request: Request, running: int) -> bool:
        """Is there a slot and memory? A request larger than the whole memory runs alone rather than never."""
        if running >= self._curve.max_sequences:
            return False
        return running == 0 or self._kv_used + request.tokens <= self._curve.kv_tokens

    def _give_up(self, request: Request) -> None:
        request.outcome = Outcome.TIMED_OUT
        self._on_end(request)

    def _end_prefill(self, chunks: Mapping[Request, int]) -> None:
        self._phase = _Phase.TURNING
        if self._curve.step_tokens is not None and self._running:
            self._steps += 1  # the others decoded beside the chunks
        for request, count in chunks.items():
            self._prefilling[request] -= count
        started = [request for request, unread in self._prefilling.items() if not unread]
        for request in started:
            del self._prefilling[request]
        now = self._events.now
        for request in started:
            self._order += 1
            heapq.heappush(self._running, (self._steps + request.output_tokens - 1, self._order, request))
            if self._levels:
                self._decoding[request.level] += 1
        for request in started:
            request.first_token_at = now
            self._on_first_token(request)
        self._finish_due()
        self._go_on()

    def _shorten(self) -> None:
        """End the decode at the next whole step: someone fits in, or the pace changes."""
        done = max(0, math.ceil((self._events.now - self._phase_start) / self._phase_step - _ROUNDING))
        if done < self._planned_steps:
            self._planned_steps = done
            self._wake_after_steps()

    def _wake_after_steps(self) -> None:
        seconds = self._planned_steps * self._phase_step
        # Rounding may put a whole step a hair before now.
        self._wake(max(self._phase_start + seconds, self._events.now), self._end_decode)

    def _end_decode(self) -> None:
        self._phase = _Phase.TURNING
        self._steps += self._planned_steps
        self._finish_due()
        self._go_on()

    def _finish_due(self) -> None:
        finished = []
        while self._running and self._running[0][0] <= self._steps:
            finished.append(heapq.heappop(self._running)[2])
        for request in finished:
            self._kv_used -= request.tokens
            if self._levels:
                self._decoding[request.level] -= 1
            request.finished_at, request.outcome = self._events.now, Outcome.FINISHED
            self._on_end(request)

    def _wake(self, time: float, action: Callable[[], None]) -> None:
        self._version += 1
        self._events.at(time, partial(self._run, self._version, action))

    def _run(self, version: int, action: Callable[[], None]) -> None:
        if version == self._version:
            action()
