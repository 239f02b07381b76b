"""Real ranks, real gloo: the same tokens as one rank, and an end within seconds when one is lost."""

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from inference_pods.engine.distributed import runner
from inference_pods.engine.distributed.launch import RankProcesses, RankSpec
from inference_pods.engine.distributed.runner import DistributedRunner, build_alone
from inference_pods.engine.errors import LoadError, LoadReason
from inference_pods.engine.gguf import GgufFile
from inference_pods.engine.model_runner import RunnerLostError, load_model
from inference_pods.kernels.decoder import Chunk
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.levels import default_levels

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]  # each rank imports torch
SEED = 5


def greedy(runner, shape, steps=24):
    """Tokens of two sequences: one prompt in two chunks, one that joins it, then decoding together."""
    first, second = [3, 1, 8], [2, 5, 9]
    scores = runner.step([Chunk([5, 9, 77, 2, 1, 4, 100, 130], 0, first, 0)])
    assert scores == []
    scores = runner.step([Chunk([6, 6], 8, first, 1), Chunk([130, 0, 65], 0, second, 1)])
    tokens = [[scores[0].best], [scores[1].best]]
    for step in range(steps):
        chunks = [Chunk([tokens[0][-1]], 10 + step, first, 1), Chunk([tokens[1][-1]], 3 + step, second, 1)]
        for sequence, score in zip(tokens, runner.step(chunks), strict=True):
            assert score.logits.shape == (shape.vocab,)
            sequence.append(score.best)
    return tokens


def expected_tokens(model, precision):
    spec = RankSpec(0, 1, 0, "cpu", model.source, SEED, precision, model.limits, default_levels(precision))
    alone = load_model(
        GgufFile(model.path), model.limits, precision, SEED, create=lambda *_: build_alone(spec, model.shape)
    )
    return greedy(alone.runner, model.shape), alone.runner


class Replica:
    """A divided runner with its losses; closed after the test, whatever happened."""

    def __init__(self, model, precision, ranks):
        self.lost = threading.Event()
        self.losses = []
        spec = RankSpec(0, ranks, 0, "cpu", model.source, SEED, precision, model.limits, default_levels(precision))
        loaded = load_model(
            GgufFile(model.path), model.limits, precision, SEED,
            create=lambda *_: DistributedRunner(spec, model.shape, self._on_lost),
        )  # fmt: skip
        self.runner = loaded.runner

    def _on_lost(self, loss):
        self.losses.append(loss)
        self.lost.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.runner.close()


def is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_ranks_give_the_tokens_of_one_and_end_when_one_is_killed(tiny_model):
    expected, alone = expected_tokens(tiny_model, Precision.FP32)
    with Replica(tiny_model, Precision.FP32, 2) as replica:
        runner = replica.runner
        assert runner.variant == "torch, 2 ranks"
        assert runner.kv_precision == "fp32"
        assert runner.kv_bytes == alone.kv_bytes
        norms = 4 * tiny_model.shape.dim * (2 * tiny_model.shape.layers + 1)
        assert runner.weight_bytes == alone.weight_bytes + norms  # only the norms are held twice
        assert greedy(runner, tiny_model.shape) == expected
        with pytest.raises(ValueError, match="vocabulary"):
            runner.step([Chunk([999], 0, [0], 1)])
        assert greedy(runner, tiny_model.shape) == expected, "a step that was refused left the ranks apart"
        assert not replica.lost.is_set()

        started = time.monotonic()
        os.kill(runner.processes.process_ids[0], signal.SIGKILL)
        with pytest.raises(RunnerLostError, match="no longer together"):
            runner.step([Chunk([1], 0, [0], 1)])
        assert replica.lost.wait(5)
        assert time.monotonic() - started < 5
        assert [(loss.reason, loss.exit_code) for loss in replica.losses] == [("RankLost", 7)]
        assert "rank 1 was killed" in replica.losses[0].message


