from collections import Counter

import pytest

from inference_pods.engine.batch_limit import BatchBound, BatchLimit
from inference_pods.engine.block_manager import BlockManager, IntegrityError
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import Sequence


def sequence(number, prompt_tokens, **fields):
    """A prompt that shares its beginning with no other number's."""
    return Sequence(number, [100 + number] * prompt_tokens, prompt_tokens, **fields)


def twin(number, prompt, **fields):
    return Sequence(number, list(prompt), len(prompt), **fields)


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
    assert sum(c.count for c in run_step(scheduler) if c.sequence is preempted) == 5, "its first block was found again"


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


def test_the_more_urgent_go_first_and_waiting_makes_up_for_priority():
    scheduler = Scheduler(BlockManager(64, 4), 1, 8, ageing_seconds=10)
    for number, priority, arrived_at in ((0, 0, 0.0), (1, 1, 0.0), (2, 0, 9.0), (3, 0, 11.0), (4, -1, 15.0)):
        scheduler.add(sequence(number, 2, priority=priority, arrived_at=arrived_at))
    assert [one.request_id for one in scheduler.waiting] == [0, 4, 2, 1, 3]


def test_a_stream_of_urgent_requests_does_not_starve_the_patient():
    scheduler = Scheduler(BlockManager(64, 4), 1, 8, ageing_seconds=10)
    scheduler.add(sequence(0, 2, priority=3))
    for second in range(1, 100):
        scheduler.add(sequence(second, 2, priority=0, arrived_at=float(second)))
        plan = run_step(scheduler)
        if plan[0].sequence.request_id == 0:
            break
        scheduler.remove(plan[0].sequence)
    assert 29 <= second <= 31


def test_without_blocks_the_least_urgent_gives_way_even_if_it_came_first():
    scheduler = build(blocks=4, step_tokens=16)
    scheduler.add(sequence(0, 7, priority=1))
    scheduler.add(sequence(1, 7))
    run_step(scheduler)
    run_step(scheduler)
    assert [chunk.sequence.request_id for chunk in run_step(scheduler)] == [1]
    assert scheduler.stats.preemptions == 1


