"""The relay in front of scripted engines: bytes, errors, retries, disconnects, drains."""

from __future__ import annotations


async def test_a_plain_answer_is_relayed_with_the_tier_that_served_it(start_engine, start_router):
    engine = await start_engine()
    router = await start_router(engine)
    answer = await router.post()
    assert answer.status == 200
    assert answer.headers["x-tier-served"] == "full"
    assert answer.headers["x-quality-served"] == "1000"
    assert answer.headers["x-route-reason"] == "Preferred"
    router.assert_idle()


async def test_a_stream_is_relayed_byte_for_byte(start_engine, start_router, tools):
    engine = await start_engine(tokens=5)
    router = await start_router(engine)
    answer = await router.stream()
    assert answer.body == b"".join(tools.tgi_frame(i + 1, last=i == 4) for i in range(5))
    assert answer.headers["Content-Type"] == "text/event-stream"
    router.assert_idle()
