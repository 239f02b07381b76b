"""When drafting pays, and that it never changes an answer."""

import itertools
import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference_pods.engine.sequence import GenerationRequest, SamplingParams
from inference_pods.engine.speculation import DraftSettings, SpeculationGate, find_draft_settings
from inference_pods.kernels.formats import BLOCK_TOKENS


def play(gate, rounds, plain_seconds, drafted_seconds, drafted_tokens, kind=(1, 1)):
    """Rounds of one kind of batch; whether each drafted."""
    taken = []
    for _ in range(rounds):
        gate.begin_round()
        drafts = gate.wants_drafts(*kind)
        gate.observe(drafts, drafted_tokens if drafts else 1.0, drafted_seconds if drafts else plain_seconds)
        taken.append(drafts)
    return taken


@pytest.mark.parametrize(
    ("name", "drafted_seconds", "drafted_tokens", "drafted_rounds"),
    [
        ("a clear gain: on after the trial", 0.020, 4.0, 92),
        ("a loss: off after the trial", 0.045, 4.0, 8),
        ("a clear loss: off before the trial ends", 0.060, 4.0, 3),
        ("no more than a tie: off", 0.040, 4.0, 8),
        ("nothing is ever accepted: off", 0.012, 1.0, 8),
        ("nothing is ever accepted, and drafting is dear: off early", 0.020, 1.0, 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_drafting_goes_on_only_if_it_gains(name, drafted_seconds, drafted_tokens, drafted_rounds):
    taken = play(SpeculationGate(), 100, 0.010, drafted_seconds, drafted_tokens)
    assert taken[:8] == [False] * 8, "plain rounds are measured first"
    assert sum(taken) == drafted_rounds


def test_a_gain_that_becomes_a_loss_turns_it_off_and_a_later_trial_on_again():
    gate = SpeculationGate()
    play(gate, 60, 0.010, 0.020, 4.0)
    assert gate.is_active
    assert gate.gain == pytest.approx(2.0)
    play(gate, 40, 0.010, 0.020, 1.0)
    assert not gate.is_active
    assert gate.gain < 1.0
    taken = play(gate, 200, 0.010, 0.020, 4.0)
    assert taken.index(True) <= 128
    assert gate.is_active


def test_between_the_two_thresholds_it_stays_as_it_is():
    gate = SpeculationGate()
    play(gate, 60, 0.010, 0.020, 4.0)
    play(gate, 60, 0.010, 0.039, 4.0)
    assert gate.is_active, "a gain of 1.026 does not turn it off"
    assert sum(play(SpeculationGate(), 100, 0.010, 0.039, 4.0)) == 8, "nor on"


def test_failed_trials_become_rarer():
    taken = play(SpeculationGate(), 2000, 0.010, 0.050, 4.0)
    starts = [index for index in range(1, 2000) if taken[index] and not taken[index - 1]]
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 2 * gaps[0] - 8


def test_plain_rounds_are_measured_again_while_it_is_on():
    taken = play(SpeculationGate(), 400, 0.010, 0.020, 4.0)
    assert taken[100:].count(False) == 8


def test_one_pause_of_the_machine_does_not_turn_it_off():
    gate = SpeculationGate()
    play(gate, 60, 0.010, 0.020, 4.0)
    play(gate, 1, 0.010, 5.0, 4.0)
    assert gate.is_active


def test_rounds_that_give_no_token_say_nothing_of_the_time_per_token():
    """All requests of a round may end by an error, for example by scores that are not numbers."""
    gate = SpeculationGate()
    for _ in range(20):
        gate.wants_drafts(1, 1)
        gate.observe(False, 0.0, 0.010)
    play(gate, 9, 0.010, 0.020, 4.0)
    for _ in range(20):
        gate.observe(gate.wants_drafts(1, 1), 0.0, 0.010)
    play(gate, 20, 0.010, 0.020, 4.0)
    assert gate.is_active
    assert gate.gain == pytest.approx(2.0)


def test_kinds_of_batches_are_judged_apart():
    gate = SpeculationGate()
    play(gate, 60, 0.010, 0.020, 4.0, kind=(1, 1))
    play(gate, 60, 0.010, 0.080, 4.0, kind=(8, 8))
    assert not gate.is_active
    assert play(gate, 1, 0.010, 0.020, 4.0, kind=(1, 1)) == [True]


def test_rounds_that_nobody_asked_about_say_nothing():
    gate = SpeculationGate()
    for _ in range(50):
        gate.begin_round()
        gate.observe(False, 1.0, 0.010)
    assert play(gate, 9, 0.010, 0.020, 4.0) == [False] * 8 + [True]


@pytest.mark.parametrize(
    ("levels", "name", "message"),
    [
        (("int8",), "int4", "needs weights with two levels or more"),
        (("int8", "int4"), "int8", "must be below the top level int8: use int4"),
        (("int8", "int4", "int4-d28"), "fp32", "use int4 or int4-d28"),
    ],
)
def test_a_draft_level_that_cannot_be_is_refused_with_those_that_can(levels, name, message):
    with pytest.raises(ValueError, match=message):
        find_draft_settings(levels, name, 4)


def test_a_draft_level_is_found():
    assert find_draft_settings(("int8", "int4"), "int4", 3) == DraftSettings(1, 3)


# Through the engine, with the scripted runner.


class Always(SpeculationGate):
    """Drafts in every round."""

    def wants_drafts(self, sequences, drafting):
        super().wants_drafts(sequences, drafting)
        return True


def answers(core, requests, limit=400):
    """Token ids and finish of each request; counts of tokens per step are in core.scheduler.stats."""
    for number, request in enumerate(requests):
        core.add(number, request)
    tokens, finishes = {}, {}
    for _ in range(limit):
        if core.scheduler.is_idle:
            assert core.scheduler.blocks.used_blocks == 0
            core.scheduler.check_integrity()
            return [(tokens[number], finishes[number]) for number in range(len(requests))]
        for event in core.step().events:
            assert event.error is None
            tokens.setdefault(event.request_id, []).append(event.token.id)
            finishes[event.request_id] = event.finish
        core.scheduler.check_integrity()
    raise AssertionError("the engine never became idle")


def drafting_core(build_core, runner, tokens=4, **options):
    core = build_core(runner, drafts=DraftSettings(1, tokens), **options)
    core.scheduler.gate = Always()
    return core


@pytest.mark.parametrize(
    ("name", "missed", "accepted", "verifications"),
    [
        # 20 tokens: the first from the prompt, then 19. All: 3 x (4 + 1), then 3 + 1.
        ("all", "", 15, 4),
        ("none", string.ascii_lowercase, 0, 18),
        # After a: b c, then d of the top level; e f, then g; ... q r, then s. The last, t, is never drafted.
        ("some", "cfilor", 12, 6),
    ],
)
def test_the_answer_is_the_top_levels_whatever_the_draft_says(
    build_core, scripted_runner, tokenizer, name, missed, accepted, verifications
):
    request = GenerationRequest(tuple(tokenizer.encode("Hello")), 20)
    expected = answers(build_core(scripted_runner), [request])
    scripted_runner.missed_drafts = frozenset(tokenizer.encode(letter)[0] for letter in missed)
    core = drafting_core(build_core, scripted_runner)
    assert answers(core, [request]) == expected
    stats = core.scheduler.stats
    assert (stats.accepted_tokens, stats.verifications) == (accepted, verifications)
    if name == "all":
        assert stats.draft_tokens == stats.accepted_tokens


def check_cache(runner):
    """Replays what every step wrote into the KV cache: a step of the top level reads cells of the top level only."""
    cells = {}
    for chunk in (chunk for step in runner.steps for chunk in step):
        where = [(chunk.block_table[at // BLOCK_TOKENS], at % BLOCK_TOKENS) for at in range(chunk.start)]
        if chunk.level == 0:
            assert all(cells[cell] == 0 for cell in where)
        for at in range(chunk.start, chunk.start + len(chunk.token_ids)):
            cells[chunk.block_table[at // BLOCK_TOKENS], at % BLOCK_TOKENS] = chunk.level


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    missed=st.sets(st.sampled_from(string.ascii_lowercase)),
    tokens=st.integers(1, 6),
    step_tokens=st.integers(4, 24),
    stop=st.sampled_from(((), ("ij",), ("c",))),
    blocks=st.integers(6, 20),
)
def test_drafting_changes_no_answer_and_leaves_only_verified_keys_and_values(
    build_core, scripted_runner, tokenizer, lengths, missed, tokens, step_tokens, stop, blocks
):
    requests = [
        GenerationRequest(tuple(tokenizer.encode("one two three " * number + "x")), length, stop_strings=stop)
        for number, length in enumerate(lengths, 1)
    ]
    scripted_runner.missed_drafts = frozenset()
    options = {"step_tokens": step_tokens, "blocks": blocks}
    expected = answers(build_core(scripted_runner, **options), requests)
    scripted_runner.missed_drafts = frozenset(tokenizer.encode(letter)[0] for letter in missed)
    scripted_runner.steps.clear()
    core = drafting_core(build_core, scripted_runner, tokens, **options)
    assert answers(core, requests) == expected
    check_cache(scripted_runner)
    outputs = [sum(chunk.scores for chunk in step) for step in scripted_runner.steps]
    rows = [sum(len(chunk.token_ids) for chunk in step) for step in scripted_runner.steps]
    assert max(rows) <= step_tokens
    assert max(outputs) <= min(step_tokens, 4 * (1 + tokens))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=st.lists(st.sampled_from(("add", "add", "cancel", "step", "step", "step")), min_size=10, max_size=60),
    missed=st.sets(st.sampled_from(string.ascii_lowercase)),
    random=st.randoms(use_true_random=False),
)
def test_cancelling_amid_drafts_frees_everything_and_harms_no_other(
    build_core, scripted_runner, tokenizer, actions, missed, random
):
    scripted_runner.missed_drafts = frozenset(tokenizer.encode(letter)[0] for letter in missed)
    scripted_runner.steps.clear()
    core = drafting_core(build_core, scripted_runner, step_tokens=12, blocks=8)
    live, heard = {}, {}
    for number, action in enumerate([*actions, *["step"] * 300]):
        if action == "add":
            live[number] = random.randint(1, 40)
            prompt = "one two three " * random.randint(1, 6)
            core.add(number, GenerationRequest(tuple(tokenizer.encode(prompt)), live[number]))
        elif action == "cancel" and live:
            core.cancel(cancelled := random.choice(list(live)))
            del live[cancelled]
        elif action == "step":
            for event in core.step().events:
                heard.setdefault(event.request_id, []).append(event)
                assert event.error is None
                if event.is_last:
                    assert len(heard[event.request_id]) == live.pop(event.request_id)
        core.scheduler.check_integrity()
    assert not live
    assert core.scheduler.blocks.used_blocks == 0
    check_cache(scripted_runner)


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": SamplingParams(temperature=0.7, seed=1)},
        {"sampling": SamplingParams(repetition_penalty=1.1)},
        {"speculate": False},
        {"level": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_only_greedy_requests_of_the_top_level_that_may_are_drafted(build_core, scripted_runner, tokenizer, fields):
    core = drafting_core(build_core, scripted_runner)
    answers(core, [GenerationRequest(tuple(tokenizer.encode("Hello")), 8, **fields)])
    assert core.scheduler.stats.draft_tokens == 0


def test_a_sampling_neighbour_is_stepped_along_undrafted(build_core, scripted_runner, tokenizer):
    core = drafting_core(build_core, scripted_runner)
    prompt = tuple(tokenizer.encode("Hello"))
    sampling = GenerationRequest(prompt, 8, SamplingParams(do_sample=True, seed=3))
    (greedy, _), (sampled, _) = answers(core, [GenerationRequest(prompt, 8), sampling])
    assert (len(greedy), len(sampled)) == (8, 8)
    assert core.scheduler.stats.verifications == 2


def test_without_blocks_for_drafts_nobody_is_displaced(build_core, scripted_runner, tokenizer):
    core = drafting_core(build_core, scripted_runner, tokens=6, blocks=2)
    prompt = tuple(tokenizer.encode("a b c d e f g h i j k l m n"))
    answers(core, [GenerationRequest(prompt, 2), GenerationRequest(prompt, 2)])
    assert core.scheduler.stats.preemptions == 0


@pytest.mark.parametrize(("draft_seconds", "is_active"), [(0.001, True), (0.010, False)])
def test_the_engine_measures_its_rounds_and_turns_drafting_off_where_it_loses(
    build_core, scripted_runner, tokenizer, draft_seconds, is_active
):
    """A step of the top level takes 10 ms, four drafts and a verification give 5 tokens."""
    now = [0.0]
    step = scripted_runner.step

    def timed_step(chunks):
        now[0] += draft_seconds if all(chunk.level for chunk in chunks) else 0.010 + 0.002 * len(chunks[0].token_ids)
        return step(chunks)

    scripted_runner.step = timed_step
    core = build_core(scripted_runner, drafts=DraftSettings(1, 4), clock=lambda: now[0])
    answers(core, [GenerationRequest(tuple(tokenizer.encode("Hello")), 200, ignore_eos=True)])
    assert core.scheduler.gate.is_active is is_active
    assert core.scheduler.gate.gain == pytest.approx(0.012 * 5 / (4 * draft_seconds + 0.020), rel=0.02)