@pytest.mark.parametrize(
    ("length", "hit_tokens"),
    [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8), (20, 8)],
    ids=lambda value: str(value),
)
def test_full_blocks_of_an_equal_beginning_are_shared_and_the_last_token_is_always_computed(length, hit_tokens):
    scheduler = build(step_tokens=32)
    first = twin(0, range(9))
    scheduler.add(first)
    run_step(scheduler)
    second = twin(1, range(length))
    scheduler.add(second)
    chunk = run_step(scheduler)[-1]
    assert (chunk.sequence, chunk.count) == (second, length - hit_tokens)
    assert second.block_table[: hit_tokens // 4] == first.block_table[: hit_tokens // 4]
    assert not set(second.block_table[hit_tokens // 4 :]) & set(first.block_table)
    assert scheduler.stats.prefix_hit_tokens == hit_tokens
    assert scheduler.stats.prefix_miss_tokens == 9 + length - hit_tokens


def test_a_beginning_is_found_again_after_its_request_ended_and_never_across_levels():
    scheduler = build(step_tokens=32)
    for number, level, hits in ((0, 0, 0), (1, 1, 0), (2, 0, 8), (3, 1, 16)):
        one = twin(number, range(9), level=level)
        scheduler.add(one)
        run_step(scheduler)
        assert scheduler.stats.prefix_hit_tokens == hits
        scheduler.remove(one)
        assert scheduler.blocks.used_blocks == 0


def test_without_the_prefix_cache_nothing_is_shared():
    scheduler = Scheduler(BlockManager(16, 4, prefix_cache=False), 3, 32)
    for number in range(2):
        scheduler.add(twin(number, range(9)))
        run_step(scheduler)
    assert scheduler.stats.prefix_hit_tokens == 0
    assert scheduler.blocks.used_blocks == 6


def test_a_twin_waits_for_the_blocks_that_are_being_computed():
    """Forks of one request arrive together: the beginning is computed once, each one's last partial block by itself."""
    scheduler = build(step_tokens=8)
    for number in range(3):
        scheduler.add(twin(number, range(10)))
    plans = [[(c.sequence.request_id, c.count) for c in run_step(scheduler)] for _ in range(3)]
    assert plans == [[(0, 8)], [(0, 2), (1, 2), (2, 2)], [(0, 1), (1, 1), (2, 1)]]


def test_blocks_of_several_levels_are_not_shared():
    scheduler = build(step_tokens=8)
    mixed = twin(0, range(17))
    scheduler.add(mixed)
    run_step(scheduler)
    scheduler.change_level(mixed, 1)
    run_step(scheduler)
    run_step(scheduler)
    for number, level, hits in ((1, 0, 8), (2, 1, 0)):
        before = scheduler.stats.prefix_hit_tokens
        scheduler.add(twin(number, range(17), level=level))
        run_step(scheduler)
        assert scheduler.stats.prefix_hit_tokens - before == hits
        scheduler.remove(scheduler.running[-1])


def test_discarded_blocks_are_not_found_again():
    scheduler = build(step_tokens=32)
    bad = twin(0, range(9))
    scheduler.add(bad)
    run_step(scheduler)
    scheduler.discard(bad)
    scheduler.add(twin(1, range(9)))
    run_step(scheduler)
    assert scheduler.stats.prefix_hit_tokens == 0
    scheduler.check_integrity()


def test_a_preempted_sequence_finds_its_own_blocks_again():
    scheduler = build(blocks=4, step_tokens=16)
    scheduler.add(sequence(0, 7))
    scheduler.add(sequence(1, 7))
    for _ in range(3):
        run_step(scheduler)
    assert [waiting.request_id for waiting in scheduler.waiting] == [1]
    scheduler.remove(scheduler.running[0])
    assert [(c.sequence.request_id, c.count) for c in run_step(scheduler)] == [(1, 5)]


def test_a_wrong_pool_is_rebuilt_only_while_nothing_is_live():
    scheduler = build()
    assert scheduler.repair_if_inconsistent() is None
    scheduler.blocks.allocate([], 4)
    scheduler.add(sequence(0, 2))
    with pytest.raises(IntegrityError, match="15 free"):
        scheduler.repair_if_inconsistent()
    scheduler.remove(scheduler.waiting[0])
    assert "15 free" in str(scheduler.repair_if_inconsistent())
    assert scheduler.repair_if_inconsistent() is None
    assert scheduler.stats.integrity_failures == 2


def rows_by_level(plan):
    rows = Counter()
    for chunk in plan:
        rows[chunk.sequence.level] += chunk.count
    return rows


def simulate(scheduler, fixed, slope, steps, arrivals=()):
    """Steps of fixed + slope * rows seconds (a list has a value per level; levels run in turn); what arrives (step,
    sequence) joins; seconds and plan of each step.
    """
    arrivals, taken = dict(arrivals), []
    fixed, slope = ([value] if isinstance(value, float) else value for value in (fixed, slope))
    for step in range(steps):
        if step in arrivals:
            scheduler.add(arrivals[step])
        plan = scheduler.schedule()
        seconds = sum(fixed[level] + slope[level] * rows for level, rows in rows_by_level(plan).items())
        complete = [chunk.sequence for chunk in plan if chunk.completes_input]
        decoding = any(chunk.sequence.generated_tokens for chunk in plan)
        scheduler.step_times.observe(rows_by_level(plan), seconds)
        scheduler.commit(plan)
        for one in complete:
            one.token_ids.append(1)
        taken.append((seconds, decoding, plan))
    return taken


def test_prompt_chunks_beside_decoding_shrink_until_the_objective_holds():
    scheduler = Scheduler(BlockManager(512, 4), 4, 64, tpot_seconds=0.050)
    taken = simulate(scheduler, 0.010, 0.001, 80, [(0, sequence(0, 40)), (20, sequence(1, 600))])
    assert any(len(plan) == 1 and plan[0].count == 40 for _, _, plan in taken[:1]), "alone, the token budget rules"
    beside = [seconds for seconds, decoding, plan in taken if decoding and any(chunk.count > 1 for chunk in plan)]
    assert beside
    assert max(beside[2:]) <= 0.050
    assert beside[4] > 0.040, "the time that the objective leaves is used"


def test_without_an_objective_the_token_budget_rules():
    scheduler = Scheduler(BlockManager(512, 4), 4, 64)
    taken = simulate(scheduler, 0.010, 0.001, 30, [(0, sequence(0, 40)), (20, sequence(1, 300))])
    assert [sum(chunk.count for chunk in plan) for _, _, plan in taken[20:24]] == [64] * 4


def test_the_batch_follows_the_objective_and_says_so():
    """40 ms fixed + 5 ms a row, 90 ms planned of 100: 10 rows, 8 of them kept for the waiting prompts: two run."""
    scheduler = Scheduler(BlockManager(512, 4), 16, 16, tpot_seconds=0.100)
    scheduler.add(sequence(0, 30))
    simulate(scheduler, 0.040, 0.005, 20)
    for number in range(1, 9):
        scheduler.add(sequence(number, 30))
    simulate(scheduler, 0.040, 0.005, 30)
    assert len(scheduler.running) == 2
    assert scheduler.limit == BatchLimit(2, BatchBound.TPOT)


def run_both_levels(scheduler, cost):
    """Each level alone in turn, so that its pace is known; what runs last is one sequence at the lower level."""
    for number, level in enumerate((0, 1)):
        alone = sequence(number, 40, level=level)
        simulate(scheduler, *cost, 60, [(0, alone)])
        if level == 0:
            scheduler.remove(alone)


def test_a_prompt_of_a_slow_level_beside_decoding_of_a_fast_one_keeps_the_objective_from_its_first_step():
    """45 ms planned of 50; the fast level's row takes 4.25 ms, so 15 rows of 10 ms + 2 ms each fit."""
    scheduler = Scheduler(BlockManager(512, 4), 4, 64, tpot_seconds=0.050)
    cost = ([0.010, 0.004], [0.002, 0.00025])
    run_both_levels(scheduler, cost)
    taken = simulate(scheduler, *cost, 40, [(0, sequence(2, 300))])
    beside = [(seconds, rows_by_level(plan)[0]) for seconds, _, plan in taken if rows_by_level(plan)[0] > 1]
    assert max(seconds for seconds, _ in beside) <= 0.050
    assert max(rows for _, rows in beside) == pytest.approx(15, abs=1), "the time that the objective leaves is used"


def test_a_batch_of_slow_sequences_beside_fast_ones_keeps_the_objective_from_its_first_step():
    """90 ms planned of 100; the fast one takes 11 ms, the slow pass 30 ms + 4 ms a row: 12 rows, 8 kept for prompts."""
    scheduler = Scheduler(BlockManager(512, 4), 32, 32, tpot_seconds=0.100)
    cost = ([0.030, 0.010], [0.004, 0.001])
    run_both_levels(scheduler, cost)
    for number in range(2, 20):
        scheduler.add(sequence(number, 20))
    taken = simulate(scheduler, *cost, 40)
    assert max(seconds for seconds, _, _ in taken) <= 0.100
    assert scheduler.limit == BatchLimit(5, BatchBound.TPOT)
    assert Counter(one.level for one in scheduler.running) == {0: 4, 1: 1}


def test_the_batch_follows_the_free_blocks_once_the_usual_length_is_known():
    scheduler = build(blocks=12, batch=8, step_tokens=32)
    first = sequence(0, 4)
    scheduler.add(first)
    for _ in range(12):
        run_step(scheduler)
    scheduler.remove(first)
    for number in range(1, 8):
        scheduler.add(sequence(number, 4))
    run_step(scheduler)
    assert len(scheduler.running) == 3
    assert scheduler.limit == BatchLimit(3, BatchBound.MEMORY)


def test_a_prompt_that_does_not_fit_is_told_from_a_full_batch():
    scheduler = build(blocks=4)
    scheduler.add(sequence(0, 9))
    scheduler.add(sequence(1, 10))
    run_step(scheduler)
    run_step(scheduler)
    assert scheduler.limit == BatchLimit(1, BatchBound.MEMORY)
