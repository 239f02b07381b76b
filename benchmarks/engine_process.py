"""Starts one engine as a process of its own, waits until it is ready, and reads its metrics."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peer import SOURCE

READY_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """A running engine."""

    base: str  # http://host:port
    process: subprocess.Popen[bytes]

    def read(self, path: str) -> bytes:
        with urllib.request.urlopen(self.base + path, timeout=10) as response:
            return bytes(response.read())

    def info(self) -> dict[str, Any]:
        return dict(json.loads(self.read("/info")))

    def metrics(self) -> dict[str, float]:
        """Values by metric name, labels left out (the engine has one model and one tier)."""
        return parse_metrics(self.read("/metrics").decode())

    def rss_bytes(self) -> int:
        """Resident memory now, 0 after the process has ended."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return 0
        return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:")), 0)


def parse_metrics(text: str) -> dict[str, float]:
    values = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name.partition("{")[0]] = float(value)
    return values


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_engine(flags: Sequence[str], log: Path) -> Iterator[EngineProcess]:
    """An engine that is ready; ended on exit. Exits the program with the log's end if it does not start."""
    port = free_port()
    command = [sys.executable, "-m", "inference_pods.engine", "--model-source", SOURCE, "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--port", str(port), *flags], stdout=output, stderr=output)
        engine = EngineProcess(f"http://127.0.0.1:{port}", process)
        try:
            _wait_until_ready(engine, log)
            yield engine
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(engine: EngineProcess, log: Path) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while True:
        try:
            engine.read("/health")
            return
        except (urllib.error.URLError, OSError):
            if engine.process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"the engine did not become ready:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.05)
