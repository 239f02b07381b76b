import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import Sequence


def sequence(number, prompt_tokens):
    return Sequence(number, [1] * prompt_tokens, prompt_tokens)


def run_step(scheduler):
    """What the engine does with a plan, tokens left out."""
    plan = scheduler.schedule()
    complete = [chunk.sequence for chunk in plan if chunk.completes_input]
    scheduler.commit(plan)
    for one in complete:
        one.token_ids.append(1)
    return plan


def build(blocks=16, batch=3, step_tokens=8):
    return Scheduler(BlockManager(blocks, 4), batch, step_tokens)


def test_requests_are_admitted_in_order_up_to_the_batch_size():
    scheduler = build(batch=2)
    for number in range(3):
        scheduler.add(sequence(number, 2))
    plan = run_step(scheduler)
    assert [chunk.sequence.request_id for chunk in plan] == [0, 1]
    assert [waiting.request_id for waiting in scheduler.waiting] == [2]


def test_decoding_comes_first_and_the_prompt_gets_the_rest_of_the_budget():
    scheduler = build(step_tokens=8)
    scheduler.add(sequence(0, 3))
    run_step(scheduler)
    scheduler.add(sequence(1, 20))
    plans = [[(c.sequence.request_id, c.count) for c in run_step(scheduler)] for _ in range(4)]
    assert plans == [[(0, 1), (1, 7)], [(0, 1), (1, 7)], [(0, 1), (1, 6)], [(0, 1), (1, 1)]]


def test_a_prompt_that_does_not_fit_waits_and_keeps_its_place():
    scheduler = build(blocks=4)
    scheduler.add(sequence(0, 9))
    run_step(scheduler)
    scheduler.add(sequence(1, 10))
    scheduler.add(sequence(2, 1))
    assert [chunk.sequence.request_id for chunk in run_step(scheduler)] == [0]
    assert [waiting.request_id for waiting in scheduler.waiting] == [1, 2]


def test_without_blocks_the_youngest_gives_way_and_is_computed_again():
    scheduler = build(blocks=4, step_tokens=16)
    scheduler.add(sequence(0, 7))
    scheduler.add(sequence(1, 7))
    run_step(scheduler)
    run_step(scheduler)
    plan = run_step(scheduler)
    assert [chunk.sequence.request_id for chunk in plan] == [0]
    preempted = scheduler.waiting[0]
    assert (preempted.request_id, preempted.computed_tokens, preempted.block_table) == (1, 0, [])
    scheduler.remove(scheduler.running[0])
    assert [(c.sequence.request_id, c.count) for c in run_step(scheduler)] == [(1, 9)]


def test_removing_frees_the_blocks_at_once_running_or_waiting():
    scheduler = build(batch=1)
    running, waiting = sequence(0, 5), sequence(1, 5)
    scheduler.add(running)
    scheduler.add(waiting)
    run_step(scheduler)
    scheduler.remove(waiting)
    scheduler.remove(running)
    assert scheduler.is_idle
    assert scheduler.blocks.used_blocks == 0


def test_a_step_smaller_than_the_batch_is_refused():
    with pytest.raises(ValueError, match="step_tokens"):
        build(batch=9, step_tokens=8)


def test_a_lost_or_shared_block_is_found():
    blocks = BlockManager(4, 4)
    table = []
    blocks.allocate(table, 8)
    blocks.check_integrity([table])
    with pytest.raises(RuntimeError, match="inconsistent"):
        blocks.check_integrity([])
    with pytest.raises(RuntimeError, match="inconsistent"):
        blocks.check_integrity([table, table[:1]])


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, steps, ends and cancellations: no block lost or shared, first come first served, progress."""

    TOTAL_BLOCKS, BLOCK, MAX_TOKENS = 12, 4, 40

    def __init__(self):
        super().__init__()
        self.scheduler = Scheduler(BlockManager(self.TOTAL_BLOCKS, self.BLOCK), 4, 10)
        self.live = []
        self.count = 0

    @rule(prompt_tokens=st.integers(1, 30))
    def arrive(self, prompt_tokens):
        self.live.append(sequence(self.count, prompt_tokens))
        self.scheduler.add(self.live[-1])
        self.count += 1

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 100))
    def cancel(self, index):
        self.scheduler.remove(self.live.pop(index % len(self.live)))

    @precondition(lambda self: self.live)
    @rule()
    def step(self):
        before = sum(one.computed_tokens for one in self.live)
        plan = run_step(self.scheduler)
        assert plan, "live requests, yet nothing runs"
        assert sum(chunk.count for chunk in plan) <= 10
        assert len({id(chunk.sequence) for chunk in plan}) == len(plan)
        for chunk in plan:
            assert len(chunk.sequence.block_table) * self.BLOCK >= chunk.sequence.computed_tokens
        oldest = min(self.live, key=lambda one: one.request_id)
        assert any(chunk.sequence is oldest for chunk in plan), f"the oldest request starves ({before} computed)"
        for one in [one for one in self.live if len(one.token_ids) >= self.MAX_TOKENS]:
            self.live.remove(one)
            self.scheduler.remove(one)

    @invariant()
    def blocks_add_up(self):
        self.scheduler.check_integrity()
        assert len(self.scheduler.running) <= 4
        assert sorted(map(id, [*self.scheduler.running, *self.scheduler.waiting])) == sorted(map(id, self.live))

    @invariant()
    def nobody_overtakes(self):
        order = [one.request_id for one in [*self.scheduler.running, *self.scheduler.waiting]]
        assert order == sorted(order)


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
