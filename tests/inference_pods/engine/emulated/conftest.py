"""A clock that only sleeping and what a test says move, and engines without weights on it."""

from __future__ import annotations

import pytest

from inference_pods.engine.block_manager import BlockManager
from inference_pods.engine.core import EngineCore
from inference_pods.engine.emulated.curve import Curve
from inference_pods.engine.emulated.runner import EmulatedRunner
from inference_pods.engine.emulated.vocabulary import SENTENCE, build_vocabulary
from inference_pods.engine.scheduler import Scheduler
from inference_pods.engine.tokenizer import TextTokenizer
from inference_pods.kernels.formats import BLOCK_TOKENS

CURVE = Curve(step_microseconds=7000, decode_microseconds_per_sequence=30, prefill_microseconds_per_token=50)


class FakeClock:
    """Monotonic seconds; `sleep` passes the time and remembers how long."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def filler() -> TextTokenizer:
    """The built-in tokenizer."""
    return TextTokenizer(build_vocabulary())


@pytest.fixture
def build_emulated(clock, filler):
    """(curves, batch, step tokens, blocks) -> core with the real scheduler, on the fake clock."""

    def build(*curves, batch=8, step_tokens=2048, blocks=4096, **scheduler_options):
        sentence = [token for word in SENTENCE for token in filler.encode(word)]
        runner = EmulatedRunner(curves or (CURVE,), sentence, filler.vocabulary_size, clock, clock.sleep)
        scheduler = Scheduler(BlockManager(blocks, BLOCK_TOKENS), batch, step_tokens, **scheduler_options)
        return EngineCore(runner, scheduler, filler, clock)

    return build
