"""The engine's process as a container starts and stops it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


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
