"""The relay in front of scripted engines: bytes, errors, retries, disconnects, silence."""

from __future__ import annotations

import asyncio
import json
from functools import partial

import aiohttp
import pytest
from aiohttp import web


async def eventually(condition, seconds: float = 3.0) -> None:
    """Wait until `condition()` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition belongs to another component
            await asyncio.sleep(0.01)


def sse_payloads(body: bytes) -> list[str]:
    return [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]


async def break_connection(request: web.Request) -> None:
    request.transport.abort()
    await asyncio.sleep(0.05)


async def test_a_plain_answer_is_relayed_with_the_tier_that_served_it(start_engine, start_router):
    engine = await start_engine()
    router = await start_router(engine)
    answer = await router.post()
    assert answer.status == 200
    assert json.loads(answer.body) == {"generated_text": "aaaa", "served_by": "e1"}
    assert answer.headers["x-tier-served"] == "full"
    assert answer.headers["x-quality-served"] == "1000"
    assert answer.headers["x-route-reason"] == "Preferred"
    assert engine.bodies == [b'{"inputs": "hello"}']
    router.assert_idle()


async def test_a_stream_is_relayed_byte_for_byte(start_engine, start_router, tools):
    engine = await start_engine(tokens=5)
    router = await start_router(engine)
    answer = await router.stream()
    assert answer.body == b"".join(tools.tgi_frame(i + 1, last=i == 4) for i in range(5))
    assert answer.headers["Content-Type"] == "text/event-stream"
    router.assert_idle()


async def test_frames_split_into_single_bytes_arrive_unchanged_and_are_counted_once(start_engine, start_router, tools):
    whole = b"".join(tools.tgi_frame(i + 1, last=i == 2) for i in range(3))

    async def byte_by_byte(engine, request, body):
        return await engine.stream(request, [whole[i : i + 1] for i in range(len(whole))])

    router = await start_router(await start_engine(script=byte_by_byte))
    answer = await router.stream()
    assert answer.body == whole
    assert await router.metric("adaptive_router_tpot_seconds_count", tier="full") == 1


async def test_several_frames_in_one_write_arrive_unchanged(start_engine, start_router, tools):
    whole = b"".join(tools.tgi_frame(i + 1, last=i == 2) for i in range(3))

    async def at_once(engine, request, body):
        return await engine.stream(request, [whole])

    router = await start_router(await start_engine(script=at_once))
    assert (await router.stream()).body == whole


async def test_tokens_reach_the_client_while_the_engine_still_works(start_engine, start_router, tools):
    proceed = asyncio.Event()

    async def waits(engine, request, body):
        response = await engine.stream(request, [tools.tgi_frame(1)], end=False)
        await proceed.wait()
        await response.write(tools.tgi_frame(2, last=True))
        return response

    router = await start_router(await start_engine(script=waits))
    async with router.client.post(router.base + "/generate_stream", json={"inputs": "x"}) as response:
        first = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 2)
        assert first == tools.tgi_frame(1)
        proceed.set()
        assert await response.content.read() == tools.tgi_frame(2, last=True)


@pytest.mark.parametrize("path", ["/generate_stream", "/v1/chat/completions"])
async def test_a_stream_that_is_killed_at_a_token_ends_with_an_error_frame(start_engine, start_router, tools, path):
    async def dies(engine, request, body):
        frame = tools.openai_frame("a") if path.startswith("/v1") else tools.tgi_frame(1)
        await engine.stream(request, [frame, frame[:20]], end=False)
        await break_connection(request)

    engine = await start_engine(script=dies)
    router = await start_router(engine)
    answer = await router.stream(path)
    payloads = sse_payloads(answer.body)
    assert answer.status == 200
    if path.startswith("/v1"):
        assert payloads[-1] == "[DONE]"
        assert json.loads(payloads[-2])["error"]["code"] == "incomplete_stream"
    else:
        assert json.loads(payloads[-1])["error_type"] == "incomplete_generation_stream"
    assert engine.calls == 1, "after the first byte nothing is repeated"
    assert await router.metric("adaptive_router_requests_total", tier="full", code="502") == 1
    assert await router.metric("adaptive_router_requests_total", tier="full", code="200") == 0
    router.assert_idle()


@pytest.mark.parametrize("path", ["/generate_stream", "/v1/completions"])
async def test_a_clean_end_without_the_final_frame_becomes_an_error_frame(start_engine, start_router, tools, path):
    async def forgets_the_end(engine, request, body):
        return await engine.stream(request, [tools.tgi_frame(1), tools.tgi_frame(2)])

    router = await start_router(await start_engine(script=forgets_the_end))
    answer = await router.stream(path)
    assert b'"error"' in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n") == path.startswith("/v1")


async def test_how_an_engine_hangs_up_after_the_final_frame_does_not_matter(start_engine, start_router, tools):
    async def resets(engine, request, body):
        await engine.stream(request, [tools.tgi_frame(1), tools.tgi_frame(2, last=True)], end=False)
        await asyncio.sleep(0.05)
        await break_connection(request)

    router = await start_router(await start_engine(script=resets))
    answer = await router.stream()
    assert b'"error"' not in answer.body
    assert await router.metric("adaptive_router_requests_total", tier="full", code="200") == 1


async def test_an_engine_that_dies_before_its_first_frame_is_replaced(start_engine, start_router):
    async def dies(engine, request, body):
        await engine.stream(request, [], end=False)
        await break_connection(request)

    bad, good = await start_engine("a-bad", script=dies), await start_engine("b-good")
    router = await start_router(bad, good)
    answers = [await router.stream() for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert all(b'"error"' not in answer.body for answer in answers)
    assert bad.calls == 1, "it was put aside"
    router.assert_idle()


@pytest.mark.usefixtures("skipped_waits")
async def test_a_replica_that_refuses_connections_is_replaced_and_comes_back(start_engine, start_router):
    dead, good = await start_engine("a-dead"), await start_engine("b-good")
    router = await start_router(dead, good)
    dead.port_to_reuse = dead.port
    await dead.stop()
    assert [(await router.post()).status for _ in range(4)] == [200] * 4
    assert good.calls == 4
    await dead.start()
    await asyncio.sleep(1.1)
    assert [(await router.post()).status for _ in range(4)] == [200] * 4
    assert dead.calls >= 1
    router.assert_idle()


@pytest.mark.usefixtures("skipped_waits")
async def test_a_request_outlives_the_restart_of_the_only_replica(start_engine, start_router):
    engine = await start_engine()
    router = await start_router(engine)
    engine.port_to_reuse = engine.port
    await engine.stop()
    pending = asyncio.create_task(router.post())
    await asyncio.sleep(2.5)
    await engine.start()
    assert (await pending).status == 200


async def test_a_stopping_engine_hands_its_request_to_another_tier(start_engine, start_router):
    async def stopping(engine, request, body):
        return web.json_response({"error": "stopping"}, status=503)

    full, int8 = await start_engine("f", script=stopping), await start_engine("i", "int8")
    router = await start_router(full, int8)
    answer = await router.post()
    assert (answer.status, answer.headers["x-tier-served"]) == (200, "int8")


@pytest.mark.usefixtures("skipped_waits")
@pytest.mark.parametrize("as_frame", [True, False], ids=["first SSE frame", "status"])
async def test_an_overloaded_engine_is_passed_over_before_the_status_is_committed(start_engine, start_router, as_frame):
    async def overloaded(engine, request, body):
        error = {"error": "Model is overloaded", "error_type": "overloaded"}
        if as_frame:
            return await engine.stream(request, [b"data: " + json.dumps(error).encode() + b"\n\n"])
        return web.json_response(error, status=429)

    full = await start_engine("f", script=overloaded)
    router = await start_router(full, await start_engine("i", "int8"))
    answer = await router.stream()
    assert (answer.status, answer.headers["x-tier-served"]) == (200, "int8")

    router.offer(full)
    answer = await router.stream()
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert json.loads(answer.body)["error_type"] == "overloaded"
    assert full.calls == 2, "an overloaded engine is not asked twice by one request"
    router.assert_idle()


async def test_at_most_two_more_engines_are_tried_after_the_first(start_engine, start_router):
    async def overloaded(engine, request, body):
        return web.json_response({"error": "full", "error_type": "overloaded"}, status=429)

    engines = [await start_engine(f"e{i}", script=overloaded) for i in range(5)]
    router = await start_router(*engines)
    assert (await router.post()).status == 429
    assert sum(engine.calls for engine in engines) == 3


async def test_a_validation_error_in_the_first_frame_becomes_the_status(start_engine, start_router):
    error = {"error": "`top_p` must be > 0.0 and < 1.0", "error_type": "validation"}

    async def invalid(engine, request, body):
        return await engine.stream(request, [b"data: " + json.dumps(error).encode() + b"\n\n"])

    engine = await start_engine(script=invalid)
    router = await start_router(engine)
    answer = await router.stream()
    assert (answer.status, json.loads(answer.body)) == (422, error)
    assert engine.calls == 1


async def test_other_statuses_of_the_engine_pass_through(start_engine, start_router):
    async def teapot(engine, request, body):
        return web.json_response({"error": "no", "error_type": "validation"}, status=422, headers={"x-engine": "1"})

    router = await start_router(await start_engine(script=teapot))
    answer = await router.post()
    assert (answer.status, answer.headers["x-engine"]) == (422, "1")


@pytest.mark.parametrize("moment", ["before the first token", "in the stream", "without a stream"])
async def test_a_client_that_leaves_frees_engine_and_place_at_once(start_engine, start_router, moment):
    engine = await start_engine(token_seconds=0.3 if moment == "in the stream" else 30, tokens=100)

    if moment == "before the first token":

        async def silent(engine, request, body):
            await asyncio.sleep(30)

        engine.script = silent
    router = await start_router(engine)
    body = {"inputs": "x", "stream": moment != "without a stream"}
    response = asyncio.create_task(router.client.post(router.base + "/", json=body))
    await eventually(lambda: engine.open_calls == 1)
    await asyncio.sleep(0.1)
    if moment == "in the stream":
        (await response).close()
    else:
        response.cancel()
    await eventually(lambda: engine.open_calls == 0)
    await eventually(lambda: router.app.relay.active == 0)
    assert engine.cancelled == 1
    assert await router.metric("adaptive_router_requests_total", tier="full", code="499") == 1
    router.assert_idle()


@pytest.mark.parametrize("path", ["/generate_stream", "/v1/chat/completions"])
async def test_a_client_that_closes_after_the_final_frame_has_been_served(start_engine, start_router, tools, path):
    async def lingers(engine, request, body):
        final = [tools.tgi_frame(1), tools.tgi_frame(2, last=True)]
        if path.startswith("/v1"):
            final = [tools.openai_frame("a"), tools.openai_frame(None, finish="stop"), b"data: [DONE]\n\n"]
        response = await engine.stream(request, final, end=False)
        await asyncio.sleep(5)
        return response

    engine = await start_engine(script=lingers)
    router = await start_router(engine)
    async with router.client.post(router.base + path, json={"inputs": "x", "stream": True}) as response:
        text = b""
        while not (b"[DONE]" in text or b'"generated_text": "aa"' in text):
            text += await response.content.readany()
        response.close()
    await eventually(lambda: router.app.relay.active == 0)
    await eventually(lambda: engine.open_calls == 0)
    assert await router.metric("adaptive_router_requests_total", tier="full", code="200") == 1
    assert await router.metric("adaptive_router_requests_total", tier="full", code="499") == 0
    router.assert_idle()


async def test_a_slow_reader_slows_its_engine_down_instead_of_filling_memory(start_engine, start_router, tools):
    sent = 0

    async def eager(engine, request, body):
        nonlocal sent
        response = await engine.stream(request, [], end=False)
        for index in range(400):
            await response.write(tools.tgi_frame(index + 1, text="x" * 50_000))
            sent += 1
        await response.write(tools.tgi_frame(401, last=True))
        return response

    router = await start_router(await start_engine(script=eager))
    async with router.client.post(router.base + "/generate_stream", json={"inputs": "x"}) as response:
        await response.content.readany()
        await asyncio.sleep(0.7)
        assert sent < 390, "20 MB would be in memory by now"
        length = sum([len(chunk) async for chunk in response.content.iter_any()])
    assert length > 399 * 50_000
    router.assert_idle()


async def test_a_client_that_stops_reading_is_given_up(start_engine, start_router, tools):
    async def eager(engine, request, body):
        return await engine.stream(request, [tools.tgi_frame(i + 1, text="x" * 200_000) for i in range(400)])

    engine = await start_engine(script=eager)
    router = await start_router(engine, idle_seconds=0.5)
    async with router.client.post(router.base + "/generate_stream", json={"inputs": "x"}) as response:
        await response.content.readany()
        await eventually(lambda: engine.open_calls == 0, 5)
        response.close()
    router.assert_idle()
    assert await router.metric("adaptive_router_requests_total", tier="full", code="499") == 1


@pytest.mark.usefixtures("skipped_waits")
async def test_an_engine_that_falls_silent_in_a_stream_is_given_up(start_engine, start_router, tools):
    async def falls_silent(engine, request, body):
        await engine.stream(request, [tools.tgi_frame(1)], end=False)
        await asyncio.sleep(30)

    engine = await start_engine(script=falls_silent)
    router = await start_router(engine, idle_seconds=0.3)
    answer = await router.stream()
    assert json.loads(sse_payloads(answer.body)[-1])["error_type"] == "incomplete_generation_stream"
    await eventually(lambda: engine.open_calls == 0)


async def test_hop_by_hop_and_internal_headers_stay_with_the_router(start_engine, start_router):
    engine = await start_engine()
    router = await start_router(engine)
    answer = await router.post(
        x_tier_served="lie", accept_encoding="gzip", x_request_id="abc-1", te="trailers", x_custom="kept"
    )
    seen = engine.headers[0]
    assert seen["x-request-id"] == answer.headers["x-request-id"] == "abc-1"
    assert seen["x-custom"] == "kept"
    assert not {"x-tier-served", "te", "accept-encoding"} & seen.keys()


async def test_openai_token_times_are_observed_without_role_and_closing_chunks(start_engine, start_router):
    engine = await start_engine(tokens=6, token_seconds=0.02)
    router = await start_router(engine)
    await router.stream("/v1/chat/completions")
    assert await router.metric("adaptive_router_tpot_seconds_count", tier="full") == 1
    assert 0.015 < await router.metric("adaptive_router_tpot_seconds_sum", tier="full") < 0.08
    assert await router.metric("adaptive_router_ttft_seconds_count", tier="full") == 1


async def test_the_query_and_the_path_reach_the_engine_as_they_came(start_engine, start_router):
    seen = []

    async def remember(engine, request, body):
        seen.append(request.raw_path)
        return web.json_response({})

    router = await start_router(await start_engine(script=remember))
    await router.post("/generate?a=%26&b=1")
    assert seen == ["/generate?a=%26&b=1"]


async def test_a_connection_error_towards_a_plain_answer_is_retried(start_engine, start_router):
    async def half_an_answer(engine, request, body):
        response = web.StreamResponse(headers={"Content-Length": "100", "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b'{"generated')
        await break_connection(request)

    bad, good = await start_engine("a", script=half_an_answer), await start_engine("b")
    router = await start_router(bad, good)
    answers = [await router.post() for _ in range(3)]
    assert [json.loads(answer.body)["served_by"] for answer in answers] == ["b"] * 3
    assert bad.calls == 1


async def test_no_prompt_reaches_the_log_when_things_go_wrong(start_engine, start_router, caplog):
    engine = await start_engine()
    router = await start_router(engine, table={"maxQueueSeconds": 0.2})
    await engine.stop()
    caplog.set_level("DEBUG", "inference_pods")
    with pytest.raises(aiohttp.ClientResponseError):
        async with router.client.post(router.base + "/", json={"inputs": "sesame"}, raise_for_status=True):
            pass
    assert caplog.records
    assert "sesame" not in caplog.text


async def _hold_back_tokens(engine, request, body, first=()):
    """An engine whose queue is long: it opens the stream (and may name the role), but no token comes."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for frame in first:
        await response.write(frame)
    await asyncio.sleep(30)
    return response


