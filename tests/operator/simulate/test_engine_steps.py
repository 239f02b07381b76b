"""The simulated replica against the engine's own scheduler on a clock of the test, and the curve's copies in one table.

Operator and pods share no code: this holds the numbers and formulas that both need to each other.
"""

from __future__ import annotations

import random

import pytest

from adaptive_operator.decide import curve as decide_curve
from adaptive_operator.decide.attaining import attaining_rate
from adaptive_operator.decide.curve import LEAST_PROMPT_TOKENS, TPOT_MARGIN
from adaptive_operator.simulate.curve import Lengths, StepCurve, saturation
from e2e.scale.fluid import FluidTier
from inference_pods.engine import scheduler as engine_scheduler
from inference_pods.engine import step_room
from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.core import EngineCore
from inference_pods.engine.emulated.curve import Curve
from inference_pods.engine.emulated.runner import EmulatedRunner
from inference_pods.engine.emulated.vocabulary import SENTENCE, build_vocabulary
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.sequence import GenerationRequest
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.kernels.formats import BLOCK_TOKENS
from tests.operator.simulate.queues import serve

pytestmark = pytest.mark.slow

STEP, PER_TOKEN = 10_000, 1_000  # microseconds
BATCH, STEP_TOKENS, KV_TOKENS = 8, 64, 64_000
SIMULATED = StepCurve(STEP / 1e6, PER_TOKEN / 1e6, ((1, STEP / 1e6),), KV_TOKENS, BATCH, step_tokens=STEP_TOKENS)


class Clock:
    """Seconds that only sleeping moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class PacedRunner:
    """Takes the curve's time for each step and answers with filler."""

    variant, weight_bytes, kv_bytes = "paced", 0, 0

    def __init__(self, clock: Clock, filler: TextTokenizer) -> None:
        words = [token for word in SENTENCE for token in filler.encode(word)]
        still = Curve(1, 0, 0)
        self._scores = EmulatedRunner((still,), words, filler.vocabulary_size, lambda: 0.0, lambda seconds: None)
        self._words, self._clock = frozenset(words), clock

    def step(self, chunks):
        # Prompts are of bytes, answers of words: so the last byte of a cut prompt is told from a word.
        prompt = sum(len(chunk.token_ids) for chunk in chunks if chunk.token_ids[0] not in self._words)
        self._clock.sleep((STEP + PER_TOKEN * prompt) / 1e6)
        return self._scores.step(chunks)


def draw_rows(rate: float, count: int, seed: int) -> list[tuple[float, int, int]]:
    rng = random.Random(seed)
    rows, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(rate)
        rows.append((now, rng.choice((32, 64, 128)), rng.choice((24, 32, 48))))
    return rows


