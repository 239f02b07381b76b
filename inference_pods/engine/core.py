"""The engine without threads or HTTP: step() is schedule -> run -> postprocess.

Errors stay with the request that caused them: a poisoned sequence never takes its neighbours along.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from inference_pods.engine.errors import locate
from inference_pods.engine.model_runner import RunnerLostError, StepRunner
from inference_pods.engine.sampler import Sampler, top_tokens
from inference_pods.engine.scheduler import ScheduledChunk, Scheduler
from inference_pods.engine.sequence import (
    FailureKind,
    FinishReason,
    GenerationRequest,
    ScoredToken,
    Sequence,
    TokenEvent,
)
from inference_pods.engine.tokenizer import TextStream, TextTokenizer
from inference_pods.kernels.decoder import Chunk, DeviceLostError, TokenScores

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Live:
    """A request in the engine."""

    request: GenerationRequest
    sequence: Sequence
    sampler: Sampler
    stream: TextStream
    added_at: float
    queue_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step did."""

    events: list[TokenEvent]
    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class _Run:
    """What the runner was given and gave: drafted tokens per chunk, scores of all that were wanted, in order."""

    drafted: list[list[int]]
    scores: list[TokenScores]

    @property
    def sequences(self) -> int:
        return len(self.drafted)


class EngineCore:
    """Owns scheduler and runner; every method must be called from one thread. `clock` gives monotonic seconds."""

    def __init__(
        self,
        runner: StepRunner,
        scheduler: Scheduler,
        tokenizer: TextTokenizer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self.scheduler = scheduler
        self._tokenizer = tokenizer
        self._clock = clock
        self._live: dict[int, _Live] = {}

    def add(self, request_id: int, request: GenerationRequest) -> None:
        now = self._clock()
        sequence = Sequence(
            request_id, list(request.prompt_ids), len(request.prompt_ids), request.priority, now, request.level
        )
        if request.speculate and not (request.sampling.needs_sampling or request.sampling.has_penalties):
            sequence.draftable_until = len(request.prompt_ids) + request.max_new_tokens
        stream = TextStream(self._tokenizer, request.stop_strings)
        self._live[request_id] = _Live(request, sequence, Sampler(request.sampling), stream, now)
        self.scheduler.add(sequence)
        self.scheduler.stats.level_requests[request.level] += 1

    def change_level(self, request_id: int, level: int) -> None:
        """Computes a request at another level from its next token on; unknown ids (already finished) are fine."""
        if live := self._live.get(request_id):
            self.scheduler.change_level(live.sequence, level)

    def cancel(self, request_id: int) -> None:
        """Takes a request out before the next step; unknown ids (already finished) are fine."""
        if live := self._live.pop(request_id, None):
            self.scheduler.remove(live.sequence)

    def abandon(self) -> list[int]:
        """Forgets every request and returns their ids: for an engine that takes no further step.

        Queues and blocks are left as they are, because wrong books may be what ended it.
        """
        request_ids = list(self._live)
        self._live.clear()
        return request_ids

    def check_integrity(self) -> None:
        """Checks the block pool; rebuilds it if it is wrong and nothing is live.

        Raises:
            IntegrityError: wrong, and a rebuild would take the blocks of live sequences.
        """
        if error := self.scheduler.repair_if_inconsistent():
            logger.error("%s; no sequence was live, so the pool was rebuilt", error)

    def step(self) -> StepResult:
        """Schedules, runs, postprocesses.

        Raises:
            DeviceLostError: no further step can be taken.
        """
        expired = self._expire()
        plan = self.scheduler.schedule()
        if not plan:
            return StepResult(expired, 0, 0)
        result = self._step_plan(plan)
        return replace(result, events=expired + result.events)

    def _step_plan(self, plan: list[ScheduledChunk]) -> StepResult:
        started = self._clock()
        for chunk in plan:
            _note_start(self._live[chunk.sequence.request_id], started)
        try:
            run = self._run(plan)
        except DeviceLostError:
            raise  # the loop ends by it, and the process by that: no request could be served any more
        except RunnerLostError as error:
            logger.error("step of %d sequences failed for good: %s", len(plan), error)
            return StepResult(self._fail(plan, str(error), FailureKind.STOPPED), 0, 0)
        except Exception as error:
            if len(plan) > 1:
                return self._step_apart(plan, error)
            logger.exception("step of one sequence failed")
            return StepResult(self._fail(plan, "the model failed on this step", FailureKind.MODEL), 0, 0)
        result = self._postprocess(plan, run)
        self._observe_round(run, result, self._clock() - started)
        return result

    def _step_apart(self, plan: list[ScheduledChunk], error: Exception) -> StepResult:
        """Takes the chunks of a step that failed one by one, so that only the one at fault fails.

        Nothing of the step is committed, so all that a part of it wrote is computed again before it is read.
        """
        logger.warning("step of %d sequences failed, each is tried alone: %s (%s)", len(plan), error, locate(error))
        self.scheduler.gate.begin_round()  # what they take apart says nothing of drafting
        results = [self._step_plan([chunk]) for chunk in plan]
        return StepResult(
            [event for result in results for event in result.events],
            sum(result.prompt_tokens for result in results),
            sum(result.generated_tokens for result in results),
        )

    def _observe_round(self, run: _Run, result: StepResult, seconds: float) -> None:
        """Tells the gate how a round of pure decoding went; with prompts in it there is nothing to compare."""
        if self.scheduler.drafts and not result.prompt_tokens and run.sequences:
            self.scheduler.gate.observe(any(run.drafted), result.generated_tokens / run.sequences, seconds)

    def _expire(self) -> list[TokenEvent]:
        """Ends the requests whose deadline has passed."""
        now = self._clock()
        late = [live for live in self._live.values() if (live.request.deadline_seconds or math.inf) <= now]
        for live in late:
            self.cancel(live.sequence.request_id)
        self.scheduler.stats.expired += len(late)
        return [_build_expired(live, now) for live in late]

    def _run(self, plan: list[ScheduledChunk]) -> _Run:
        drafted = self._draft(plan)
        chunks = [_build_chunk(chunk, tokens) for chunk, tokens in zip(plan, drafted, strict=True)]
        started = self._clock()
        scores = self._runner.step(chunks)
        self.scheduler.step_times.observe(_count_rows(chunks), self._clock() - started)
        return _Run(drafted, scores)

    def _draft(self, plan: list[ScheduledChunk]) -> list[list[int]]:
        """For each chunk the tokens that the draft level puts after its end, one step per token for all together.

        It leaves its own keys and values at the new positions; the verifying step overwrites them before they are read.
        """
        drafted: list[list[int]] = [[] for _ in plan]
        settings = self.scheduler.drafts
        while settings and (short := [i for i, chunk in enumerate(plan) if len(drafted[i]) < chunk.draft]):
            scores = self._runner.step([_build_draft(plan[i], drafted[i], settings.level) for i in short])
            if not all(math.isfinite(one.log_total) for one in scores):
                break  # what was drafted so far is verified; the top level says whether the request is beyond help
            for i, one in zip(short, scores, strict=True):
                drafted[i].append(one.best)
        return drafted

    def _fail(self, plan: list[ScheduledChunk], error: str, failure: FailureKind) -> list[TokenEvent]:
        events = []
        for chunk in plan:
            self.cancel(chunk.sequence.request_id)
            events.append(TokenEvent(chunk.sequence.request_id, error=error, failure=failure))
        return events

    def _postprocess(self, plan: list[ScheduledChunk], run: _Run) -> StepResult:
        complete = [(chunk, drafted) for chunk, drafted in zip(plan, run.drafted, strict=True) if chunk.completes_input]
        prompt_tokens = sum(
            chunk.count for chunk in plan if chunk.sequence.pending_tokens > 1 or not chunk.sequence.generated_tokens
        )
        self.scheduler.commit(plan)
        events: list[TokenEvent] = []
        scores = iter(run.scores)
        for chunk, drafted in complete:
            own = list(itertools.islice(scores, 1 + len(drafted)))
            advanced = self._advance_verified(self._live[chunk.sequence.request_id], own, drafted)
            self.scheduler.stats.level_tokens[chunk.sequence.level] += sum(one.token is not None for one in advanced)
            events += advanced
        return StepResult(events, prompt_tokens, sum(event.token is not None for event in events))

    def _advance_verified(self, live: _Live, scores: list[TokenScores], drafted: list[int]) -> list[TokenEvent]:
        """Appends the top level's tokens for as long as the draft agrees with them, and one more."""
        events = [self._advance(live, scores[0])]
        accepted = 0
        while accepted < len(drafted) and not events[-1].is_last:
            if live.sequence.token_ids[-1] != drafted[accepted]:
                break
            accepted += 1
            events.append(self._advance(live, scores[accepted]))
        if drafted:
            stats = self.scheduler.stats
            stats.verifications += 1
            stats.draft_tokens += len(drafted)
            stats.accepted_tokens += accepted
            if not events[-1].is_last:
                self.scheduler.commit_drafts(live.sequence, accepted)
        return events

    def _advance(self, live: _Live, scores: TokenScores) -> TokenEvent:
        """Appends the next token and ends the request if that was the last, or if the work on it raises."""
        if not math.isfinite(scores.log_total):
            return self._discard(live)
        request_id = live.sequence.request_id
        try:
            event = self._append_next(live, scores)
        except Exception as error:  # noqa: BLE001 - whatever it is, the neighbours go on
            logger.error("request %d ends by an error of its own: %s", request_id, locate(error))
            event = TokenEvent(request_id, error="the engine failed on this request", failure=FailureKind.INTERNAL)
        if event.is_last:
            self.cancel(request_id)
        return event

    def _append_next(self, live: _Live, scores: TokenScores) -> TokenEvent:
        """Chooses the next token, appends it and says whether it was the last."""
        request_id = live.sequence.request_id
        token_id = live.sampler.choose(scores, live.sequence.token_ids, live.sequence.prompt_tokens)
        live.sequence.token_ids.append(token_id)
        text = live.stream.push(token_id, is_last=False)
        finish = self._finish_reason(live, token_id)
        if finish is not None:
            text += live.stream.flush()
        special = self._tokenizer.is_special(token_id)
        token = ScoredToken(
            token_id, self._tokenizer.token_text(token_id) if special else text, scores.logprob(token_id), special
        )
        return TokenEvent(request_id, token, self._top(live, scores), finish, queue_seconds=live.queue_seconds or 0.0)

    def _discard(self, live: _Live) -> TokenEvent:
        """Ends a request whose scores are not numbers; what is cached of it must not reach another."""
        request_id = live.sequence.request_id
        del self._live[request_id]
        self.scheduler.discard(live.sequence)
        return TokenEvent(request_id, error="the model returned scores that are not numbers", failure=FailureKind.MODEL)

    def _finish_reason(self, live: _Live, token_id: int) -> FinishReason | None:
        if token_id in self._tokenizer.eos_ids and not live.request.ignore_eos:
            return FinishReason.EOS
        if live.stream.stopped:
            return FinishReason.STOP
        return FinishReason.LENGTH if live.sequence.generated_tokens >= live.request.max_new_tokens else None

    def _top(self, live: _Live, scores: TokenScores) -> tuple[ScoredToken, ...]:
        tokenizer = self._tokenizer
        return tuple(
            ScoredToken(token, tokenizer.token_text(token), logprob, tokenizer.is_special(token))
            for token, logprob in top_tokens(scores, live.request.top_n_tokens)
        )


def _count_rows(chunks: list[Chunk]) -> Counter[int]:
    """Rows of a step by level."""
    rows: Counter[int] = Counter()
    for chunk in chunks:
        rows[chunk.level] += len(chunk.token_ids)
    return rows


def _build_chunk(chunk: ScheduledChunk, drafted: list[int]) -> Chunk:
    """The chunk's own tokens and what was drafted after them; scores for the last own token and each drafted one."""
    sequence = chunk.sequence
    start = sequence.computed_tokens
    tokens = sequence.token_ids[start : start + chunk.count] + drafted
    scores = 1 + len(drafted) if chunk.completes_input else 0
    return Chunk(tokens, start, sequence.block_table, scores, sequence.level)


def _build_draft(chunk: ScheduledChunk, drafted: list[int], level: int) -> Chunk:
    """The last drafted token, at first the sequence's own last one, at the drafting level."""
    sequence = chunk.sequence
    token = drafted[-1] if drafted else sequence.token_ids[-1]
    return Chunk([token], sequence.computed_tokens + len(drafted), sequence.block_table, 1, level)


def _note_start(live: _Live, now: float) -> None:
    """A request waits until its first step begins."""
    if live.queue_seconds is None:
        live.queue_seconds = now - live.added_at


def _build_expired(live: _Live, now: float) -> TokenEvent:
    progress = f"{live.sequence.generated_tokens} of {live.request.max_new_tokens} tokens"
    state = "while it waited" if live.queue_seconds is None else f"after {progress}"
    error = f"the request's deadline passed {state}, {now - live.added_at:.3g} s after its arrival"
    return TokenEvent(live.sequence.request_id, error=error, failure=FailureKind.DEADLINE)
