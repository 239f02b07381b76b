"""Client, open loop and closed loop against a scripted server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from e2e.load.accounting import account
from e2e.load.arrivals import Pattern, Step, draw_arrivals
from e2e.load.client import Due, Prompt, StreamClient
from e2e.load.closed_loop import run_levels
from e2e.load.open_loop import OpenLoop

pytestmark = pytest.mark.usefixtures("skipped_waits")

Clock = Callable[[], float]
PROMPT = Prompt("Once", 3)


async def test_a_complete_answer_is_measured_and_names_its_tier(client: StreamClient, now: Clock) -> None:
    record = await client.send(PROMPT, Due(0, 0, now()))
    assert record.ok
    assert (record.status, record.tier_served, record.quality_permille, record.tokens) == (200, "int4", 780, 3)
    assert record.tpot_seconds == pytest.approx(0.01, abs=0.02)
    assert record.ttft_seconds is not None
    assert record.ttft_seconds >= 0


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("429", "HTTP 429"),
        ("error frame", "error in the stream: generation: broke"),
        ("no final frame", "without its final frame, after 2 tokens"),
        ("lost token", "2 of 3 tokens arrived"),
        ("abort", "ClientPayloadError"),
    ],
)
async def test_anything_but_a_complete_answer_is_a_failure(
    client: StreamClient, script: Any, now: Clock, fault: str, text: str
) -> None:
    script.fault = fault
    record = await client.send(PROMPT, Due(0, 0, now()))
    assert not record.ok
    assert text in record.error


async def test_a_request_has_a_time_limit(client: StreamClient, script: Any, now: Clock) -> None:
    script.delay_seconds = 5
    record = await client.send(PROMPT, Due(0, 0, now()))
    assert record.error == "no complete answer within 2 s"


async def test_a_refused_connection_is_a_failure_without_status(now: Clock) -> None:
    async with aiohttp.ClientSession() as session:
        record = await StreamClient(session, "http://127.0.0.1:9", now, 2).send(PROMPT, Due(0, 0, 0.0))
    assert record.status is None
    assert "Connect" in record.error


async def test_latency_counts_from_when_the_request_was_due(client: StreamClient, now: Clock) -> None:
    record = await client.send(PROMPT, Due(0, 0, now() - 3))
    assert record.ttft_seconds is not None
    assert record.ttft_seconds >= 3
    assert record.start_lag_seconds == pytest.approx(3, abs=0.5)


async def test_the_open_loop_does_not_wait_for_slow_answers(client: StreamClient, script: Any, now: Clock) -> None:
    script.delay_seconds = 0.5
    loop = OpenLoop(client, now, output_tokens=3)
    await loop.run(draw_arrivals([Step(40, 0.5)], Pattern.CONSTANT, 0), asyncio.Event())
    assert script.most_at_once == 20
    assert account(loop.records).ok == loop.sent == 20
    assert loop.in_flight == 0


async def test_a_stopped_open_loop_still_accounts_for_all_it_sent(
    client: StreamClient, script: Any, now: Clock
) -> None:
    script.delay_seconds = 0.1
    stop = asyncio.Event()
    loop = OpenLoop(client, now, output_tokens=3)
    asyncio.get_running_loop().call_later(0.3, stop.set)
    await loop.run(draw_arrivals([Step(20, 60)], Pattern.CONSTANT, 0), stop)
    assert 0 < loop.sent < 20
    assert account(loop.records).sent == loop.sent


async def test_requests_over_the_generators_limit_are_counted_as_failed_not_dropped(
    client: StreamClient, script: Any, now: Clock
) -> None:
    script.delay_seconds = 0.4
    loop = OpenLoop(client, now, output_tokens=3, max_in_flight=2)
    await loop.run(draw_arrivals([Step(20, 0.3)], Pattern.CONSTANT, 0), asyncio.Event())
    total = account(loop.records)
    assert (total.sent, total.ok, total.failed) == (6, 2, 4)
    assert all("generator's limit" in record.error for record in loop.records if not record.ok)


async def test_a_pin_is_sent_with_every_request(client: StreamClient, script: Any, now: Clock) -> None:
    loop = OpenLoop(client, now, output_tokens=3, tier="full")
    await loop.run(draw_arrivals([Step(20, 0.2)], Pattern.CONSTANT, 0), asyncio.Event())
    assert set(script.tiers_asked) == {"full"}
    assert {record.tier_asked for record in loop.records} == {"full"}


async def test_the_closed_loop_keeps_each_level_in_flight(client: StreamClient, script: Any, now: Clock) -> None:
    script.delay_seconds = 0.05
    records = await run_levels(client, now, (1, 3), 0.4, lambda text: Prompt(text, 3))
    assert {record.step for record in records} == {0, 1}
    assert script.most_at_once == 3
    assert len({record.index for record in records}) == len(records)


async def test_falling_levels_are_refused(client: StreamClient, now: Clock) -> None:
    with pytest.raises(ValueError, match="must not fall"):
        await run_levels(client, now, (3, 1), 0.1, lambda text: Prompt(text, 3))
