"""The process: it starts from a mounted table, and on SIGTERM it stops without cutting a stream."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import aiohttp
import pytest


@pytest.fixture
async def launch(tmp_path, tools):
    """Start `python -m inference_pods.router` with a table file and static endpoints; returns (process, base URL)."""
    started = []

    async def start(*engines, **options):
        table = tmp_path / "table.json"
        table.write_text(json.dumps(tools.build_table()))
        arguments = ["--model", "assistant", "--table-path", str(table), "--host", "127.0.0.1", "--port", "0"]
        for engine in engines:
            arguments += ["--static-endpoint", f"{engine.tier}=127.0.0.1:{engine.port}"]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "inference_pods.router", *arguments, stderr=asyncio.subprocess.PIPE
        )
        started.append(process)
        async with asyncio.timeout(20):
            while b"listens on" not in (line := await process.stderr.readline()):
                assert line, "the router ended before it listened"
        base = "http://" + line.decode().rsplit(" ", 1)[1].strip()
        await wait_until_healthy(base)
        return process, base

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def wait_until_healthy(base):
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
        while True:
            async with session.get(base + "/health") as response:
                if response.status == 200:
                    return
            await asyncio.sleep(0.05)


async def test_on_sigterm_streams_finish_new_requests_pass_for_the_grace_and_it_exits_0(start_engine, launch):
    engine = await start_engine(tokens=15, token_seconds=0.1)
    process, base = await launch(engine, drain_seconds=10, listener_grace_seconds=0.5)
    async with aiohttp.ClientSession() as session:
        async with session.post(base + "/generate_stream", json={"inputs": "x"}) as stream:
            await stream.content.readuntil(b"\n\n")
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.15)
            async with session.get(base + "/health") as response:
                assert response.status == 503
            async with session.post(base + "/tokenize", json={"inputs": "x"}) as response:
                assert response.status == 200, "kube-proxy hears of the stop late"
            await asyncio.sleep(0.6)
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(base + "/health")
            rest = await stream.content.read()
        assert rest.count(b"data:") == 14
        assert b'"error"' not in rest
    assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_streams_that_outlast_the_drain_end_with_an_error_frame(start_engine, launch):
    engine = await start_engine(tokens=1000, token_seconds=0.1)
    process, base = await launch(engine, drain_seconds=0.3, listener_grace_seconds=0.1)
    async with (
        aiohttp.ClientSession() as session,
        session.post(base + "/v1/completions", json={"stream": True}) as stream,
    ):
        await stream.content.readuntil(b"\n\n")
        process.send_signal(signal.SIGTERM)
        rest = await stream.content.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert b'"incomplete_stream"' in rest
    assert await asyncio.wait_for(process.wait(), 5) == 0
    assert engine.cancelled == 1


async def test_plain_requests_that_outlast_the_drain_get_a_503_that_says_so(start_engine, launch):
    engine = await start_engine(tokens=1000, token_seconds=0.1)
    process, base = await launch(engine, drain_seconds=0.2, listener_grace_seconds=0.1)
    async with aiohttp.ClientSession() as session:
        pending = asyncio.create_task(session.post(base + "/generate", json={"inputs": "x"}))
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        async with await pending as response:
            assert response.status == 503
            assert "stopping" in (await response.json())["error"]
    assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_an_idle_router_stops_after_its_grace(start_engine, launch):
    process, _ = await launch(await start_engine(), drain_seconds=30, listener_grace_seconds=0.1)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 3) == 0


async def test_a_bad_argument_is_named_and_ends_with_status_2():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inference_pods.router", "--model", "m", "--port", "70000",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert b"--port" in errors
