"""Error bodies that the clients of each family can read."""

from __future__ import annotations

import json

import pytest

from inference_pods.router.dialect import (
    Dialect,
    build_error_body,
    build_error_frames,
    dialect_of,
    parse_stream_error,
    wants_stream,
)


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/", Dialect.TGI),
        ("/generate_stream", Dialect.TGI),
        ("/tokenize", Dialect.TGI),
        ("/v1/completions", Dialect.OPENAI),
    ],
)
def test_the_route_decides_the_dialect(path, dialect):
    assert dialect_of(path) is dialect


@pytest.mark.parametrize("status", [400, 404, 405, 413, 422, 424, 429, 500, 502, 503])
def test_every_status_has_a_body_in_both_dialects(status):
    tgi = json.loads(build_error_body(Dialect.TGI, status, "mé"))
    assert tgi["error"] == "mé"
    assert isinstance(tgi["error_type"], str)
    openai = json.loads(build_error_body(Dialect.OPENAI, status, "m"))["error"]
    assert openai.keys() == {"message", "type", "param", "code"}
    assert isinstance(openai["code"], str)


@pytest.mark.parametrize("dialect", list(Dialect))
def test_the_frames_that_end_a_broken_stream_are_read_as_an_error(dialect):
    frames = build_error_frames(dialect, "broke").split(b"\n\n")
    error = parse_stream_error(frames[0].removeprefix(b"data: "))
    assert error is not None
    assert error.status == 500
    assert (b"data: [DONE]" in frames) is (dialect is Dialect.OPENAI)


@pytest.mark.parametrize("payload", [b"{", b'"error"', b'{"error": null}', b'{"text": "\\"error\\""}', b'["error"]'])
def test_what_only_looks_like_an_error_is_none(payload):
    assert parse_stream_error(payload) is None


@pytest.mark.parametrize(
    ("path", "body", "streams"),
    [
        ("/generate_stream", b'{"inputs": "x"}', True),
        ("/generate", b'{"inputs": "x", "stream": true}', False),
        ("/", b'{"inputs": "x", "stream" : true}', True),
        ("/", b'{"inputs": "x", "stream":false}', False),
        ("/v1/chat/completions", b'{"messages": [], "stream":true}', True),
        ("/v1/completions", b'{"prompt": "x"}', False),
        ("/v1/completions", json.dumps({"prompt": 'write {"stream": true}'}).encode(), False),
    ],
)
def test_a_stream_is_recognised_by_route_and_body(path, body, streams):
    assert wants_stream(path, body) is streams
