"""Decides which tokens the next step computes: continuous batching, first come first served, chunked prefill.

Every decoding sequence gets its token in every step; what is left of the step's token budget goes to prompts. When
blocks run out, the youngest sequence gives its blocks back and is computed again later. Knows no tensors and no text.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """`count` tokens of a sequence from its computed_tokens on."""

    sequence: Sequence
    count: int

    @property
    def completes_input(self) -> bool:
        """Whether the chunk ends at the last known token, so that its scores give the next one."""
        return self.count == self.sequence.pending_tokens


class Scheduler:
    """Queues and batch of one engine. `step_tokens` bounds a step and must not be below `max_batch_size`."""

    def __init__(self, blocks: BlockManager, max_batch_size: int, step_tokens: int) -> None:
        if step_tokens < max_batch_size:
            raise ValueError(f"step_tokens {step_tokens} is below max_batch_size {max_batch_size}: raise it")
        self.blocks = blocks
        self.max_batch_size = max_batch_size
        self.step_tokens = step_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Takes a finished or cancelled sequence out and frees its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self.blocks.deallocate(sequence.block_table)

    def schedule(self) -> list[ScheduledChunk]:
        """The next step's chunks, decoding sequences first; empty when nothing can run."""
        plan: list[ScheduledChunk] = []
        budget = self.step_tokens
        for decoding in (True, False):
            for sequence in list(self.running):
                if sequence in self.running and (sequence.pending_tokens == 1) is decoding and budget > 0:
                    count = min(sequence.pending_tokens, budget)
                    if self._make_room(sequence, sequence.computed_tokens + count, plan):
                        plan.append(ScheduledChunk(sequence, count))
                        budget -= count
        self._admit(plan, budget)
        return plan

    def commit(self, plan: list[ScheduledChunk]) -> None:
        """Records that the plan's tokens are in the KV cache."""
        for chunk in plan:
            chunk.sequence.computed_tokens += chunk.count

    def _admit(self, plan: list[ScheduledChunk], budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.max_batch_size:
            sequence = self.waiting[0]
            if not self.blocks.can_allocate(sequence.block_table, len(sequence.token_ids)):
                return
            self.blocks.allocate(sequence.block_table, len(sequence.token_ids))
            self.running.append(self.waiting.popleft())
            count = min(sequence.pending_tokens, budget)
            plan.append(ScheduledChunk(sequence, count))
            budget -= count

    def _make_room(self, sequence: Sequence, tokens: int, plan: list[ScheduledChunk]) -> bool:
        """Extends the sequence's table, preempting younger ones if need be; False if it was preempted itself."""
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
        sequence.computed_tokens = 0
        self.waiting.appendleft(sequence)

    def check_integrity(self) -> None:
        self.blocks.check_integrity([sequence.block_table for sequence in [*self.running, *self.waiting]])
