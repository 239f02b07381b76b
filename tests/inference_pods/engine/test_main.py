"""The engine's process as a container starts and stops it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal (the first process of a container has no default action)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def is_loaded(pid: int, library: str) -> bool:
    return library in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_stop_signal_is_obeyed_before_the_imports_are_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "inference_pods.engine", "--model-source", "file:///none.gguf"]
    command += ["--precision", "int4", "--served-model-name", "m", "--tier", "int4", "--port", "0"]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3], env=dict(os.environ)) as process:
        deadline = time.monotonic() + 20
        while not catches(process.pid, signal.SIGTERM) and time.monotonic() < deadline:
            time.sleep(0.001)
        early = not is_loaded(process.pid, "uvloop")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert early, "the handler was there only after the imports"


@pytest.mark.parametrize("module", ["inference_pods.engine.__main__", "inference_pods.engine.distributed.worker"])
@pytest.mark.parametrize(
    ("given", "policy", "spins"),
    [({}, "PASSIVE", "0"), ({"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}, "ACTIVE", "7")],
    ids=["unless told otherwise", "as the environment says"],
)
def test_torchs_threads_wait_asleep_in_the_server_and_in_ranks(
    module: str, given: dict[str, str], policy: str, spins: str
) -> None:
    """OMP_DISPLAY_ENV has the OpenMP library itself say, when torch loads it, what it took."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    program = f"import sys, {module}; assert 'torch' not in sys.modules; import torch"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        env={**inherited, **given, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert f"OMP_WAIT_POLICY = '{policy}'" in result.stderr
    assert f"GOMP_SPINCOUNT = '{spins}'" in result.stderr


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inference_pods.engine", "--port", "0", *arguments]
    return subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--kv-cache-tokens", "2000000000"), 6, ("OutOfMemory", "bytes", "--kv-cache-tokens")),
        (("--model-sha256", "0" * 64), 4, ("ModelCorrupt", "expected 0000", "--model-sha256")),
        (("--depths", "30,3"), 5, ("ModelUnsupported", "depth 3", "--depths")),
        (("--draft-level", "int4"), 5, ("ModelUnsupported", "two levels or more", "--draft-level", "nested")),
    ],
    ids=["too much memory", "another digest", "an impossible depth", "drafts without a second level"],
)
def test_a_model_that_cannot_be_served_ends_the_process_with_reason_and_remedy(
    model_source: str, model_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    result = start("--model-source", model_source, "--precision", "int4", *arguments)
    assert result.returncode == code
    said = json.loads(result.stderr.splitlines()[-1])
    assert all(word in f"{said['reason']} {said['message']}" for word in words)
