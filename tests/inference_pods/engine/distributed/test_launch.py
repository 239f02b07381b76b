"""Starting, watching and ending the processes of the other ranks; the processes here are small scripts."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from inference_pods.engine.distributed.launch import (
    EXIT_RANK_LOST,
    WORKER_COMMAND,
    Loss,
    RankProcesses,
    RankSpec,
    describe_exit,
    listen_for_ranks,
)
from inference_pods.kernels.decoder import DecoderLimits
from inference_pods.kernels.formats import Precision
from inference_pods.kernels.levels import build_levels
from inference_pods.kernels.step_plans import Backend

SPEC = RankSpec(
    1, 2, 4321, "cpu", "file:///none.gguf", 7, Precision.NESTED, DecoderLimits(16, 4, 96, 8, 1),
    build_levels((Precision.INT8, Precision.INT4), (30, 28), 30, skip_order=(17, 14)), Backend.CUDA_GRAPH, 64,
)  # fmt: skip
OBEDIENT = (sys.executable, "-c", "import sys; sys.stdin.readline(); sys.stdin.read()")
STUBBORN = (sys.executable, "-c", "import time; print(flush=True); time.sleep(60)")


class Losses:
    """Collects what is reported."""

    def __init__(self):
        self.seen = []
        self.happened = threading.Event()

    def __call__(self, loss):
        self.seen.append(loss)
        self.happened.set()


def script(body):
    return (sys.executable, "-c", f"import sys, os; sys.stdin.readline(); {body}")


def test_a_spec_survives_its_way_to_the_rank():
    assert RankSpec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize(
    ("body", "reason", "code", "message"),
    [
        ("os._exit(4)", "ModelCorrupt", 4, "rank 1 could not load"),
        ("os._exit(1)", "RankLost", EXIT_RANK_LOST, "rank 1 ended with exit code 1"),
        ("os._exit(0)", "RankLost", EXIT_RANK_LOST, "exit code 0"),
        ("os.kill(os.getpid(), 9)", "RankLost", EXIT_RANK_LOST, "raise replica.memory"),
        ("os.kill(os.getpid(), 6)", "RankLost", EXIT_RANK_LOST, "SIGABRT"),
    ],
)
def test_a_rank_that_ends_is_reported_with_its_cause(body, reason, code, message):
    losses = Losses()
    processes = RankProcesses([SPEC], losses, script(body))
    assert losses.happened.wait(10)
    processes.close()
    (loss,) = losses.seen
    assert (loss.reason, loss.exit_code) == (reason, code)
    assert message in loss.message


def test_a_rank_that_cannot_load_is_reported_with_its_own_words():
    say = "import json; os.write(json.loads(line)['words_to'], b'9 bytes needed, 7 free')"
    body = f"line = sys.stdin.readline(); {say}; os._exit(6)"
    losses = Losses()
    processes = RankProcesses([SPEC], losses, (sys.executable, "-c", f"import sys, os; {body}"))
    assert losses.happened.wait(10)
    assert processes.wait_for_loss(0) == losses.seen[0]
    processes.close()
    assert losses.seen == [Loss("OutOfMemory", "rank 1: 9 bytes needed, 7 free", 6)]


def test_a_rank_that_fails_unforeseen_is_reported_with_its_own_words():
    loss = describe_exit(1, 1, "ZeroDivisionError: division by zero")
    assert loss.reason == "RankLost"
    assert "rank 1 failed with ZeroDivisionError: division by zero (exit code 1)" in loss.message


def test_a_rank_whose_child_still_runs_is_reported_at_once():
    """The child inherited what the rank writes its words to: its end cannot be waited for."""
    body = "import subprocess; subprocess.Popen(['sleep', '5'], close_fds=False); os._exit(4)"
    losses, started = Losses(), time.monotonic()
    processes = RankProcesses([SPEC], losses, script(body))
    assert losses.happened.wait(10)
    assert time.monotonic() - started < 4
    processes.close()


def test_only_the_first_loss_is_reported():
    losses = Losses()
    processes = RankProcesses([SPEC, replace(SPEC, rank=2)], losses, OBEDIENT)
    os.kill(processes.process_ids[1], signal.SIGKILL)
    assert losses.happened.wait(10)
    os.kill(processes.process_ids[0], signal.SIGKILL)
    processes.report(describe_exit(1, 1))
    assert processes.wait_for_loss(0)
    processes.close()
    assert ["rank 2" in loss.message for loss in losses.seen] == [True]


@pytest.mark.parametrize(("command", "seconds"), [(OBEDIENT, 10.0), (STUBBORN, 0.2)], ids=["obedient", "stubborn"])
def test_closing_ends_every_rank_and_is_no_loss(command, seconds):
    losses = Losses()
    processes = RankProcesses([SPEC, replace(SPEC, rank=2)], losses, command)
    processes.close(seconds)
    processes.close(seconds)
    for process_id in processes.process_ids:
        with pytest.raises(ProcessLookupError):
            os.kill(process_id, 0)
    time.sleep(0.05)
    assert losses.seen == []


def test_nothing_is_left_running_when_a_rank_cannot_be_started():
    with pytest.raises(OSError, match="no-such-program"):
        RankProcesses([SPEC], Losses(), ("/no-such-program",))


@pytest.mark.slow
def test_a_rank_ignores_sigterm_and_ends_when_rank_0_is_gone(tiny_model):
    """The real program, as far as a rendezvous that never answers."""
    with listen_for_ranks() as listener, subprocess.Popen(WORKER_COMMAND, stdin=subprocess.PIPE, text=True) as process:
        listener.settimeout(30)
        spec = replace(SPEC, port=listener.getsockname()[1], model_source=tiny_model.source)
        process.stdin.write(spec.to_json() + "\n")
        process.stdin.flush()
        listener.accept()[0].close()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_rank_that_is_told_nothing_ends():
    with subprocess.Popen(WORKER_COMMAND, stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(20) == 0
