"""The engine's thread: what it checks when there is nothing to do."""

import threading

import torch

from inference_pods.engine.loop import EngineLoop
from inference_pods.engine.metrics import EngineMetrics
from inference_pods.engine.sequence import FailureKind, FinishReason, GenerationRequest, SamplingParams
from inference_pods.kernels.decoder import DeviceLostError


def start_loop(core):
    """A running loop, and an event that is set once some request has ended."""
    ended = threading.Event()

    def deliver(events):
        if any(event.is_last for event in events):
            ended.set()

    loop = EngineLoop(core, deliver, lambda result, seconds: None)
    loop.start()
    return loop, ended


def test_the_pool_is_checked_when_the_loop_goes_idle(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    core.scheduler.blocks.allocate([], 1)
    loop, ended = start_loop(core)
    loop.submit(1, GenerationRequest(tuple(tokenizer.encode("Hello")), 2))
    assert ended.wait(5)
    loop.stop()
    assert core.scheduler.stats.integrity_failures == 1
    assert core.scheduler.blocks.free_blocks == core.scheduler.blocks.total_blocks
    assert not loop.has_crashed


def test_metrics_follow_the_schedulers_totals(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    metrics = EngineMetrics("smol", "full", 64)
    core.scheduler.stats.preemptions = 3
    metrics.follow(core.scheduler)
    core.scheduler.stats.preemptions = 5
    metrics.follow(core.scheduler)
    assert 'adaptive_engine_preemptions_total{model="smol",tier="full"} 5.0' in metrics.render().decode()


def test_a_request_that_cannot_be_begun_ends_alone(build_core, scripted_runner, tokenizer):
    events, ended = {}, threading.Event()

    def deliver(delivered):
        for event in delivered:
            events.setdefault(event.request_id, []).append(event)
        if all(number in events and events[number][-1].is_last for number in (1, 2)):
            ended.set()

    loop = EngineLoop(build_core(scripted_runner), deliver, lambda result, seconds: None)
    prompt = tuple(tokenizer.encode("Hello"))
    loop.submit(1, GenerationRequest(prompt, 2, SamplingParams(do_sample=True, seed=-1)))
    loop.submit(2, GenerationRequest(prompt, 2))
    loop.start()
    assert ended.wait(5)
    loop.stop()
    assert events[1][-1].failure is FailureKind.INTERNAL
    assert events[2][-1].finish is FinishReason.LENGTH
    assert not loop.has_crashed


def collect_events(core):
    """A loop that is not started, its events by request, and a semaphore that counts those that have ended."""
    events, ended = {}, threading.Semaphore(0)

    def deliver(delivered):
        for event in delivered:
            events.setdefault(event.request_id, []).append(event)
            if event.is_last:
                ended.release()

    return EngineLoop(core, deliver, lambda result, seconds: None), events, ended


def test_a_request_that_comes_after_the_loop_crashed_fails_at_once(build_core, scripted_runner, tokenizer, monkeypatch):
    core = build_core(scripted_runner)
    loop, events, ended = collect_events(core)

    def crash():
        raise OSError("scripted crash")

    monkeypatch.setattr(core, "step", crash)
    loop.start()
    prompt = tuple(tokenizer.encode("Hello"))
    loop.submit(1, GenerationRequest(prompt, 2))
    assert ended.acquire(timeout=5)
    assert loop.has_crashed
    loop.submit(2, GenerationRequest(prompt, 2))
    assert ended.acquire(timeout=5)
    assert [events[number][-1].failure for number in (1, 2)] == [FailureKind.STOPPED] * 2
    loop.stop()


def test_requests_are_failed_even_if_the_books_that_crashed_the_loop_cannot_be_closed(
    build_core, scripted_runner, tokenizer, monkeypatch
):
    core = build_core(scripted_runner)
    loop, events, ended = collect_events(core)

    def crash(*_):
        raise ValueError("the sequence is in no list")

    monkeypatch.setattr(core.scheduler, "remove", crash)
    monkeypatch.setattr(core.scheduler, "schedule", crash)
    prompt = tuple(tokenizer.encode("Hello"))
    for number in (1, 2):
        loop.submit(number, GenerationRequest(prompt, 2))
    loop.start()
    for _ in range(2):
        assert ended.acquire(timeout=5)
    assert {events[number][-1].failure for number in (1, 2)} == {FailureKind.STOPPED}
    loop.stop()


def test_a_lost_device_crashes_the_loop_and_a_device_that_lacked_memory_once_goes_on(
    build_core, scripted_runner, tokenizer, monkeypatch
):
    errors = [torch.OutOfMemoryError("CUDA out of memory"), DeviceLostError("cuda:0 fails every call")]
    calls = []

    def fail(chunks):
        calls.append(len(chunks))
        raise errors[len(calls) - 1]

    monkeypatch.setattr(scripted_runner, "step", fail)
    loop, events, ended = collect_events(build_core(scripted_runner))
    loop.start()
    prompt = tuple(tokenizer.encode("Hello"))
    loop.submit(1, GenerationRequest(prompt, 2))
    assert ended.acquire(timeout=5)
    assert not loop.has_crashed
    loop.submit(2, GenerationRequest(prompt, 2))
    assert ended.acquire(timeout=5)
    loop.submit(3, GenerationRequest(prompt, 2))
    assert ended.acquire(timeout=5)
    assert loop.has_crashed
    failures = [events[number][-1].failure for number in (1, 2, 3)]
    assert failures == [FailureKind.MODEL, FailureKind.STOPPED, FailureKind.STOPPED]
    assert len(calls) == 2
    loop.stop()
