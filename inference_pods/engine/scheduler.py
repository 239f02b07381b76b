"""Decides which tokens the next step computes: continuous batching by priority and age, chunked prefill, prefix reuse.

Every decoding sequence gets its token in every step; what is left of the step's budget goes to prompts. The budget is
in tokens and, where there is an objective for the time per output token, in seconds of a learned model of each level's
pace, which also bounds the batch. When blocks run out, the least urgent sequence gives its blocks back and is computed
again later.
Knows no tensors, no text and no clock.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from dataclasses import dataclass, replace

from inference_pods.engine.batch_limit import BatchBound, BatchLimit, BatchState, decide_batch_limit
from inference_pods.engine.block_manager import ROOT_KEY, BlockManager, IntegrityError, chain_key
from inference_pods.engine.sequence import Sequence
from inference_pods.engine.speculation import DraftSettings, SpeculationGate
from inference_pods.engine.stats import EngineStats
from inference_pods.engine.step_room import LEAST_PROMPT_ROWS, StepRoom
from inference_pods.engine.step_time import LevelStepTimes

_TPOT_MARGIN = 0.9  # of the objective is planned: steps scatter, and sampling and delivery are outside of them
_MOST_PRIORITY = 100  # either way; beyond it a client could make others wait without bound
_USUAL_SMOOTHING = 0.1  # weight of the latest sequence in the usual number of blocks


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """`count` tokens of a sequence from its computed_tokens on, and room to draft and verify `draft` more."""

    sequence: Sequence
    count: int
    draft: int = 0

    @property
    def completes_input(self) -> bool:
        """Whether the chunk ends at the last known token, so that its scores give the next one."""
        return self.count == self.sequence.pending_tokens


class Scheduler:
    """Queues and batch of one engine. `step_tokens` bounds a step and must not be below `max_batch_size`.

    A step of priority is worth `ageing_seconds` of waiting: the order is by arrived_at + priority * ageing_seconds, so
    a request is overtaken only by what arrives within a fixed time after it, and nothing starves. Running sequences
    are not displaced by more urgent waiting ones; only missing blocks displace, and then the least urgent.
    """

    def __init__(
        self,
        blocks: BlockManager,
        max_batch_size: int,
        step_tokens: int,
        *,
        tpot_seconds: float | None = None,
        drafts: DraftSettings | None = None,
        ageing_seconds: float = 10.0,
    ) -> None:
        if step_tokens < max_batch_size:
            raise ValueError(f"step_tokens {step_tokens} is below max_batch_size {max_batch_size}: raise it")
        self.blocks = blocks
        self.max_batch_size = max_batch_size
        self.step_tokens = step_tokens
        self.stats = EngineStats()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.limit = BatchLimit(max_batch_size, BatchBound.QUEUE)
        self.step_times = LevelStepTimes()
        self.gate = SpeculationGate()
        self.drafts = drafts
        self._planned_seconds = None if tpot_seconds is None else _TPOT_MARGIN * tpot_seconds
        self._ageing_seconds = ageing_seconds
        self._usual_blocks: float | None = None

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def rank(self, sequence: Sequence) -> tuple[float, int]:
        """Place in the order, lowest first; it never changes, because all waiting requests age alike."""
        priority = min(max(sequence.priority, -_MOST_PRIORITY), _MOST_PRIORITY)
        return sequence.arrived_at + priority * self._ageing_seconds, sequence.request_id

    def add(self, sequence: Sequence) -> None:
        insort(self.waiting, sequence, key=self.rank)

    def remove(self, sequence: Sequence) -> None:
        """Takes a finished or cancelled sequence out and frees its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._note_usual(sequence)
        else:
            self.waiting.remove(sequence)
        self.blocks.deallocate(sequence.block_table)

    def discard(self, sequence: Sequence) -> None:
        """Takes out a running sequence whose keys and values are not to be trusted, and shares them no longer."""
        self.blocks.withdraw(sequence.block_table)
        self.remove(sequence)

    def change_level(self, sequence: Sequence, level: int) -> None:
        """From its next token on the sequence is computed at `level`; what is in the KV cache stays."""
        if level == sequence.level:
            return
        full_blocks = sequence.computed_tokens // self.blocks.block_tokens
        sequence.level = level
        unmixed = sequence.unmixed_blocks
        sequence.unmixed_blocks = full_blocks if unmixed is None else min(full_blocks, unmixed)
        if not sequence.computed_tokens:
            sequence.forget_computed()

    def schedule(self) -> list[ScheduledChunk]:
        """The next step's chunks, decoding sequences first; empty when nothing can run."""
        plan: list[ScheduledChunk] = []
        preemptions = self.stats.preemptions
        room = StepRoom(self.step_tokens, self._planned_seconds, self.step_times)
        self._plan_running(plan, room, decoding=True)
        self._plan_running(plan, room, decoding=False)
        self.limit = decide_batch_limit(self._batch_state())
        if self.stats.preemptions == preemptions:
            self._admit(plan, room)
        return self._add_drafts(plan, self.drafts) if self.drafts else plan

    def commit(self, plan: list[ScheduledChunk]) -> None:
        """Records that the plan's tokens are in the KV cache, and offers the blocks that they filled for sharing."""
        for chunk in plan:
            sequence = chunk.sequence
            full_before = sequence.computed_tokens // self.blocks.block_tokens
            sequence.computed_tokens += chunk.count
            self._publish(sequence, full_before)

    def commit_drafts(self, sequence: Sequence, accepted: int) -> None:
        """Records that `accepted` drafted tokens, by now among its own, were verified: their KV is the top level's."""
        full_before = sequence.computed_tokens // self.blocks.block_tokens
        sequence.computed_tokens += accepted
        self._publish(sequence, full_before)

    def _add_drafts(self, plan: list[ScheduledChunk], settings: DraftSettings) -> list[ScheduledChunk]:
        """The plan with drafts where all of it is decoding and that pays; prompts need the budget more."""
        self.gate.begin_round()
        if any(chunk.count > 1 or not chunk.sequence.generated_tokens for chunk in plan):
            return plan
        drafting = sum(chunk.sequence.draftable_tokens > 0 for chunk in plan)
        if not drafting or not self.gate.wants_drafts(len(plan), drafting):
            return plan
        most = min(settings.tokens, (self.step_tokens - len(plan)) // drafting)
        return [replace(chunk, draft=self._make_draft_room(chunk.sequence, most)) for chunk in plan]

    def _make_draft_room(self, sequence: Sequence, most: int) -> int:
        """Extends the table for as many drafted tokens as fit without taking blocks from anyone; their number."""
        count = min(most, sequence.draftable_tokens)
        while count > 0 and not self.blocks.can_allocate(sequence.block_table, len(sequence.token_ids) + count):
            count -= 1
        if count > 0:
            self.blocks.allocate(sequence.block_table, len(sequence.token_ids) + count)
        return max(0, count)

    def _plan_running(self, plan: list[ScheduledChunk], room: StepRoom, *, decoding: bool) -> None:
        """Plans the running sequences that decode, or the others."""
        for sequence in list(self.running):
            if sequence in self.running and (sequence.pending_tokens == 1) is decoding:
                count = min(sequence.pending_tokens, room.rows_left(sequence.level, decoding=decoding))
                if count > 0 and self._make_room(sequence, sequence.computed_tokens + count, plan):
                    plan.append(ScheduledChunk(sequence, count))
                    room.take(sequence.level, count, decoding=decoding)

    def _tpot_sequences(self) -> int | None:
        """Sequences that may run within the objective, those beyond the present ones at the level of the next to come.

        Each takes a row of a step; a prompt, waiting or running, keeps LEAST_PROMPT_ROWS beside them. None: no
        objective, or nothing learned yet.
        """
        if self._planned_seconds is None:
            return None
        beside = Counter(one.level for one in self.running)
        level = next((one.level for one in (*self.waiting[:1], *self.running)), 0)
        others = beside.total() - beside[level]
        prompts = [one.level for one in self.running if one.pending_tokens > 1] + [
            one.level for one in self.waiting[:1]
        ]
        prompt = prompts[0] if prompts else None
        if prompt is not None:
            beside[prompt] += LEAST_PROMPT_ROWS
        rows = self.step_times.rows_within(self._planned_seconds, level, beside)
        if rows is None:
            return None
        return others + rows - (LEAST_PROMPT_ROWS if prompt == level else 0)

    def _batch_state(self) -> BatchState:
        return BatchState(
            self.max_batch_size,
            len(self.running),
            len(self.waiting),
            self.blocks.free_blocks,
            tuple(sequence.own_blocks for sequence in self.running),
            self._usual_blocks,
            self._tpot_sequences(),
        )

    def _note_usual(self, ended: Sequence) -> None:
        if ended.generated_tokens:
            usual = self._usual_blocks or ended.own_blocks
            self._usual_blocks = usual + _USUAL_SMOOTHING * (ended.own_blocks - usual)

    def _admit(self, plan: list[ScheduledChunk], room: StepRoom) -> None:
        while self.waiting and len(self.running) < self.limit.size:
            sequence = self.waiting[0]
            if not (rows := room.rows_left(sequence.level, decoding=False)):
                return
            keys = self._reusable_keys(sequence)
            shared = self.blocks.match(keys)
            if self._is_being_computed(keys[len(shared) :]):
                return  # a running sequence will publish the next block: sharing is cheaper than computing it twice
            if not self.blocks.can_allocate(sequence.block_table, len(sequence.token_ids), shared):
                self.limit = BatchLimit(max(1, len(self.running)), BatchBound.MEMORY)
                return
            self._start(self.waiting.pop(0), shared)
            count = min(sequence.pending_tokens, rows)
            plan.append(ScheduledChunk(sequence, count))
            room.take(sequence.level, count, decoding=False)

    def _start(self, sequence: Sequence, shared: list[int]) -> None:
        self.blocks.share(sequence.block_table, shared)
        self.blocks.allocate(sequence.block_table, len(sequence.token_ids))
        sequence.shared_blocks = len(shared)
        sequence.computed_tokens = len(shared) * self.blocks.block_tokens
        self.stats.prefix_hit_tokens += sequence.computed_tokens
        self.stats.prefix_miss_tokens += sequence.pending_tokens
        insort(self.running, sequence, key=self.rank)

    def _make_room(self, sequence: Sequence, tokens: int, plan: list[ScheduledChunk]) -> bool:
        """Extends the sequence's table, preempting the least urgent if need be; False if that was itself."""
        while not self.blocks.can_allocate(sequence.block_table, tokens):
            victim = self.running[-1]
            self._preempt(victim)
            plan[:] = [chunk for chunk in plan if chunk.sequence is not victim]
            if victim is sequence:
                return False
        self.blocks.allocate(sequence.block_table, tokens)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.blocks.deallocate(sequence.block_table)
        sequence.forget_computed()
        insort(self.waiting, sequence, key=self.rank)
        self.stats.preemptions += 1

    # Prefix reuse.

    def _keys(self, sequence: Sequence, blocks: int) -> list[bytes]:
        """Keys of the sequence's first `blocks` full blocks, each computed once."""
        keys, size = sequence.block_keys, self.blocks.block_tokens
        while len(keys) < blocks:
            start = len(keys) * size
            parent = keys[-1] if keys else ROOT_KEY
            keys.append(chain_key(parent, sequence.level, sequence.token_ids[start : start + size]))
        return keys[:blocks]

    def _reusable_keys(self, sequence: Sequence) -> list[bytes]:
        """Keys that may be shared at admission: never the block of the last token, whose scores must be computed."""
        if not self.blocks.prefix_cache:
            return []
        return self._keys(sequence, (len(sequence.token_ids) - 1) // self.blocks.block_tokens)

    def _is_being_computed(self, missing_keys: list[bytes]) -> bool:
        """Whether a running sequence is about to publish the first missing block."""
        return bool(missing_keys) and any(
            missing_keys[0] in sequence.block_keys[sequence.computed_tokens // self.blocks.block_tokens :]
            for sequence in self.running
        )

    def _publish(self, sequence: Sequence, full_before: int) -> None:
        if not self.blocks.prefix_cache:
            return
        full = sequence.computed_tokens // self.blocks.block_tokens
        if sequence.unmixed_blocks is not None:
            full = min(full, sequence.unmixed_blocks)
        if full > full_before:
            for index, key in enumerate(self._keys(sequence, full)[full_before:], full_before):
                self.blocks.publish(sequence.block_table[index], key)

    # Self-check.

    def check_integrity(self) -> None:
        """Raises IntegrityError if the pool's books contradict the sequences' tables."""
        self.blocks.check_integrity([sequence.block_table for sequence in [*self.running, *self.waiting]])

    def repair_if_inconsistent(self) -> IntegrityError | None:
        """Checks the pool and rebuilds it where that is safe, which is only while no sequence is known.

        Raises:
            IntegrityError: inconsistent, and sequences still hold blocks.
        """
        try:
            self.check_integrity()
        except IntegrityError as error:
            self.stats.integrity_failures += 1
            if not self.is_idle:
                raise
            self.blocks.reset()
            return error
        return None
