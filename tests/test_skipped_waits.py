"""What a loop that skips its waits skips, and what it does not."""

import asyncio
import time

import pytest

pytestmark = pytest.mark.usefixtures("skipped_waits")


async def test_sleeping_takes_no_time_but_on_the_loops_clock():
    loop, real = asyncio.get_running_loop(), time.monotonic()
    start = loop.time()
    await asyncio.sleep(3600)
    assert 3600 <= loop.time() - start < 3660
    assert time.monotonic() - real < 60


async def test_timers_end_in_their_order():
    ended = []

    async def sleep(seconds):
        await asyncio.sleep(seconds)
        ended.append(seconds)

    await asyncio.gather(*(sleep(seconds) for seconds in (30, 10, 0.001, 20)))
    assert ended == [0.001, 10, 20, 30]


async def test_an_answer_on_its_way_arrives_before_a_timer_that_ends_much_later():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, asyncio.timeout(1):
        for _ in range(50):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()


async def test_time_in_which_something_computes_still_passes():
    start = asyncio.get_running_loop().time()
    time.sleep(0.02)  # noqa: ASYNC251 - stands for a computation
    assert asyncio.get_running_loop().time() - start >= 0.02
