from contextlib import nullcontext

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pods.engine.block_manager import IntegrityError
from inference_pods.engine.model_runner import RunnerLostError
from inference_pods.engine.sequence import FailureKind, FinishReason, GenerationRequest
from inference_pods.engine.speculation import DraftSettings
from inference_pods.kernels.decoder import DeviceLostError


def request(tokenizer, text="Hello", max_new_tokens=4, **fields):
    return GenerationRequest(tuple(tokenizer.encode(text)), max_new_tokens, **fields)


def run(core, limit=100):
    """Steps until idle; events by request."""
    events = {}
    for _ in range(limit):
        if core.scheduler.is_idle:
            return events
        for event in core.step().events:
            events.setdefault(event.request_id, []).append(event)
    raise AssertionError("the engine never became idle")


def test_a_request_runs_to_its_length(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    core.add(1, request(tokenizer))
    events = run(core)[1]
    assert [event.token.text for event in events] == ["a", "b", "c", "d"]
    assert [event.finish for event in events] == [None, None, None, FinishReason.LENGTH]
    assert core.scheduler.blocks.used_blocks == 0


def test_the_end_token_ends_and_is_marked_special(build_core, scripted_runner, tokenizer):
    scripted_runner.reply.insert(2, tokenizer.eos_id)
    core = build_core(scripted_runner)
    core.add(1, request(tokenizer, max_new_tokens=9))
    events = run(core)[1]
    assert [event.token.text for event in events] == ["a", "b", "<|im_end|>"]
    assert events[-1].token.special
    assert events[-1].finish is FinishReason.EOS


def test_a_stop_string_ends_across_tokens(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    core.add(1, request(tokenizer, max_new_tokens=20, stop_strings=("cd",)))
    events = run(core)[1]
    assert "".join(event.token.text for event in events) == "abcd"
    assert events[-1].finish is FinishReason.STOP


def test_a_cancelled_request_is_gone_from_the_very_next_step(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    for number in (1, 2):
        core.add(number, request(tokenizer, max_new_tokens=50))
    core.step()
    core.cancel(1)
    result = core.step()
    assert [event.request_id for event in result.events] == [2]
    assert len(scripted_runner.steps[-1]) == 1
    core.cancel(2)
    core.cancel(2)
    assert core.scheduler.blocks.used_blocks == 0


def test_scores_that_are_not_numbers_end_only_their_own_request(build_core, scripted_runner, tokenizer):
    poison = tokenizer.encode("Z")[0]
    scripted_runner.poison_token = poison
    core = build_core(scripted_runner)
    core.add(1, request(tokenizer, "Z"))
    core.add(2, request(tokenizer))
    events = run(core)
    assert events[1][0].error
    assert events[2][-1].finish is FinishReason.LENGTH


def test_a_failing_step_fails_its_requests_and_the_engine_goes_on(build_core, scripted_runner, tokenizer, caplog):
    core = build_core(scripted_runner)
    scripted_runner.fail = True
    core.add(1, request(tokenizer))
    assert run(core)[1][0].error
    scripted_runner.fail = False
    core.add(2, request(tokenizer))
    assert run(core)[2][-1].finish is FinishReason.LENGTH
    assert "Hello" not in caplog.text


def test_tokens_are_counted_once_for_prompt_and_output(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner, step_tokens=4)
    prompt = request(tokenizer, "one two three four five six seven", max_new_tokens=3)
    core.add(1, prompt)
    results = []
    while not core.scheduler.is_idle:
        results.append(core.step())
    assert sum(result.prompt_tokens for result in results) == len(prompt.prompt_ids)
    assert sum(result.generated_tokens for result in results) == 3


@pytest.mark.parametrize("count", [0, 3])
def test_top_tokens_come_when_asked_for(build_core, scripted_runner, tokenizer, count):
    core = build_core(scripted_runner)
    core.add(1, request(tokenizer, top_n_tokens=count))
    event = run(core)[1][0]
    assert len(event.top_tokens) == count
    if count:
        assert event.top_tokens[0].text == "a"


def test_a_deadline_ends_a_waiting_request_and_a_running_one_with_its_reason(build_core, scripted_runner, tokenizer):
    now = [0.0]
    core = build_core(scripted_runner, batch=1, clock=lambda: now[0])
    core.add(1, request(tokenizer, max_new_tokens=50, deadline_seconds=3.0))
    core.add(2, request(tokenizer, deadline_seconds=2.0))
    core.add(3, request(tokenizer))
    assert [event.request_id for event in core.step().events] == [1]
    now[0] = 2.0
    waited, token = core.step().events
    assert (waited.request_id, waited.failure) == (2, FailureKind.DEADLINE)
    assert waited.error == "the request's deadline passed while it waited, 2 s after its arrival"
    assert token.token is not None
    now[0] = 3.5
    cut, token = core.step().events
    assert (cut.request_id, cut.error) == (
        1,
        "the request's deadline passed after 2 of 50 tokens, 3.5 s after its arrival",
    )
    assert cut.is_last
    assert token.request_id == 3
    assert core.scheduler.stats.expired == 2
    run(core)
    assert core.scheduler.blocks.used_blocks == 0


def test_a_request_waits_until_its_first_step_begins_not_until_it_ends(build_core, scripted_runner, tokenizer):
    now, step = [0.0], scripted_runner.step

    def slow_step(chunks):
        now[0] += 5.0
        return step(chunks)

    scripted_runner.step = slow_step
    core = build_core(scripted_runner, clock=lambda: now[0])
    core.add(1, request(tokenizer))
    now[0] = 2.0
    assert [event.queue_seconds for event in core.step().events] == [2.0]


def test_the_last_request_may_expire_and_leaves_an_idle_engine(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner, clock=iter([0.0, 9.0]).__next__)
    core.add(1, request(tokenizer, deadline_seconds=1.0))
    assert [event.failure for event in core.step().events] == [FailureKind.DEADLINE]
    assert core.scheduler.is_idle
    assert scripted_runner.steps == []


def test_a_request_is_computed_at_its_level_and_may_change_it(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    core.add(1, request(tokenizer, level=1))
    core.step()
    core.change_level(1, 0)
    core.step()
    core.change_level(7, 0)
    assert [chunk.level for step in scripted_runner.steps for chunk in step] == [1, 0]


def test_a_known_beginning_is_not_computed_again_and_the_answer_is_the_same(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    prompt = "one two three four five six seven eight nine ten " * 4
    answers = []
    for number in range(2):
        core.add(number, request(tokenizer, prompt))
        answers.append([event.token.text for event in run(core)[number]])
    computed = [chunk.start for step in scripted_runner.steps for chunk in step if len(chunk.token_ids) > 1]
    assert answers[0] == answers[1]
    assert computed == [0, core.scheduler.stats.prefix_hit_tokens]
    assert computed[1] > 0


def test_what_a_poisoned_request_left_in_the_cache_reaches_nobody(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    prompt = "one two three four five six seven eight nine ten " * 4
    scripted_runner.poison_token = tokenizer.encode(prompt)[0]
    core.add(1, request(tokenizer, prompt))
    assert run(core)[1][0].failure is FailureKind.MODEL
    scripted_runner.poison_token = None
    core.add(2, request(tokenizer, prompt))
    run(core)
    assert core.scheduler.stats.prefix_hit_tokens == 0


def test_a_wrong_block_pool_is_logged_with_figures_and_rebuilt_when_idle(
    build_core, scripted_runner, tokenizer, caplog
):
    core = build_core(scripted_runner)
    core.scheduler.blocks.allocate([], 1)
    core.check_integrity()
    assert "63 free" in caplog.text
    core.check_integrity()
    assert core.scheduler.stats.integrity_failures == 1


def test_a_wrong_block_pool_under_live_requests_is_an_error(build_core, scripted_runner, tokenizer):
    core = build_core(scripted_runner)
    core.add(1, request(tokenizer))
    core.step()
    core.scheduler.blocks.allocate([], 1)
    with pytest.raises(IntegrityError):
        core.check_integrity()


class PostprocessError(Exception):
    """What a defect in the work on one request may raise; its message holds the prompt."""


def break_part(monkeypatch, core, number, part, after):
    """Lets `part` of one live request raise from its call `after` on."""
    live, calls = core._live[number], []

    def raise_late(original):
        def call(*arguments, **named):
            calls.append(1)
            if len(calls) > after:
                raise PostprocessError("Hello")
            return original(*arguments, **named)

        return call

    if part == "top_tokens":
        original = core._top
        broken = raise_late(original)
        monkeypatch.setattr(core, "_top", lambda one, scores: (broken if one is live else original)(one, scores))
    else:
        owner, name = {"sampler": (live.sampler, "choose"), "text": (live.stream, "push")}[part]
        monkeypatch.setattr(owner, name, raise_late(getattr(owner, name)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    part=st.sampled_from(["sampler", "text", "top_tokens"]),
    requests=st.integers(1, 6),
    broken=st.integers(0, 5),
    after=st.integers(0, 5),
    drafts=st.booleans(),
)
def test_a_request_whose_postprocessing_raises_ends_alone(
    build_core, scripted_runner, tokenizer, caplog, part, requests, broken, after, drafts
):
    core = build_core(scripted_runner, drafts=DraftSettings(1, 3) if drafts else None)
    for number in range(requests):
        core.add(number, request(tokenizer, max_new_tokens=5))
    broken %= requests
    with pytest.MonkeyPatch.context() as monkeypatch:
        break_part(monkeypatch, core, broken, part, after)
        events = run(core)
    assert core.scheduler.blocks.used_blocks == 0
    core.scheduler.check_integrity()
    for number in range(requests):
        texts = [event.token.text for event in events[number] if event.token]
        assert texts == ["a", "b", "c", "d", "e"][: min(after, 5) if number == broken else 5]
    if after < 5:
        assert events[broken][-1].failure is FailureKind.INTERNAL
    assert "Hello" not in caplog.text


@pytest.mark.parametrize("error", [ValueError, RuntimeError, MemoryError, OverflowError])
def test_a_refused_or_failed_step_fails_only_the_request_that_is_at_fault_alone_too(
    build_core, scripted_runner, tokenizer, monkeypatch, error
):
    poison, step = tokenizer.encode("Z")[0], scripted_runner.step

    def refuse(chunks):
        if any(poison in chunk.token_ids for chunk in chunks):
            raise error("a token, position or block of the step exceeds the limits")
        return step(chunks)

    monkeypatch.setattr(scripted_runner, "step", refuse)
    core = build_core(scripted_runner)
    for number, text in enumerate(["Hello", "Z", "World"]):
        core.add(number, request(tokenizer, text))
    events = run(core)
    assert [event.failure for event in events[1]] == [FailureKind.MODEL]
    for number in (0, 2):
        assert [event.token.text for event in events[number]] == ["a", "b", "c", "d"]
    core.scheduler.check_integrity()
    assert core.scheduler.blocks.used_blocks == 0


def test_a_request_that_fails_amid_drafts_leaves_its_neighbours_and_no_blocks(
    build_core, scripted_runner, tokenizer, monkeypatch
):
    poison, step = tokenizer.encode("Z")[0], scripted_runner.step
    monkeypatch.setattr("inference_pods.engine.speculation._PLAIN_ROUNDS", 1)
    culprits = set()

    def fail_late(chunks):
        """The request whose prompt is Z fails once it is drafted: a batch with it, and it alone."""
        culprits.update(chunk.block_table[0] for chunk in chunks if poison in chunk.token_ids)
        if any(chunk.level and chunk.block_table[0] in culprits for chunk in chunks):
            raise RuntimeError("scripted failure")
        return step(chunks)

    monkeypatch.setattr(scripted_runner, "step", fail_late)
    core = build_core(scripted_runner, drafts=DraftSettings(1, 3))
    for number, text in enumerate(["Hello", "Z", "World"]):
        core.add(number, request(tokenizer, text, max_new_tokens=12))
    events = run(core)
    assert events[1][-1].failure is FailureKind.MODEL
    for number in (0, 2):
        assert "".join(event.token.text for event in events[number]) == "abcdefghijkl"
    core.scheduler.check_integrity()
    assert core.scheduler.blocks.used_blocks == 0


@pytest.mark.parametrize(
    ("error", "is_raised"),
    [
        pytest.param(DeviceLostError("cuda:0 fails every call"), True, id="a device: the replica ends"),
        pytest.param(
            RunnerLostError("the ranks of this replica are no longer together"),
            False,
            id="a runner: its loss is reported already",
        ),
    ],
)
def test_what_is_lost_ends_the_step_for_all_and_is_not_asked_again(
    build_core, scripted_runner, tokenizer, monkeypatch, error, is_raised
):
    calls = []

    def lose(chunks):
        calls.append(len(chunks))
        raise error

    monkeypatch.setattr(scripted_runner, "step", lose)
    core = build_core(scripted_runner)
    for number in range(3):
        core.add(number, request(tokenizer))
    with pytest.raises(type(error)) if is_raised else nullcontext():
        assert [event.failure for event in core.step().events] == [FailureKind.STOPPED] * 3
    assert calls == [3]
    assert sorted(core.abandon()) == ([0, 1, 2] if is_raised else [])
    if not is_raised:
        core.scheduler.check_integrity()
