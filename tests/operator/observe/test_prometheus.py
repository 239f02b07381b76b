"""The client against a Prometheus that misbehaves in every way we know."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adaptive_operator.observe import prometheus
from adaptive_operator.observe.prometheus import Failed, PrometheusReader, Rows, parse_rows
from adaptive_operator.observe.queries import Query, QueryName

QUERIES = tuple(Query(name, f"up{{a='{name}'}}", ("namespace", "model")) for name in list(QueryName)[:3])
Answer = Callable[[BaseHTTPRequestHandler], None]


def send(body: bytes, status: int = 200, length: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def vector(*series: tuple[dict[str, str], str]) -> bytes:
    result = [{"metric": metric, "value": [1.0, value]} for metric, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


class Server:
    def __init__(self) -> None:
        self.answer: Answer = send(vector())
        self.requests: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.requests.append(dict(self.headers.items()))
                try:
                    outer.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()
    running.thread.join()


@pytest.fixture
def reader(server: Server) -> Iterator[PrometheusReader]:
    client = PrometheusReader(server.url, request_timeout_seconds=0.3, read_timeout_seconds=1.0)
    yield client
    client.close()


async def test_rows_are_keyed_by_the_querys_labels(server: Server, reader: PrometheusReader) -> None:
    server.answer = send(vector(({"namespace": "demo", "model": "a"}, "1.5"), ({"namespace": "demo"}, "NaN")))
    answers = await reader.read(QUERIES)
    for query in QUERIES:
        answer = answers[query]
        assert isinstance(answer, Rows)
        assert answer.values["demo", "a"] == 1.5
        assert ("demo", "") in answer.values


def test_a_key_that_comes_twice_is_a_duplicate() -> None:
    rows = parse_rows(
        [{"metric": {"a": "x"}, "value": [0, "1"]}, {"metric": {"a": "x", "b": "y"}, "value": [0, "2"]}], "a"
    )
    assert rows.duplicates == {("x",)}


def test_a_subquerys_answer_is_a_series_by_key() -> None:
    rows = parse_rows([{"metric": {"a": "x"}, "values": [[15, "1"], [45, "NaN"]]}], "a")
    assert rows.values == {}
    [first, second] = rows.series["x",]
    assert first == (15.0, 1.0)
    assert second[0] == 45.0
    assert math.isnan(second[1])


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (send(b"oops", 503), "Prometheus refused the query: HTTP Status Code 503"),
        (send(b'{"status":"error","error":"parse error"}', 400), "Prometheus refused the query: HTTP Status Code 400"),
        (send(b"<html>"), "unexpected answer from Prometheus"),
        (send(b'{"data": {"result": 5}}'), "unexpected answer from Prometheus: TypeError"),
        (
            send(b'{"data": {"result": [{"metric": {}, "value": [1, "x"]}]}}'),
            "unexpected answer from Prometheus: ValueError",
        ),
        (send(b"[]"), "unexpected answer from Prometheus"),
        (send(b"{}", length=50), "no connection to Prometheus"),
        (lambda handler: time.sleep(0.6), "answers too slowly"),
        (drip, "answers too slowly"),
    ],
    ids=["503", "400", "not JSON", "no vector", "no number", "no object", "cut off", "silent", "a slow drip"],
)
async def test_what_is_no_answer_is_a_cause(
    server: Server, reader: PrometheusReader, answer: Answer, cause: str
) -> None:
    server.answer = answer
    started = time.monotonic()
    answers = await reader.read(QUERIES)
    assert time.monotonic() - started < 1.5
    for query in QUERIES:
        failed = answers[query]
        assert isinstance(failed, Failed)
        assert cause in failed.cause


async def test_a_huge_answer_is_cut(server: Server, reader: PrometheusReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_ANSWER_BYTES", 1000)
    server.answer = send(b" " * 200_000)
    answers = await reader.read(QUERIES[:1])
    assert "larger than" in answers[QUERIES[0]].cause  # type: ignore[union-attr]


async def test_a_redirect_is_not_followed(server: Server, reader: PrometheusReader) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", server.url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answer = redirect
    answers = await reader.read(QUERIES[:1])
    assert isinstance(answers[QUERIES[0]], Failed)
    assert len(server.requests) == 1


async def test_when_prometheus_is_gone_one_attempt_answers_for_all() -> None:
    reader = PrometheusReader("http://127.0.0.1:9", request_timeout_seconds=0.3, read_timeout_seconds=1.0)
    answers = await reader.read(QUERIES)
    assert {a.cause for a in answers.values() if isinstance(a, Failed)} == {
        "no connection to Prometheus at http://127.0.0.1:9: ConnectionError"
    }
    reader.close()


async def test_a_hung_thread_costs_a_time_out_and_not_the_pass(server: Server) -> None:
    reader = PrometheusReader(server.url, request_timeout_seconds=0.8, read_timeout_seconds=0.2)
    server.answer = lambda handler: time.sleep(1.0)
    started = time.monotonic()
    for _ in range(2):
        answers = await reader.read(QUERIES)
        assert "did not answer within" in answers[QUERIES[0]].cause  # type: ignore[union-attr]
    assert time.monotonic() - started < 0.8
    reader.close()


async def test_a_token_is_read_anew_for_each_request(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    reader = PrometheusReader(server.url, 0.5, 1.0, token)
    for text in ("first\n", "second"):
        token.write_text(text)
        await reader.read(QUERIES[:1])
    assert [request["Authorization"] for request in server.requests] == ["Bearer first", "Bearer second"]
    reader.close()