def test_four_ranks_of_which_one_has_no_heads_give_the_tokens_of_one_and_close_cleanly(tiny_model):
    expected, _ = expected_tokens(tiny_model, Precision.INT4)
    with Replica(tiny_model, Precision.INT4, 4) as replica:
        assert greedy(replica.runner, tiny_model.shape) == expected
        process_ids = replica.runner.processes.process_ids
        assert len(process_ids) == 3
        assert all(map(is_running, process_ids))
    assert not any(map(is_running, process_ids))
    assert replica.losses == []


def test_two_ranks_serve_the_levels_of_nested_weights(tiny_model):
    alone = load_model(GgufFile(tiny_model.path), tiny_model.limits, Precision.INT4, SEED).runner
    with Replica(tiny_model, Precision.NESTED, 2) as replica:
        assert [level.name for level in replica.runner.levels] == ["int8", "int4"]
        step = [Chunk([5, 9, 77, 2], 0, [3], 1, level=1)]
        (expected,), (actual,) = alone.step([replace(step[0], level=0)]), replica.runner.step(step)
        assert actual.best == expected.best
        assert np.abs(actual.logits - expected.logits).max() < 1e-3


def test_a_rank_that_cannot_load_ends_the_replica_with_its_reason(tiny_model, tmp_path):
    lost, losses = threading.Event(), []
    spec = RankSpec(1, 2, 9, "cpu", f"file://{tmp_path}/gone.gguf", SEED, Precision.FP32, tiny_model.limits, ())
    processes = RankProcesses([spec], lambda loss: (losses.append(loss), lost.set()))
    assert lost.wait(30)
    processes.close()
    assert losses[0].reason == "ModelNotFound"


WORKER = """
import os
import sys
from inference_pods.engine.distributed import worker
from inference_pods.kernels.decoder import DeviceMemoryError
from inference_pods.kernels.torch_decoder import TorchDecoder

def load(*_, **__):
    {fate}

TorchDecoder.load = load
sys.exit(worker.main())
"""


@pytest.mark.parametrize(
    ("fate", "words", "reason", "reported"),
    [
        pytest.param(
            'raise DeviceMemoryError("900 bytes needed, 700 free")',
            r"rank 1: 900 bytes needed.*replica.accelerators",
            LoadReason.OUT_OF_MEMORY,
            ("OutOfMemory", 6),
            id="without memory",
        ),
        pytest.param(
            "os.kill(os.getpid(), 9)",
            r"rank 1 was killed.*raise replica.memory",
            LoadReason.ENGINE_FAILED,
            ("RankLost", 7),
            id="killed",
        ),
        pytest.param(
            r'raise KeyError("blk.7\n  in no file")',
            r"rank 1 failed with KeyError: 'blk\.7.*in no file' \(exit code 1\)",
            LoadReason.ENGINE_FAILED,
            ("RankLost", 7),
            id="by what nobody foresaw",
        ),
        pytest.param(
            "raise RuntimeError(('a' * 99 + chr(10)) * 99)",
            r"rank 1 failed with RuntimeError: a{99} a{99} a{85}… \(exit code 1\)",
            LoadReason.ENGINE_FAILED,
            ("RankLost", 7),
            id="by what nobody foresaw, at great length",
        ),
    ],
)
def test_a_rank_that_is_lost_while_loading_makes_it_a_refusal_in_its_words(
    tiny_model, monkeypatch, fate, words, reason, reported
):
    """Rank 0 hears of it by a broken collective first."""
    lost, losses, runners = threading.Event(), [], []
    command = (sys.executable, "-c", WORKER.format(fate=fate))
    monkeypatch.setattr(runner, "RankProcesses", partial(RankProcesses, command=command))
    precision = Precision.FP32
    spec = RankSpec(0, 2, 0, "cpu", tiny_model.source, SEED, precision, tiny_model.limits, default_levels(precision))

    def create(*_):
        runners.append(DistributedRunner(spec, tiny_model.shape, lambda loss: (losses.append(loss), lost.set())))
        return runners[0]

    with pytest.raises(LoadError, match=words) as caught:
        load_model(GgufFile(tiny_model.path), tiny_model.limits, precision, SEED, create=create)
    runners[0].close()
    assert caught.value.reason is reason
    assert lost.wait(10)
    assert [(loss.reason, loss.exit_code) for loss in losses] == [reported]
