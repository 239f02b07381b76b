"""The HTTP face: routes, headers, refusals in the right dialect, queueing, health, metrics."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

pytestmark = pytest.mark.usefixtures("skipped_waits")


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"x_tier": "Full!"}, "x-tier"),
        ({"x_quality_min": "0.9"}, "x-quality-min"),
        ({"x_quality_min": "1001"}, "x-quality-min"),
        ({"x_quality_min": "-1"}, "x-quality-min"),
        ({"x_deadline_ms": "0"}, "x-deadline-ms"),
        ({"x_deadline_ms": "soon"}, "x-deadline-ms"),
        ({"x_request_id": "a b"}, "x-request-id"),
        ({"x_tier": "gold"}, "full, int8, int4"),
        ({"x_tier": "int4", "x_quality_min": "900"}, "x-quality-min"),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/v1/completions"])
async def test_a_bad_header_is_refused_by_name_in_the_dialect_of_the_route(
    start_engine, start_router, path, headers, named
):
    engine = await start_engine()
    router = await start_router(engine)
    answer = await router.post(path, **headers)
    error = json.loads(answer.body)["error"]
    assert answer.status == 400
    assert named in (error["message"] if path.startswith("/v1") else error)
    assert engine.calls == 0
    assert await router.metric("adaptive_router_rejected_total", code="400") == 1


async def test_a_pinned_request_is_served_by_its_tier_only(start_engine, start_router):
    router = await start_router(await start_engine("f"), await start_engine("q", "int4"))
    answer = await router.post(x_tier="int4")
    assert (answer.headers["x-tier-served"], answer.headers["x-route-reason"]) == ("int4", "Pinned")
    refused = await router.post(x_tier="int8")
    assert refused.status == 503
    assert "int8" in json.loads(refused.body)["error"]
    assert int(refused.headers["Retry-After"]) >= 1


async def test_a_closed_tier_still_serves_those_who_ask_for_it(start_engine, start_router, tools):
    routes = tools.build_table()["routes"]
    routes[0]["weight"] = 0.0
    router = await start_router(await start_engine("f"), await start_engine("q", "int4"), table={"routes": routes})
    assert {(await router.post()).headers["x-tier-served"] for _ in range(5)} == {"int4"}
    assert (await router.post(x_tier="full")).headers["x-tier-served"] == "full"
    router.offer(await start_engine("f2"))
    assert (await router.post()).headers["x-tier-served"] == "full", "nothing else is ready"


async def test_a_quality_minimum_excludes_cheaper_tiers(start_engine, start_router):
    async def busy(engine, request, body):
        await asyncio.sleep(0.2)
        return web.json_response({})

    one_slot = {"slo": {"ttftMilliseconds": 10, "tpotMilliseconds": 1, "attainmentPercent": 90}}
    router = await start_router(
        await start_engine("f", script=busy), await start_engine("q", "int4", script=busy), table=one_slot
    )
    answers = await asyncio.gather(*(router.post(x_quality_min="900") for _ in range(3)))
    assert {answer.headers["x-tier-served"] for answer in answers} == {"full"}


async def slow_answer(engine, request, body):
    await asyncio.sleep(0.25)
    return web.json_response({"by": engine.name})


ONE_AT_A_TIME = {"slo": {"ttftMilliseconds": 10, "tpotMilliseconds": 1, "attainmentPercent": 90}}


async def test_a_full_tier_overflows_to_a_cheaper_one_before_anybody_waits(start_engine, start_router, tools):
    engines = [await start_engine(tier, tier, script=slow_answer) for tier in ("full", "int8", "int4")]
    best, *others = tools.build_table()["routes"]
    routes = [best, *(route | {"weight": 1e-6} for route in others)]
    router = await start_router(*engines, table=ONE_AT_A_TIME | {"routes": routes})
    answers = await asyncio.gather(*(router.post() for _ in range(3)))
    assert sorted(answer.headers["x-tier-served"] for answer in answers) == ["full", "int4", "int8"]
    assert await router.metric("adaptive_router_shed_total", reason="Overflow") >= 1
    router.assert_idle()


async def test_a_request_waits_in_the_router_and_is_served_in_its_turn(start_engine, start_router):
    engine = await start_engine(script=slow_answer)
    router = await start_router(engine, table=ONE_AT_A_TIME)
    order: list[int] = []

    async def ask(number: int) -> None:
        assert (await router.post()).status == 200
        order.append(number)

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(ask(number)))
        await asyncio.sleep(0.03)
    assert await router.metric("adaptive_router_queue_length") == 3
    assert engine.open_calls == 1, "the backlog stays in the router"
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]
    router.assert_idle()


async def test_who_waits_too_long_gets_429_with_a_time_to_come_back(start_engine, start_router):
    router = await start_router(await start_engine(script=slow_answer), table=ONE_AT_A_TIME | {"maxQueueSeconds": 0.1})
    first, second = await asyncio.gather(router.post("/v1/completions"), router.post("/v1/completions"))
    assert sorted([first.status, second.status]) == [200, 429]
    refused = first if first.status == 429 else second
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert json.loads(refused.body)["error"]["type"] == "rate_limit_error"
    assert await router.metric("adaptive_router_rejected_total", code="429") == 1
    assert await router.metric("adaptive_router_requests_total", tier="", code="429") == 1
    router.assert_idle()


async def test_a_deadline_shortens_the_wait_and_tells_sdks_not_to_repeat(start_engine, start_router):
    router = await start_router(await start_engine(script=slow_answer), table=ONE_AT_A_TIME)
    running = asyncio.create_task(router.post())
    await asyncio.sleep(0.05)
    refused = await router.post(x_deadline_ms="50")
    assert refused.status == 429
    assert refused.headers["x-should-retry"] == "false"
    assert (await running).status == 200


async def test_a_waiting_client_that_leaves_leaves_the_queue(start_engine, start_router):
    router = await start_router(await start_engine(script=slow_answer), table=ONE_AT_A_TIME)
    running = asyncio.create_task(router.post())
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(router.post())
    await asyncio.sleep(0.05)
    assert router.app.admission.held == 1
    waiting.cancel()
    await asyncio.sleep(0.05)
    assert router.app.admission.held == 0
    assert (await running).status == 200
    assert await router.metric("adaptive_router_arrivals_total") == 2
    router.assert_idle()


async def test_requests_are_held_while_nothing_is_ready_and_served_by_the_successor(start_engine, start_router):
    router = await start_router()
    pending = asyncio.create_task(router.post())
    await asyncio.sleep(0.1)
    router.offer(await start_engine("late", "int4"))
    answer = await pending
    assert (answer.status, answer.headers["x-tier-served"]) == (200, "int4")


async def test_without_any_replica_the_wait_ends_with_503(start_engine, start_router):
    router = await start_router(table={"maxQueueSeconds": 0.1})
    answer = await router.post()
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1


async def test_without_a_table_requests_are_refused_at_once(start_engine, start_router):
    router = await start_router(await start_engine(), table={})
    answer = await router.post()
    assert (answer.status, answer.headers["x-route-reason"]) == (503, "NoTable")


async def test_an_older_table_is_ignored_and_a_new_epoch_wins(start_engine, start_router):
    router = await start_router(await start_engine(), table={"generation": 7})
    assert not router.offer_table(generation=6)
    assert not router.offer_table(generation=7)
    assert await router.metric("adaptive_router_table_generation") == 7
    assert router.offer_table(generation=1, epoch=2)
    assert await router.metric("adaptive_router_table_generation") == 1


async def test_a_draining_pod_gets_no_new_request_but_keeps_its_stream(start_engine, start_router):
    old, new = await start_engine("old", token_seconds=0.1), await start_engine("new")
    router = await start_router(old)
    running = asyncio.create_task(router.stream())
    await asyncio.sleep(0.1)
    router.offer(old, new)
    router.offer_table(generation=2, draining=["old"])
    assert [json.loads((await router.post()).body)["served_by"] for _ in range(3)] == ["new"] * 3
    assert b'"error"' not in (await running).body
    assert old.calls == 1


async def test_a_replica_that_left_the_endpoints_keeps_its_stream_and_leaks_no_count(start_engine, start_router):
    old = await start_engine("old", token_seconds=0.1)
    router = await start_router(old)
    running = asyncio.create_task(router.stream())
    await asyncio.sleep(0.1)
    router.offer()
    answer = await running
    assert answer.body.count(b"data:") == 4
    router.assert_idle()


async def test_too_large_a_body_is_refused_with_413(start_engine, start_router):
    router = await start_router(await start_engine(), max_body_bytes=1000)
    answer = await router.post("/v1/chat/completions", {"x": "y" * 2000})
    assert answer.status == 413
    assert json.loads(answer.body)["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/nope", 404), ("GET", "/v1/x", 404), ("PUT", "/generate", 405)]
)
async def test_unknown_routes_and_methods_get_json(start_engine, start_router, method, path, status):
    router = await start_router(await start_engine())
    async with router.client.request(method, router.base + path) as response:
        assert response.status == status
        assert "error" in await response.json()


@pytest.mark.parametrize(("method", "path"), [("GET", "/info"), ("GET", "/v1/models"), ("POST", "/tokenize")])
async def test_what_every_engine_answers_alike_is_passed_on_without_a_place(start_engine, start_router, method, path):
    async def echo(engine, request, body):
        return web.json_response({"path": request.path, "body": body})

    router = await start_router(await start_engine(script=echo))
    async with router.client.request(
        method, router.base + path, json={"inputs": "x"} if method == "POST" else None
    ) as r:
        assert await r.json() == {"path": path, "body": {"inputs": "x"} if method == "POST" else {}}
    assert await router.metric("adaptive_router_arrivals_total") == 0
    router.offer()
    async with router.client.request(method, router.base + path) as response:
        assert response.status == 503


async def test_health_needs_a_table_and_a_ready_engine_and_no_stop(start_engine, start_router):
    async def health(router):
        async with router.client.get(router.base + "/health") as response:
            return response.status

    router = await start_router(table={})
    assert await health(router) == 503
    router.offer_table(maxQueueSeconds=0.2)
    assert await health(router) == 503
    router.offer(await start_engine())
    assert await health(router) == 200
    router.offer()
    assert await health(router) == 200, "requests are held for the successor"
    await asyncio.sleep(0.25)
    assert await health(router) == 503
    router.offer(await start_engine("e2"))
    router.app.draining = True
    assert await health(router) == 503
    async with router.client.get(router.base + "/healthz") as response:
        assert response.status == 200


async def test_counters_exist_at_zero_as_soon_as_a_table_names_their_tier(start_engine, start_router):
    router = await start_router()
    for tier in ("full", "int8", "int4"):
        for code in ("200", "499", "502"):
            assert await router.metric("adaptive_router_requests_total", tier=tier, level="", code=code) == 0
        assert await router.metric("adaptive_router_quality_sum_total", tier=tier) == 0
        assert await router.metric("adaptive_router_ttft_seconds_count", tier=tier) == 0
        assert await router.metric("adaptive_router_ready_replicas", tier=tier) == 0
    assert await router.metric("adaptive_router_arrivals_total", model="assistant") == 0


async def test_served_quality_is_the_ratio_of_two_counters(start_engine, start_router):
    router = await start_router(await start_engine("q", "int4"))
    for _ in range(4):
        await router.post()
    total = await router.metric("adaptive_router_requests_total", tier="int4", code="200")
    assert total == 4
    assert await router.metric("adaptive_router_quality_sum_total", tier="int4") == pytest.approx(4 * 0.78)


async def test_a_tier_that_left_the_table_reports_no_share_and_no_replicas(start_engine, start_router, tools):
    router = await start_router(await start_engine("f"), await start_engine("q", "int4"))
    router.offer_table(generation=2, routes=tools.build_table()["routes"][2:])
    assert await router.metric("adaptive_router_share", tier="full") == 0
    assert await router.metric("adaptive_router_ready_replicas", tier="full") == 0
    assert await router.metric("adaptive_router_share", tier="int4") == 1


async def test_overload_sheds_to_the_cheaper_tier_within_two_seconds_and_quiet_restores_it(
    start_engine, start_router, tools
):
    routes = tools.build_table()["routes"]
    routes = [routes[0] | {"mu": 10.0}, routes[2] | {"mu": 100.0}]
    router = await start_router(await start_engine("f"), await start_engine("q", "int4"), table={"routes": routes})
    for _ in range(80):  # 40/s against 0.9·10/s
        await router.post()
        await asyncio.sleep(0.025)
    share = router.app.fleet.plan.of(router.app.fleet.lanes[0].key)
    assert 0.15 < share < 0.45
    assert await router.metric("adaptive_router_shed_total", reason="Shed") > 5
    await asyncio.sleep(4.5)
    assert router.app.fleet.plan.of(router.app.fleet.lanes[0].key) > 0.6
