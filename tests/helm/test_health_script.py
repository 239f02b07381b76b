"""The script of `helm test`, run against real HTTP servers on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "helm" / "adaptive-llm" / "files" / "helm-test.py"
pytestmark = pytest.mark.no_helm


class _Server(ThreadingHTTPServer):
    """Answers /healthz with 503 for the first `failures` requests, and /generate with `answer`."""

    failures = 0
    answer: object = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error of a test."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.failures -= 1
        self._send(503 if self.server.failures >= 0 else 200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        complete = self.path == "/generate" and body["inputs"] and body["parameters"]["max_new_tokens"] > 0
        self._send(200 if complete else 422, self.server.answer)

    def _send(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def server() -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _run(server: _Server, *, model: bool = False, tries: int = 3) -> subprocess.CompletedProcess[str]:
    base = f"http://127.0.0.1:{server.server_port}"
    environment = {"HEALTH_URL": f"{base}/healthz", "TRIES": str(tries), "PAUSE_SECONDS": "0.01"}
    if model:
        environment["MODEL_URL"] = f"{base}/generate"
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.read_text()],
        env={"PATH": os.environ.get("PATH", ""), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_healthy_operator_passes(server: _Server) -> None:
    assert _run(server).returncode == 0


def test_an_operator_that_starts_slowly_is_waited_for(server: _Server) -> None:
    server.failures = 2
    assert _run(server).returncode == 0


def test_an_operator_without_progress_fails_naming_address_and_cause(server: _Server) -> None:
    server.failures = 100
    done = _run(server)
    assert done.returncode == 1
    assert "/healthz" in done.stderr
    assert "503" in done.stderr


def test_waiting_is_bounded(server: _Server) -> None:
    server.failures = 100
    _run(server, tries=2)
    assert server.failures == 98


def test_a_model_that_completes_a_request_passes(server: _Server) -> None:
    server.answer = {"generated_text": " Paris."}
    done = _run(server, model=True)
    assert done.returncode == 0
    assert "Paris" not in done.stdout, "generated text stays out of logs"


@pytest.mark.parametrize("answer", [{"error": "overloaded"}, [], None], ids=["an error body", "a list", "nothing"])
def test_a_model_that_answers_something_else_fails(server: _Server, answer: object) -> None:
    server.answer = answer
    done = _run(server, model=True)
    assert done.returncode == 1
    assert "/generate" in done.stderr
