import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.http_load import (
    LLAMA,
    OURS,
    Endpoint,
    LoadShape,
    StreamTimes,
    build_prompts,
    run_load,
    tokens_per_second,
)

SHAPE = LoadShape(clients=2, requests=3, prompt_tokens=5, new_tokens=4)


def our_frames(prompt_tokens: int, new_tokens: int) -> list[dict]:
    last = {"input_length": prompt_tokens, "generated_tokens": new_tokens}
    return [{"token": {}, "details": None}] * (new_tokens - 1) + [{"token": {}, "details": last}]


def llama_frames(prompt_tokens: int, new_tokens: int) -> list[dict]:
    last = {"stop": True, "tokens_evaluated": prompt_tokens, "tokens_predicted": new_tokens}
    return [{"stop": False}] * new_tokens + [last]


def load_from(frames: list[dict], dialect=OURS, status: int = 200) -> tuple[list[StreamTimes], list[dict]]:
    """What the clients measure at a server that answers every request with these frames, and what it was asked."""
    bodies, levels = [], set()

    async def answer(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        levels.add(request.headers.get("x-level"))
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for frame in frames:
            await response.write(b"data:" + json.dumps(frame).encode() + b"\n\n")
        await response.write(b": a comment\n\n")
        return response

    async def run() -> list[StreamTimes]:
        app = web.Application()
        app.router.add_post(dialect.path, answer)
        async with TestServer(app) as server:
            endpoint = Endpoint(str(server.make_url("")).rstrip("/"), dialect, {"x-level": "int4"})
            return await run_load(endpoint, SHAPE, seed=1)

    times = asyncio.run(run())
    assert levels == {"int4"}
    return times, bodies


@pytest.mark.parametrize(("dialect", "frames"), [(OURS, our_frames(5, 4)), (LLAMA, llama_frames(5, 4))])
def test_every_client_sends_its_requests_and_each_is_timed(dialect, frames):
    times, bodies = load_from(frames, dialect)

    assert len(times) == len(bodies) == 6
    assert all(one.sent < one.first <= one.last and one.tokens == 4 for one in times)


def test_both_servers_are_asked_for_the_same_prompts_and_tokens():
    _, ours = load_from(our_frames(5, 4))
    _, peer = load_from(llama_frames(5, 4), LLAMA)

    assert {body["inputs"] for body in ours} == {body["prompt"] for body in peer}
    assert {body["parameters"]["max_new_tokens"] for body in ours} == {body["n_predict"] for body in peer} == {4}


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (our_frames(6, 4), "prompt_tokens=6"),
        (our_frames(5, 3), "new_tokens=3"),
        (our_frames(5, 4)[:-1], "without its last frame"),
        ([{"error": "Model is overloaded", "error_type": "overloaded"}], "overloaded"),
    ],
)
def test_an_answer_that_does_not_compare_ends_the_benchmark(frames, words):
    with pytest.raises(SystemExit, match=words):
        load_from(frames)


def test_a_refusal_with_a_status_names_it():
    with pytest.raises(SystemExit, match="status 503"):
        load_from([], status=503)


def test_prompts_differ_within_a_load_and_between_rounds():
    first, second = build_prompts(SHAPE, 1), build_prompts(SHAPE, 2)

    assert len({*first, *second}) == 12
    assert all(len(prompt.split()) == 5 for prompt in first)


def test_speed_counts_all_tokens_from_the_first_sending_to_the_last_frame():
    times = [StreamTimes(10.0, 10.5, 12.0, 60), StreamTimes(11.0, 11.5, 14.0, 60)]

    assert tokens_per_second(times) == 30.0


@pytest.mark.parametrize(
    ("times", "tpot"), [(StreamTimes(10.0, 11.0, 13.0, 5), 0.5), (StreamTimes(10.0, 11.0, 11.0, 1), 0.0)]
)
def test_time_per_token_leaves_out_the_first(times, tpot):
    assert times.ttft_seconds == 1.0
    assert times.tpot_seconds == tpot
