"""Random arrivals, steps, level changes, ends and cancellations against a model of what the KV cache really holds."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import Sequence

TOTAL_BLOCKS, BLOCK, BATCH, STEP_TOKENS, MAX_TOKENS = 12, 4, 4, 10, 40


class SchedulerMachine(RuleBasedStateMachine):
    """No block lost or wrongly shared, order by rank, progress in every step, everything ends and is freed."""

    def __init__(self):
        super().__init__()
        self.scheduler = Scheduler(BlockManager(TOTAL_BLOCKS, BLOCK), BATCH, STEP_TOKENS, ageing_seconds=2.0)
        self.live = []
        self.count = 0
        self.now = 0.0
        self.cells = {}  # (block, offset) -> what a computed token left there: (level, token, the cell before)
        self.contents = {}  # request id -> the same for each of its computed positions

    @rule(
        length=st.integers(1, 30),
        theme=st.sampled_from((0, 0, 0, 1)),
        fork=st.integers(0, 30),
        priority=st.integers(-2, 2),
        level=st.sampled_from((0, 0, 1)),
    )
    def arrive(self, length, theme, fork, priority, level):
        """Prompts of one theme agree up to `fork`."""
        prompt = [theme if position < fork else 10 + self.count for position in range(length)]
        self.live.append(Sequence(self.count, prompt, length, priority, self.now, level))
        self.scheduler.add(self.live[-1])
        self.count += 1

    @rule(seconds=st.sampled_from((0.5, 3.0)))
    def wait(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 100))
    def cancel(self, index):
        one = self.live.pop(index % len(self.live))
        self.scheduler.remove(one)
        assert one.block_table == []

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 100))
    def discard(self, index):
        one = self.live[index % len(self.live)]
        if one in self.scheduler.running:
            self.live.remove(one)
            self.scheduler.discard(one)

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 100), level=st.integers(0, 1))
    def change_level(self, index, level):
        self.scheduler.change_level(self.live[index % len(self.live)], level)

    @precondition(lambda self: self.live)
    @rule()
    def step(self):
        plan = self.scheduler.schedule()
        self.check_plan(plan)
        for chunk in plan:
            self.compute(chunk)
        complete = [chunk.sequence for chunk in plan if chunk.completes_input]
        self.scheduler.commit(plan)
        for one in complete:
            one.token_ids.append(0)
        self.contents = {one.request_id: self.contents[one.request_id] for one in self.scheduler.running}
        for one in [one for one in self.live if len(one.token_ids) >= MAX_TOKENS]:
            self.live.remove(one)
            self.scheduler.remove(one)

    def check_plan(self, plan):
        assert plan, "live requests, yet nothing runs"
        assert sum(chunk.count for chunk in plan) <= STEP_TOKENS
        planned = [chunk.sequence for chunk in plan]
        assert len(set(map(id, planned))) == len(planned)
        assert all(chunk.count > 0 for chunk in plan)
        assert self.scheduler.running[0] in planned, "the most urgent running sequence starves"

    def compute(self, chunk):
        """Writes the chunk's cells, after checking that all before it are what the sequence itself would have left."""
        one, start = chunk.sequence, chunk.sequence.computed_tokens
        contents = self.contents.get(one.request_id)
        if contents is None:  # newly admitted: what it found cached must be as if computed at its present level
            contents = self.contents[one.request_id] = []
            for token in one.token_ids[:start]:
                contents.append(hash((one.level, token, contents[-1] if contents else None)))
        assert len(contents) == start
        found = [self.cells[one.block_table[at // BLOCK], at % BLOCK] for at in range(start)]
        assert found == contents, "a sequence reads another's keys and values"
        for at in range(start, start + chunk.count):
            contents.append(hash((one.level, one.token_ids[at], contents[-1] if contents else None)))
            self.cells[one.block_table[at // BLOCK], at % BLOCK] = contents[-1]

    @invariant()
    def books_add_up(self):
        self.scheduler.check_integrity()
        assert len(self.scheduler.running) <= BATCH
        assert sorted(map(id, [*self.scheduler.running, *self.scheduler.waiting])) == sorted(map(id, self.live))
        assert all(not one.block_table and not one.computed_tokens for one in self.scheduler.waiting)

    @invariant()
    def queues_are_in_order_of_rank(self):
        for queue in (self.scheduler.running, self.scheduler.waiting):
            assert queue == sorted(queue, key=self.scheduler.rank)

    def teardown(self):
        """Every request ends within a bound (the steps each would need alone), and leaves nothing behind."""
        for _ in range(sum(MAX_TOKENS for _ in self.live)):
            if self.live:
                self.step()
        assert not self.live, "requests starve"
        assert self.scheduler.blocks.used_blocks == 0
        self.scheduler.check_integrity()


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
