"""Random arrivals, steps, drafts, level changes, ends and cancellations against a model of what the KV cache really
holds, with and without an objective for the time per output token.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import Sequence
from inference_pods.engine.speculation import DraftSettings, SpeculationGate

BLOCK, BATCH, STEP_TOKENS, MAX_TOKENS = 4, 4, 20, 40
DRAFT_LEVEL, DRAFT_TOKENS = 1, 3
TPOT_SECONDS = 0.03
SAID, MISSED = 0, 9  # a token of the top level, and a drafted one that it does not agree to


class ToldGate(SpeculationGate):
    """Drafts when told to, whatever it gains."""

    told = True

    def wants_drafts(self, sequences, drafting):
        return self.told


class SchedulerMachine(RuleBasedStateMachine):
    """No block lost or wrongly shared, order by rank, progress in every step, everything ends and is freed."""

    def __init__(self):
        super().__init__()
        self.seconds_per_row = 0.003
        self.live = []
        self.count = 0
        self.now = 0.0
        self.cells = {}  # (block, offset) -> what a computed token left there: (level, token, the cell before)
        self.contents = {}  # request id -> the same for each of its computed positions

    @initialize(
        blocks=st.sampled_from((12, 12, 40)),  # too few for the batch, and enough
        tpot_seconds=st.sampled_from((None, TPOT_SECONDS)),
        drafts=st.booleans(),
    )
    def begin(self, blocks, tpot_seconds, drafts):
        self.scheduler = Scheduler(
            BlockManager(blocks, BLOCK),
            BATCH,
            STEP_TOKENS,
            tpot_seconds=tpot_seconds,
            drafts=DraftSettings(DRAFT_LEVEL, DRAFT_TOKENS) if drafts else None,
            ageing_seconds=2.0,
        )
        self.scheduler.gate = ToldGate()

    @rule(
        length=st.integers(1, 30),
        theme=st.sampled_from((0, 0, 0, 1)),
        fork=st.integers(0, 30),
        priority=st.integers(-2, 2),
        level=st.sampled_from((0, 0, 1)),
        draftable=st.booleans(),
    )
    def arrive(self, length, theme, fork, priority, level, draftable):
        """Prompts of one theme agree up to `fork`."""
        prompt = [theme if position < fork else 10 + self.count for position in range(length)]
        until = MAX_TOKENS if draftable else 0
        self.live.append(Sequence(self.count, prompt, length, priority, self.now, level, until))
        self.scheduler.add(self.live[-1])
        self.count += 1

    @rule(seconds=st.sampled_from((0.5, 3.0)), seconds_per_row=st.sampled_from((0.001, 0.003, 0.02)))
    def wait(self, seconds, seconds_per_row):
        """Meanwhile the machine may have become faster or slower."""
        self.now += seconds
        self.seconds_per_row = seconds_per_row

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
    @rule(steps=st.integers(1, 4), told=st.booleans(), agreed=st.integers(0, DRAFT_TOKENS))
    def run(self, steps, told, agreed):
        for _ in range(steps):
            if self.live:
                self.step(told, agreed)

    def step(self, told=True, agreed=1):
        """`agreed`: so many drafted tokens of each sequence are what the top level says, too."""
        self.scheduler.gate.told = told
        plan = self.scheduler.schedule()
        self.check_plan(plan)
        accepted = [min(agreed, chunk.draft) for chunk in plan]
        for chunk, count in zip(plan, accepted, strict=True):
            self.draft(chunk)
            self.compute(chunk, count)
        self.scheduler.step_times.observe(rows_by_level(plan), self.seconds_per_row * count_rows(plan))
        complete = [chunk.completes_input for chunk in plan]
        self.scheduler.commit(plan)
        for chunk, count, is_complete in zip(plan, accepted, complete, strict=True):
            if is_complete:
                chunk.sequence.token_ids += [SAID] * (count + 1)
            if count:
                self.scheduler.commit_drafts(chunk.sequence, count)
        self.contents = {one.request_id: self.contents[one.request_id] for one in self.scheduler.running}
        for one in [one for one in self.live if len(one.token_ids) >= MAX_TOKENS]:
            assert len(one.token_ids) == MAX_TOKENS or not one.draftable_until
            self.live.remove(one)
            self.scheduler.remove(one)

    def check_plan(self, plan):
        assert plan, "live requests, yet nothing runs"
        assert count_rows(plan) <= STEP_TOKENS
        planned = [chunk.sequence for chunk in plan]
        assert len(set(map(id, planned))) == len(planned)
        assert all(chunk.count > 0 for chunk in plan)
        assert self.scheduler.running[0] in planned, "the most urgent running sequence starves"
        for chunk in plan:
            assert not chunk.draft or (chunk.sequence.level == 0 and chunk.completes_input)
        if any(chunk.draft for chunk in plan):
            assert all(chunk.count == 1 for chunk in plan), "prompts need the budget more than drafts"
        if any(one.request_id not in self.contents for one in self.scheduler.running):
            assert len(self.scheduler.running) <= self.scheduler.limit.size, "admitted beyond the limit"

    def draft(self, chunk):
        """What the drafting level leaves in the cells; the verifying step has to overwrite all of it."""
        one, start = chunk.sequence, chunk.sequence.computed_tokens
        for at in range(start, start + chunk.draft):
            self.cells[one.block_table[at // BLOCK], at % BLOCK] = "drafted"

    def compute(self, chunk, accepted):
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
        tokens = one.token_ids[start : start + chunk.count]
        tokens += [SAID] * accepted + [MISSED] * (chunk.draft - accepted)
        for at, token in enumerate(tokens, start):
            contents.append(hash((one.level, token, contents[-1] if contents else None)))
            self.cells[one.block_table[at // BLOCK], at % BLOCK] = contents[-1]
        del contents[start + chunk.count + accepted :]  # what was not agreed to is computed again

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


def count_rows(plan):
    """Rows of the step that verifies."""
    return sum(chunk.count + chunk.draft for chunk in plan)


def rows_by_level(plan):
    rows = Counter()
    for chunk in plan:
        rows[chunk.sequence.level] += chunk.count + chunk.draft
    return rows


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
