"""Another level for a request that runs: over HTTP, and what its tokens are afterwards."""

import asyncio
import json

import pytest

from inference_pods.kernels.decoder import Chunk
from inference_pods.kernels.formats import BLOCK_TOKENS, Precision

LEVELS = ("int8", "int4")
NAMED = {"x-request-id": "mine"}


async def put_level(http, engine, name, body):
    async with http.put(f"{engine.url}/requests/{name}/level", json=body) as response:
        return response.status, await response.json()


def start(http, engine, path="/generate", tokens=6, **fields):
    body = {"inputs": "Hello there", "parameters": {"max_new_tokens": tokens, **fields}}
    return asyncio.create_task(collect(http, engine, path, body))


async def collect(http, engine, path, body):
    async with http.post(engine.url + path, json=body, headers=NAMED) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/chat/completions"])
async def test_a_running_request_changes_its_level_at_the_next_token(serve, scripted_runner, http, path):
    engine = await serve(scripted_runner, levels=LEVELS)
    scripted_runner.gate.clear()
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 4}, "temperature": 0, "max_tokens": 4}
    body["messages"] = [{"role": "user", "content": "Hi"}]
    running = asyncio.create_task(collect(http, engine, path, body))
    await engine.wait_for(lambda: engine.service.engine.scheduler.running)
    assert await put_level(http, engine, "mine", {"level": "int4"}) == (200, {"level": "int4", "runs": 1})
    scripted_runner.gate.set()
    assert (await running)[0] == 200
    levels = [chunk.level for step in scripted_runner.steps for chunk in step]
    assert levels[0] == 0
    assert levels[-3:] == [1, 1, 1]


async def test_a_waiting_request_begins_at_its_new_level(serve, scripted_runner, http):
    engine = await serve(scripted_runner, batch=1, levels=LEVELS)
    scripted_runner.gate.clear()
    async with http.post(engine.url + "/generate_stream", json={"inputs": "Hi", "parameters": {"max_new_tokens": 3}}):
        waiting = start(http, engine, tokens=2)
        await engine.wait_for(lambda: engine.service.live_requests == 2)
        assert (await put_level(http, engine, "mine", {"level": "int4"}))[0] == 200
        scripted_runner.gate.set()
        assert (await waiting)[0] == 200
    assert [chunk.level for step in scripted_runner.steps for chunk in step] == [0, 0, 0, 1, 1]


async def test_all_siblings_of_a_request_change_together(serve, scripted_runner, http):
    engine = await serve(scripted_runner, levels=LEVELS)
    scripted_runner.gate.clear()
    running = start(http, engine, best_of=3, temperature=2.0)
    await engine.wait_for(lambda: engine.service.live_requests == 3)
    assert (await put_level(http, engine, "mine", {"level": "int4"}))[1]["runs"] == 3
    scripted_runner.gate.set()
    assert (await running)[0] == 200


@pytest.mark.parametrize(
    ("name", "body", "status", "words"),
    [
        ("mine", {"level": "int2"}, 400, "use int8 or int4"),
        ("other", {"level": "int4"}, 404, "'other'"),
        ("mine", {}, 422, "level"),
        ("mine", {"level": 4}, 422, "level"),
    ],
    ids=["no such level", "no such request", "no level", "no name"],
)
async def test_what_cannot_be_changed_is_said_and_changes_nothing(
    serve, scripted_runner, http, name, body, status, words
):
    engine = await serve(scripted_runner, levels=LEVELS)
    scripted_runner.gate.clear()
    running = start(http, engine)
    await engine.wait_for(lambda: engine.service.engine.scheduler.running)
    actual, answer = await put_level(http, engine, name, body)
    assert actual == status
    assert words in answer["error"]
    scripted_runner.gate.set()
    assert (await running)[0] == 200
    assert {chunk.level for step in scripted_runner.steps for chunk in step} == {0}


async def test_a_request_without_a_name_or_that_has_ended_is_not_found(serve, scripted_runner, http):
    engine = await serve(scripted_runner, levels=LEVELS)
    assert (await start(http, engine))[0] == 200
    assert (await put_level(http, engine, "mine", {"level": "int4"}))[0] == 404


def decode(runner, prompt, at_top, total):
    """Greedy tokens straight from the runner: the prompt and `at_top` tokens at level 0, the others at level 1."""
    table = list(range(-(-(len(prompt) + total) // BLOCK_TOKENS)))
    tokens, start = list(prompt), 0
    while len(tokens) < len(prompt) + total:
        level = int(len(tokens) - len(prompt) >= at_top)
        (scores,) = runner.step([Chunk(tokens[start:], start, table, 1, level)])
        start = len(tokens)
        tokens.append(scores.best)
    return tokens[len(prompt) :]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_after_the_change_the_keys_and_values_are_valid(serve, load_runner, http, tokenizer):
    """Tokens before the change are the top level's, those after it the lower level's over the same cached prefix.

    Computing the prefix again at the lower level would give other keys and values, hence other tokens.
    """
    runner, total = load_runner(Precision.NESTED, 7), 60
    engine = await serve(runner, levels=LEVELS)
    body = {"inputs": "Once upon a time there was", "parameters": {"max_new_tokens": total, "ignore_eos": True}}
    seen = []
    async with http.post(engine.url + "/generate_stream", json=body, headers=NAMED) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                seen.append(json.loads(line.removeprefix(b"data: "))["token"]["id"])
            if len(seen) == 5 and line.startswith(b"data: "):
                assert (await put_level(http, engine, "mine", {"level": "int4"}))[0] == 200
    counted = engine.service.engine.scheduler.stats.level_tokens
    assert counted.total() == len(seen) == total
    assert 5 <= counted[0] < total
    prompt = tokenizer.encode(body["inputs"])
    at_top, at_low = decode(runner, prompt, total, total), decode(runner, prompt, 0, total)
    assert seen == decode(runner, prompt, counted[0], total)
    assert seen[: counted[0]] == at_top[: counted[0]]
    assert at_top != at_low, "the levels differ, so that the comparison says something"
    assert seen != at_top