@pytest.mark.usefixtures("skipped_waits")
@pytest.mark.parametrize("path", ["/generate_stream", "/v1/chat/completions"])
async def test_requests_that_wait_for_their_first_token_send_the_next_to_the_cheaper_tier(
    start_engine, start_router, tools, path
):
    head = (tools.openai_frame("", role="assistant"),) if path.startswith("/v1/") else ()
    full = await start_engine("f", "full", script=partial(_hold_back_tokens, first=head))
    int4 = await start_engine("q", "int4")
    routes = [
        {"tier": "full", "qualityPermille": 1000, "mu": 2.0, "weight": 1.0},
        {"tier": "int4", "qualityPermille": 780, "mu": 2.0, "weight": 1e-9},
    ]  # 4 in flight, 1 of them without its first token
    router = await start_router(full, int4, table={"routes": routes})
    stuck = asyncio.create_task(router.stream(path))
    await asyncio.sleep(0.3)
    assert full.calls == 1
    answers = [await router.stream(path) for _ in range(3)]
    assert {answer.headers["x-tier-served"] for answer in answers} == {"int4"}
    assert await router.metric("adaptive_router_ttft_seconds_count", tier="full") == 0
    assert await router.metric("adaptive_router_ttft_seconds_count", tier="int4") == 3
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    await asyncio.sleep(0.3)
    router.assert_idle()
    replica = router.app.fleet.lanes[0].replicas[0]
    assert router.app.fleet.book.queued(replica, router.app.fleet.lanes[0].limits) == 0
