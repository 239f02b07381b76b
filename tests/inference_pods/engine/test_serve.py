"""However loading ends, the process says why in one line, and ends with an exit code that tells."""

import json
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from inference_pods.engine import serve
from inference_pods.engine.distributed.launch import Loss
from inference_pods.engine.emulated.curve import Curve, LevelCurve
from inference_pods.engine.emulated.startup import build_emulated_engine
from inference_pods.engine.errors import GenerationError, LoadError, LoadReason
from inference_pods.engine.sequence import GenerationRequest
from inference_pods.engine.service import Phase
from inference_pods.kernels.decoder import DeviceLostError

ARGUMENTS = ["engine", "--model-source", "file:///none.gguf", "--precision", "int4", "--port", "0"]
LOAD_SECONDS = "adaptive_engine_load_seconds", {"model": "model", "tier": "full"}


@pytest.fixture
def run_engine(monkeypatch, tmp_path, capsys):
    """Runs the engine, its loading replaced; (exit code, what it said on stderr, what it left for the operator)."""

    def run(build, started=0.0, arguments=ARGUMENTS):
        log = tmp_path / "termination-log"
        log.touch()
        monkeypatch.setattr(serve, "TERMINATION_LOG", log)
        monkeypatch.setattr(serve, "build_engine", build)
        monkeypatch.setattr("sys.argv", arguments)
        code = serve.run(started)
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
        left = log.read_text()
        return code, json.loads(said[-1]) if said else None, json.loads(left) if left else None

    return run


@pytest.mark.parametrize(
    ("error", "code", "reason", "words"),
    [
        (LoadError(LoadReason.CORRUPT, "cut short"), 4, "ModelCorrupt", "cut short"),
        (MemoryError(), 6, "OutOfMemory", "replica.memory"),
        (RuntimeError("odd tensor"), 8, "EngineFailed", "RuntimeError: odd tensor"),
        (RecursionError(), 8, "EngineFailed", "RecursionError"),
        (GenerationError("no number"), 8, "EngineFailed", "no number"),
    ],
    ids=["a known reason", "no memory", "an error that nobody foresaw", "an error without words", "a failed proof"],
)
def test_every_failure_to_load_is_reported_with_its_exit_code(run_engine, error, code, reason, words):
    def build(*_):
        raise error

    actual, said, left = run_engine(build)
    assert (actual, said["reason"]) == (code, reason)
    assert words in said["message"]
    assert left == said


def test_a_port_that_is_taken_is_reported_with_flag_and_remedy(run_engine):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        given = [*ARGUMENTS[:-1], port, "--host", "127.0.0.1"]
        actual, said, left = run_engine(lambda *_: pytest.fail("loaded"), arguments=given)
    assert (actual, said["reason"]) == (8, "EngineFailed")
    assert f"--port {port}: nothing can listen there" in said["message"]
    assert "in use" in said["message"]
    assert "choose another port" in said["message"]
    assert left == said


def test_a_loaded_engine_that_cannot_be_proved_is_reported(run_engine):
    actual, said, _ = run_engine(lambda *_: object())
    assert (actual, said["reason"]) == (8, "EngineFailed")


def test_a_stop_signal_amid_loading_ends_the_engine_at_once_and_well(monkeypatch):
    """Loading is one long call in a thread of its own; nobody waits for it."""
    loaded = threading.Event()

    def build(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        loaded.wait(20)
        raise LoadError(LoadReason.CORRUPT, "nobody is interested any more")

    monkeypatch.setattr(serve, "build_engine", build)
    monkeypatch.setattr("sys.argv", ARGUMENTS)
    started = time.monotonic()
    code = serve.run(started)
    took = time.monotonic() - started
    loaded.set()
    assert code == 0
    assert took < 5


def test_the_load_seconds_count_from_the_start_of_the_process_to_the_proof(run_engine, monkeypatch):
    services, said = [], []

    def build(settings, deliver, observe, _on_lost):
        emulated = replace(settings, emulate=(LevelCurve("", Curve(100, 0, 0)),))
        return build_emulated_engine(emulated, deliver, observe)

    proved = serve.Service.prove

    async def prove_then_stop(service):
        await proved(service)
        services.append(service)
        said.append(service.metrics.registry.get_sample_value(*LOAD_SECONDS))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(serve.Service, "prove", prove_then_stop)
    started = time.monotonic() - 3.0
    assert run_engine(build, started) == (0, None, None)
    assert said == [0.0], "not ready yet"
    loaded = services[0].metrics.registry.get_sample_value(*LOAD_SECONDS)
    assert 3.0 < loaded < time.monotonic() - started


def break_books(engine, monkeypatch):
    monkeypatch.setattr(engine.scheduler, "schedule", lambda: [][0])


def break_device(engine, monkeypatch):
    def step(_):
        raise DeviceLostError("cuda:0 fails every call")

    monkeypatch.setattr(engine.loop._core._runner, "step", step)


@pytest.mark.parametrize("break_engine", [break_books, break_device])
def test_an_engine_whose_loop_ended_by_an_error_ends_the_process_and_is_not_taken_for_one_that_cannot_load(
    run_engine, monkeypatch, caplog, break_engine
):
    """A crash after the proof; the probes would take minutes to have the container restarted."""
    engines = []

    def build(settings, deliver, observe, _on_lost):
        emulated = replace(settings, emulate=(LevelCurve("", Curve(100, 0, 0)),))
        engines.append(build_emulated_engine(emulated, deliver, observe))
        return engines[0]

    proved = serve.Service.prove

    async def prove_then_break(service):
        await proved(service)
        break_engine(engines[0], monkeypatch)
        engines[0].loop.submit(1, GenerationRequest((1,), 1))

    monkeypatch.setattr(serve.Service, "prove", prove_then_break)
    assert run_engine(build) == (8, None, None)
    assert "the engine's loop ended by an error" in caplog.text


@pytest.mark.parametrize(
    ("phase", "loss", "left"),
    [
        (Phase.LOADING, Loss("ModelCorrupt", "cut short", 4), ("ModelCorrupt", 4)),
        (Phase.LOADING, Loss("RankLost", "rank 1 was killed"), ("EngineFailed", 7)),
        (Phase.READY, Loss("RankLost", "rank 1 was killed"), ("RankLost", 7)),
        (Phase.READY, Loss("OutOfMemory", "rank 1 could not load its part", 6), ("RankLost", 7)),
        (Phase.STOPPING, Loss("EngineFailed", "rank 1 could not load its part", 8), ("RankLost", 7)),
    ],
    ids=[
        "it could not load", "it was killed while it loaded", "it was killed when the replica served",
        "it had no memory for a step", "it failed when the replica was told to stop",
    ],
)  # fmt: skip
def test_a_lost_rank_is_a_failed_load_only_while_the_replica_loads(monkeypatch, tmp_path, phase, loss, left):
    log, codes = tmp_path / "termination-log", []
    log.touch()
    monkeypatch.setattr(serve, "TERMINATION_LOG", log)
    monkeypatch.setattr(serve, "_LAST_WORDS_SECONDS", 0.0)
    monkeypatch.setattr(serve.os, "_exit", codes.append)
    service = SimpleNamespace(phase=phase)
    serve._end_lost_replica(service, loss)
    assert (json.loads(log.read_text())["reason"], codes) == (left[0], [left[1]])
    assert loss.message in json.loads(log.read_text())["message"]
    assert service.phase is Phase.STOPPING
