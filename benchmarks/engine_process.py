"""Our engine as a process of its own: its command line, and its metrics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peer import SOURCE
from benchmarks.server_process import ServerProcess, free_port, run_server


def read_metrics(engine: ServerProcess) -> dict[str, float]:
    """Values by metric name, labels left out (the engine has one model and one tier)."""
    return parse_metrics(engine.read("/metrics").decode())


def parse_metrics(text: str) -> dict[str, float]:
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name.partition("{")[0]] = float(value)
    return values


@contextmanager
def run_engine(
    flags: Sequence[str], log: Path, wrap: Callable[[Sequence[str]], Sequence[str]] = list
) -> Iterator[ServerProcess]:
    """An engine with the example model that is ready; ended on exit. `wrap`: of its command line, what is started."""
    port = free_port()
    command = [sys.executable, "-m", "inference_pods.engine", "--model-source", SOURCE, "--host", "127.0.0.1"]
    with run_server(wrap([*command, "--port", str(port), *flags]), port, log) as server:
        yield server
