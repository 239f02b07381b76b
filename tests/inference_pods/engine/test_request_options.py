"""Headers of a request: parsed, and over HTTP with levels, priorities and deadlines."""

import asyncio
import json

import pytest

from inference_pods.engine.errors import HeaderError
from inference_pods.engine.request_options import parse_options

LEVELS = ("int8", "int4", "int4-d28")
CHAT = "/v1/chat/completions"
GENERATE = {"inputs": "Hello", "parameters": {"max_new_tokens": 3}}
CHAT_BODY = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 3}


def test_without_headers_the_first_level_is_served_at_once_and_for_ever():
    options = parse_options({}, LEVELS)
    assert (options.level, options.level_name, options.priority, options.deadline_seconds) == (0, "int8", 0, None)


def test_headers_are_read_and_the_deadline_counts_from_now():
    headers = {"x-level": " int4-d28 ", "x-priority": "-3", "x-deadline-ms": "1500"}
    options = parse_options(headers, LEVELS, clock=lambda: 100.0)
    assert (options.level, options.level_name, options.priority) == (2, "int4-d28", -3)
    assert options.deadline_seconds == 101.5


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"x-level": "int2"}, "int8 or int4 or int4-d28"),
        ({"x-priority": "high"}, "x-priority"),
        ({"x-priority": "1.5"}, "x-priority"),
        ({"x-priority": ""}, "x-priority"),
        ({"x-deadline-ms": "0"}, "x-deadline-ms"),
        ({"x-deadline-ms": "-5"}, "x-deadline-ms"),
        ({"x-deadline-ms": "soon"}, "x-deadline-ms"),
        ({"x-deadline-ms": "9" * 5000}, "x-deadline-ms"),
        ({"x-speculate": "on"}, "x-speculate"),
        ({"x-speculate": ""}, "x-speculate"),
        ({"x-speculate": "o" * 5000}, "x-speculate"),
    ],
)
def test_a_bad_header_is_named_with_the_remedy(headers, words):
    with pytest.raises(HeaderError) as caught:
        parse_options(headers, LEVELS)
    assert words in caught.value.message
    assert len(caught.value.message) < 200


async def post(http, url, body, headers):
    async with http.post(url, json=body, headers=headers) as response:
        return response.status, await response.text(), response.headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", GENERATE),
        ("/generate_stream", GENERATE),
        ("/", {**GENERATE, "stream": True}),
        (CHAT, CHAT_BODY),
        (CHAT, {**CHAT_BODY, "stream": True}),
        ("/v1/completions", {"prompt": "a", "max_tokens": 2}),
    ],
)
async def test_every_route_serves_the_level_that_was_asked_for_and_says_so(serve, scripted_runner, http, path, body):
    engine = await serve(scripted_runner, levels=LEVELS)
    for asked, served in (({}, "int8"), ({"x-level": "int4"}, "int4")):
        status, _, headers = await post(http, engine.url + path, body, asked)
        assert (status, headers["x-level-served"]) == (200, served)
    status, text, _ = await post(http, engine.url + path, body, {"x-level": "fp32"})
    assert status == 400
    error = json.loads(text)["error"]
    message = error if isinstance(error, str) else error["message"]
    assert "x-level" in message
    assert "int8 or int4 or int4-d28" in message
    assert engine.service.live_requests == 0


async def test_a_request_carries_its_options_to_the_engine(serve, scripted_runner, http, monkeypatch):
    engine = await serve(scripted_runner, levels=LEVELS)
    seen = []
    submit = engine.service.engine.loop.submit
    monkeypatch.setattr(engine.service.engine.loop, "submit", lambda i, r: (seen.append(r), submit(i, r)))
    headers = {"x-level": "int4", "x-priority": "7", "x-deadline-ms": "60000"}
    for path, body in (("/generate", GENERATE), (CHAT, CHAT_BODY)):
        assert (await post(http, engine.url + path, body, headers))[0] == 200
    assert [(request.level, request.priority) for request in seen] == [(1, 7), (1, 7)]
    assert all(request.deadline_seconds is not None for request in seen)


@pytest.mark.parametrize(("headers", "speculate"), [({}, True), ({"x-speculate": " off "}, False)])
def test_a_request_may_be_drafted_unless_it_says_off(headers, speculate):
    assert parse_options(headers, LEVELS).speculate is speculate


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", GENERATE),
        ("/generate_stream", GENERATE),
        ("/", GENERATE),
        (CHAT, CHAT_BODY),
        ("/v1/completions", {"prompt": "a", "max_tokens": 2}),
    ],
)
async def test_every_route_hears_that_a_request_must_not_be_drafted(
    serve, scripted_runner, http, monkeypatch, path, body
):
    engine = await serve(scripted_runner, levels=LEVELS)
    seen = []
    submit = engine.service.engine.loop.submit
    monkeypatch.setattr(engine.service.engine.loop, "submit", lambda i, r: (seen.append(r), submit(i, r)))
    for headers in ({}, {"x-speculate": "off"}):
        assert (await post(http, engine.url + path, body, headers))[0] == 200
    assert [request.speculate for request in seen] == [True, False]
    status, text, _ = await post(http, engine.url + path, body, {"x-speculate": "never"})
    assert (status, "x-speculate" in text) == (400, True)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [("/generate", GENERATE, 424, "generation"), (CHAT, CHAT_BODY, 504, "deadline_exceeded")],
)
async def test_a_passed_deadline_ends_the_request_and_asks_not_to_be_repeated(
    serve, scripted_runner, http, path, body, status, kind
):
    engine = await serve(scripted_runner)
    scripted_runner.gate.clear()
    answer = await post(http, engine.url + path, body, {"x-deadline-ms": "40"})
    assert (answer[0], answer[2]["x-should-retry"]) == (status, "false")
    assert kind in answer[1]
    assert "x-deadline-ms" in answer[1]
    assert engine.service.live_requests == 0
    scripted_runner.gate.set()
    await engine.wait_for(lambda: engine.service.engine.scheduler.is_idle)
    assert engine.service.engine.scheduler.blocks.used_blocks == 0


@pytest.mark.parametrize(("path", "end"), [("/generate_stream", "error_type"), (CHAT, "[DONE]")])
async def test_a_deadline_within_a_stream_ends_it_with_an_error_frame(serve, scripted_runner, http, path, end):
    engine = await serve(scripted_runner)
    body = {**CHAT_BODY, "stream": True} if path == CHAT else GENERATE
    scripted_runner.gate.clear()
    stream = asyncio.create_task(post(http, engine.url + path, body, {"x-deadline-ms": "40"}))
    status, text, _ = await stream
    frames = text.strip().split("\n\n")
    assert status == 200
    assert "x-deadline-ms" in frames[-2 if path == CHAT else -1]
    assert end in frames[-1]
    scripted_runner.gate.set()
