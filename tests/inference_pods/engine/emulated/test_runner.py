"""The emulated runner under the real core and scheduler, on a clock that only sleeping moves."""

from __future__ import annotations

import pytest

from inference_pods.engine.batch_limit import BatchBound
from inference_pods.engine.emulated.curve import Curve
from inference_pods.engine.emulated.vocabulary import SENTENCE
from inference_pods.engine.sequence import FinishReason, GenerationRequest, SamplingParams
from inference_pods.kernels.batch import Chunk
from tests.inference_pods.engine.emulated.conftest import CURVE

PROMPT = tuple(range(100))  # bytes, so that no two blocks are equal


def request(prompt=PROMPT, tokens=10, **fields):
    return GenerationRequest(tuple(prompt), tokens, **fields)


def run(core, clock):
    """(seconds since the start, event) of everything until the engine is idle."""
    started, seen = clock.now, []
    for _ in range(10_000):
        if core.scheduler.is_idle:
            return seen
        seen += [(clock.now - started, event) for event in core.step().events]
    raise AssertionError("the engine never became idle")


def test_one_request_takes_its_prefill_and_a_step_per_token(build_emulated, clock):
    core = build_emulated()
    core.add(1, request())
    times = [at for at, _ in run(core, clock)]
    assert times[0] == pytest.approx(0.007 + 100 * 50e-6)
    assert times[-1] == pytest.approx(0.012 + 9 * 0.00703)


def test_a_batch_shares_its_steps(build_emulated, clock):
    core = build_emulated()
    for number in range(4):
        core.add(number, request([number, *PROMPT]))
    times = [at for at, event in run(core, clock) if event.request_id == 3]
    assert times[0] == pytest.approx(0.007 + 4 * 101 * 50e-6)
    assert times[-1] - times[0] == pytest.approx(9 * (0.007 + 4 * 30e-6))


def test_a_long_prompt_is_cut_into_steps_by_the_real_scheduler(build_emulated, clock):
    core = build_emulated(step_tokens=64)
    core.add(1, request(tokens=1))
    (first,) = run(core, clock)
    assert first[0] == pytest.approx(2 * 0.007 + 100 * 50e-6)


def test_a_repeated_prompt_is_quicker_because_the_real_blocks_are_shared(build_emulated, clock):
    core = build_emulated()
    core.add(1, request(tokens=1))
    run(core, clock)
    core.add(2, request(tokens=1))
    assert run(core, clock)[0][0] == pytest.approx(0.007 + 4 * 50e-6)
    assert core.scheduler.stats.prefix_hit_tokens == 96


def test_more_requests_than_blocks_wait_and_all_finish(build_emulated, clock):
    core = build_emulated(blocks=16)
    for number in range(5):
        core.add(number, request([number, *PROMPT]))
    ends = [event.request_id for _, event in run(core, clock) if event.finish]
    assert sorted(ends) == [0, 1, 2, 3, 4]
    assert core.scheduler.blocks.used_blocks == 0


def test_the_learned_step_time_bounds_the_batch_by_the_objective(build_emulated, clock):
    core = build_emulated(Curve(1000, 1000, 1000), batch=32, tpot_seconds=0.010)
    for number in range(32):
        core.add(number, request([number, *PROMPT[:8]], tokens=60))
    run(core, clock)
    for number in range(32):
        core.add(100 + number, request([number, *PROMPT[:8]], tokens=2))
    core.step()
    assert core.scheduler.limit.bound is BatchBound.TPOT
    assert len(core.scheduler.running) < 10, "10 ms carry at most 9 rows of 1 ms beside a step's own"


def test_the_text_is_the_sentence_again_and_again_to_the_length_asked_for(build_emulated, clock):
    core = build_emulated()
    core.add(1, request(tokens=len(SENTENCE) + 2))
    events = [event for _, event in run(core, clock)]
    assert "".join(event.token.text for event in events) == "".join(SENTENCE) + "".join(SENTENCE[:2])
    assert events[-1].finish is FinishReason.LENGTH


def test_sampling_with_a_usual_temperature_keeps_to_the_sentence(build_emulated, clock):
    core = build_emulated()
    core.add(1, request(tokens=12, sampling=SamplingParams(temperature=1.0, seed=5)))
    assert "".join(event.token.text for _, event in run(core, clock)) == "".join(SENTENCE)


def test_a_lower_level_has_its_own_pace(build_emulated, clock):
    core = build_emulated(CURVE, Curve(4000, 20, 40))
    core.add(1, request(level=1))
    times = [at for at, _ in run(core, clock)]
    assert times[0] == pytest.approx(0.004 + 100 * 40e-6)
    assert times[-1] - times[0] == pytest.approx(9 * 0.00402)


def test_what_the_engine_needs_between_two_steps_is_part_of_the_next(build_emulated, clock):
    core = build_emulated()
    core.add(1, request(tokens=3))
    begun = clock.now
    while not core.scheduler.is_idle:
        core.step()
        clock.now += 0.002
    assert clock.now - begun == pytest.approx(0.012 + 2 * 0.00703 + 0.002)


def test_a_step_after_a_pause_takes_its_full_time(build_emulated, clock):
    core = build_emulated()
    core.add(1, request(tokens=1))
    run(core, clock)
    clock.now += 1.0
    core.add(2, request(range(100, 200), tokens=1))
    assert run(core, clock)[0][0] == pytest.approx(0.012)


def test_an_engine_slower_than_the_curve_never_sleeps_to_catch_up(build_emulated, clock):
    core = build_emulated(Curve(1000, 0, 0))
    core.add(1, request(tokens=20))
    while not core.scheduler.is_idle:
        core.step()
        clock.now += 0.003
    assert sum(clock.slept) <= 0.001 * 20
    assert all(seconds > 0 for seconds in clock.slept)


@pytest.mark.parametrize(
    ("chunk", "words"),
    [(Chunk([1], 5, [0], 1, 1), "level 1"), (Chunk([1], 16, [0], 1), "too short"), (Chunk([1], 0, [0], 2), "scores")],
)
def test_a_chunk_that_no_decoder_could_run_is_refused_without_passing_time(build_emulated, clock, chunk, words):
    runner = build_emulated()._runner
    with pytest.raises(ValueError, match=words):
        runner.step([chunk])
    assert clock.slept == []