def serve_by_engine(rows, tpot_seconds=None) -> list[tuple[float, float]]:
    """(time to first token, time per token) of each row, seconds."""
    clock, filler, draw = Clock(), TextTokenizer(build_vocabulary()), random.Random(1)
    blocks = BlockManager(KV_TOKENS // BLOCK_TOKENS, BLOCK_TOKENS)
    scheduler = Scheduler(blocks, BATCH, STEP_TOKENS, tpot_seconds=tpot_seconds)
    core = EngineCore(PacedRunner(clock, filler), scheduler, filler, clock)
    first, last = {}, {}
    waiting = list(enumerate(rows))
    while waiting or not core.scheduler.is_idle:
        if core.scheduler.is_idle:
            clock.now = max(clock.now, waiting[0][1][0])
        while waiting and waiting[0][1][0] <= clock.now:
            index, (_, prompt, output) = waiting.pop(0)
            core.add(index, GenerationRequest(tuple(draw.randrange(256) for _ in range(prompt)), output))
        for event in core.step().events:
            first.setdefault(event.request_id, clock.now)
            last[event.request_id] = clock.now
    return [(first[i] - row[0], (last[i] - first[i]) / (row[2] - 1)) for i, row in enumerate(rows)]


def median(values) -> float:
    return sorted(values)[len(values) // 2]


@pytest.mark.parametrize("rate", [2.0, 5.0, 7.0])
def test_a_replica_reads_chunks_as_the_engine_schedules_them(rate):
    rows = draw_rows(rate, 300, seed=round(rate))
    engine, simulated = serve_by_engine(rows), serve(SIMULATED, rows)
    for (ttft, tpot), request in zip(engine, simulated, strict=True):
        assert request.ttft == pytest.approx(ttft, abs=1e-6)
        assert request.tpot == pytest.approx(tpot, abs=1e-6)


@pytest.mark.parametrize("rate", [2.0, 5.0])
def test_with_an_objective_its_times_are_near_those_of_an_engine_that_learns_its_pace(rate):
    rows = draw_rows(rate, 400, seed=round(rate))
    engine = serve_by_engine(rows, tpot_seconds=0.05)
    simulated = serve(SIMULATED.with_objective(0.05), rows)
    assert median([r.ttft for r in simulated]) == pytest.approx(median([ttft for ttft, _ in engine]), rel=0.1)
    assert median([r.tpot for r in simulated]) == pytest.approx(median([tpot for _, tpot in engine]), rel=0.1)


def test_the_engine_keeps_the_objective_at_the_rate_of_its_curve_give_or_take_15_per_cent():
    prompt, output, tpot, ttft = 64, 32, 0.05, 1.0
    curve = decide_curve.Curve(
        0.0, PER_TOKEN / 1000, ((1.0, STEP / 1000),), float(KV_TOKENS), BATCH, float(STEP_TOKENS)
    )
    request, objective = decide_curve.Request(prompt, output), decide_curve.Objective(1000 * tpot, 1000 * ttft, 95.0)
    rate = attaining_rate(curve, request, objective)

    def attained(rate: float) -> float:
        rows = [(at, prompt, output) for at, _, _ in draw_rows(rate, 1000, seed=1)]
        times = serve_by_engine(rows, tpot_seconds=tpot)
        return sum(first <= ttft and token <= tpot for first, token in times) / len(rows)

    assert attained(rate / 1.15) >= 0.95
    assert attained(rate * 1.15) < 0.95


def test_the_numbers_of_the_engines_planning_are_the_simulators():
    assert TPOT_MARGIN == engine_scheduler._TPOT_MARGIN
    assert LEAST_PROMPT_TOKENS == step_room.LEAST_PROMPT_ROWS


PROMPT, OUTPUT = 128, 64
LINE = Curve(28_400, 350, 107)
OF_THE_SIMULATOR = StepCurve(0.0, 107 / 1e6, ((1, 0.02875), (16, 0.034)), 65_536, 16)
OF_THE_POLICY = decide_curve.Curve(0.0, 0.107, ((1.0, 28.75), (16.0, 34.0)), 65_536.0, 16)


@pytest.mark.parametrize("sequences", [1, 3, 8, 16])
def test_a_step_takes_the_same_time_by_every_copy_of_the_curve(sequences):
    seconds = LINE.step_seconds(sequences, 0)
    assert OF_THE_SIMULATOR.step(sequences) == pytest.approx(seconds)
    assert OF_THE_POLICY.step_milliseconds(float(sequences)) == pytest.approx(1000 * seconds)


def test_a_saturated_replica_answers_as_many_requests_by_every_copy_of_the_formula():
    rate = FluidTier("full", 1.0, LINE, 16, PROMPT, OUTPUT).requests_per_second
    assert saturation(OF_THE_SIMULATOR, Lengths(PROMPT, OUTPUT)) == pytest.approx(rate)
    request, loose = decide_curve.Request(PROMPT, OUTPUT), decide_curve.Objective(1000.0)
    assert decide_curve.saturation_rate(OF_THE_POLICY, request, loose) == pytest.approx(rate)
