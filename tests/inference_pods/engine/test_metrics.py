"""What the metrics say of the scheduler: the batch limit and its cause, and what drafting accepts and gains."""

import pytest

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import GenerationRequest, Sequence
from inference_pods.engine.speculation import DraftSettings
from inference_pods.kernels.formats import BLOCK_TOKENS

LABELS = {"model": "smol", "tier": "full"}


def read(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"adaptive_engine_{name}", {**LABELS, **labels})


def read_batch_limit(scheduler):
    """The limit, and what is shown to bind it."""
    metrics = EngineMetrics("smol", "full", 64)
    metrics.follow(scheduler)
    bounds = {one: read(metrics, "batch_limit_bound", bound=one) for one in ("max", "tpot", "memory", "queue")}
    assert sorted(bounds.values()) == [0.0, 0.0, 0.0, 1.0]
    return read(metrics, "batch_limit"), max(bounds, key=bounds.get)


def fill(scheduler, count=3, tokens=4):
    for number in range(count):
        scheduler.add(Sequence(number, [number] * tokens, tokens))


def test_an_idle_engine_could_run_its_maximum():
    scheduler = Scheduler(BlockManager(64, BLOCK_TOKENS), 2, 64)
    assert read_batch_limit(scheduler) == (2, "queue")


def test_more_requests_than_the_maximum_are_bound_by_it():
    scheduler = Scheduler(BlockManager(64, BLOCK_TOKENS), 2, 64)
    fill(scheduler)
    scheduler.schedule()
    assert read_batch_limit(scheduler) == (2, "max")


def test_an_objective_that_is_out_of_reach_lets_one_run():
    scheduler = Scheduler(BlockManager(64, BLOCK_TOKENS), 2, 64, tpot_seconds=0.010)
    for rows in (4, 20) * 8:
        scheduler.step_times.observe({0: rows}, 0.005 * rows)
    fill(scheduler)
    scheduler.schedule()
    assert read_batch_limit(scheduler) == (1, "tpot")


def test_a_full_cache_lets_those_run_that_fit():
    scheduler = Scheduler(BlockManager(4, BLOCK_TOKENS), 3, 128)
    fill(scheduler, tokens=BLOCK_TOKENS + 1)
    scheduler.schedule()
    assert read_batch_limit(scheduler) == (2, "memory")


def generate(build_core, runner, tokenizer, draft_seconds):
    """A core that has answered one long request; its top level takes 10 ms a step and 2 ms a row, drafts as told."""
    now = [0.0]
    step = runner.step

    def timed_step(chunks):
        now[0] += draft_seconds if all(chunk.level for chunk in chunks) else 0.010 + 0.002 * len(chunks[0].token_ids)
        return step(chunks)

    runner.step = timed_step
    core = build_core(runner, drafts=DraftSettings(1, 4), clock=lambda: now[0])
    core.add(1, GenerationRequest(tuple(tokenizer.encode("Hello")), 200, ignore_eos=True))
    while not core.scheduler.is_idle:
        core.step()
    return core


def test_drafts_that_pay_are_shown_active_with_their_gain_and_what_was_accepted(build_core, scripted_runner, tokenizer):
    """Every draft is right: four drafts and a verification of 20 ms give five tokens, which else take 12 ms each."""
    core = generate(build_core, scripted_runner, tokenizer, draft_seconds=0.001)
    metrics = EngineMetrics("smol", "full", 64)
    metrics.follow(core.scheduler)
    assert read(metrics, "speculation_active") == 1
    assert read(metrics, "speculation_gain") == pytest.approx(0.012 * 5 / 0.024, rel=0.02)
    accepted = read(metrics, "accepted_tokens_total")
    assert accepted == read(metrics, "draft_tokens_total")
    assert 3.5 * read(metrics, "verifications_total") < accepted <= 4 * read(metrics, "verifications_total")
    metrics.follow(core.scheduler)
    assert read(metrics, "accepted_tokens_total") == accepted, "totals are shown, not added again"


def test_drafts_that_lose_are_shown_inactive_and_wrong_ones_are_not_accepted(build_core, scripted_runner, tokenizer):
    scripted_runner.missed_drafts = frozenset(scripted_runner.reply)
    core = generate(build_core, scripted_runner, tokenizer, draft_seconds=0.010)
    metrics = EngineMetrics("smol", "full", 64)
    metrics.follow(core.scheduler)
    assert read(metrics, "speculation_active") == 0
    assert 0 < read(metrics, "speculation_gain") < 0.5
    assert read(metrics, "draft_tokens_total") > 0
    assert read(metrics, "accepted_tokens_total") == 0


def test_without_drafts_gain_and_activity_are_zero():
    metrics = EngineMetrics("smol", "full", 64)
    metrics.follow(Scheduler(BlockManager(64, BLOCK_TOKENS), 2, 64))
    assert (read(metrics, "speculation_active"), read(metrics, "speculation_gain")) == (0, 0)
