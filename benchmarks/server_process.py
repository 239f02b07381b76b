"""Starts a server as a process of its own on the loopback, waits until it is healthy, and reads its memory.

Knows no engine: the caller gives the command, the server answers GET /health with 200 when it is ready.
"""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 180.0  # a first start builds the kernels
_POLL_SECONDS = 0.01  # also the error of a cold start's figure


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server. `started` and `ready`: monotonic seconds of the process start and of its first good health."""

    base: str  # http://host:port
    process: subprocess.Popen[bytes]
    started: float
    ready: float

    def read(self, path: str) -> bytes:
        with urllib.request.urlopen(self.base + path, timeout=10) as response:
            return bytes(response.read())

    def rss_bytes(self) -> int:
        """Resident memory now, 0 after the process has ended."""
        return self._memory("VmRSS")

    def peak_rss_bytes(self) -> int:
        """Most resident memory since the start, pages of mapped files included; 0 after the process has ended."""
        return self._memory("VmHWM")

    def _memory(self, name: str) -> int:
        try:
            return parse_memory(Path(f"/proc/{self.process.pid}/status").read_text(), name)
        except OSError:
            return 0


def parse_memory(status: str, name: str) -> int:
    """Bytes of one kB line in the text of /proc/PID/status; 0 without it (a process that has ended has none)."""
    lines = (line.split() for line in status.splitlines() if line.startswith(f"{name}:"))
    return next((int(line[1]) * 1024 for line in lines), 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_server(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """A server that is ready; ended on exit. Exits the program with the log's end if it does not start.

    `environment`: all its variables; None: this process's.
    """
    base = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            ready = _wait_until_ready(base, process, log)
            yield ServerProcess(base, process, started, ready)
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_ready(base: str, process: subprocess.Popen[bytes], log: Path) -> float:
    """When /health was good for the first time, monotonic seconds."""
    give_up = time.monotonic() + READY_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{base}/health", timeout=10).close()
            return time.monotonic()
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"the server did not become ready:\n{log.read_text()[-2000:]}") from None
            time.sleep(_POLL_SECONDS)
