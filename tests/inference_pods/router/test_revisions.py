"""A tier whose recipe is exchanged: its replicas have different levels, and each gets requests for its own."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from adaptive_operator.observe.observation import PodPhase
from inference_pods.router.endpoints import EndpointSet, Replica
from inference_pods.router.fleet import Fleet
from inference_pods.router.shares import PERIOD_SECONDS, ShareInputs, TierLoad, plan_shares
from inference_pods.router.table import RouteKey, parse_table
from tests.operator.plan.situations import make_decision
from tests.operator.plan.test_simulation import RECIPES, ROLLING, levels_of_arguments, run_pass, settle, spec_with
from tests.operator.plan.toy_cluster import ToyCluster

PLAIN = {"tier": "main", "level": "", "qualityPermille": 990, "mu": 10.0, "load": 1.0, "weight": 0.5}
INT8 = {"tier": "main", "level": "int8", "qualityPermille": 998, "mu": 10.0, "load": 1.0, "weight": 0.3}
INT4 = {"tier": "main", "level": "int4", "qualityPermille": 780, "mu": 20.0, "load": 0.5, "weight": 0.2}
OLD = {"statefulSet": "m-old", "tier": "main", "levels": [""]}
NEW = {"statefulSet": "m-new", "tier": "main", "levels": ["int8", "int4"]}
UNDER_EDIT = {"routes": [INT8, PLAIN, INT4], "revisions": [OLD, NEW]}
AHEAD = {"routes": [INT8, INT4]}  # the table of the new recipe, while replicas of the old one serve


def serves(*levels, also=""):
    """An engine with these levels, that refuses others as ours does; `also`: text in front of its refusals."""

    async def script(engine, request, body):
        asked = request.headers.get("x-level", "")
        if asked and asked not in levels:
            message = f"{also}header x-level: level {asked!r} is not served here; use {' or '.join(levels) or 'none'}"
            error = {"message": message} if request.path.startswith("/v1/") else message
            return web.json_response({"error": error, "error_type": "validation"}, status=400)
        return web.json_response({"generated_text": "a"}, headers={"x-level-served": asked})

    return script


def levels_asked(engine):
    """What the router asked this engine for; each request once."""
    return [headers.get("x-level", "") for headers in engine.headers]


@pytest.fixture
def build_fleet(tools):
    def build(table, *replicas):
        fleet = Fleet(lambda: 100.0)
        fleet.offer_table(parse_table(json.dumps(tools.build_table(**table)), "assistant"))
        fleet.offer_endpoints(EndpointSet({"main": replicas}))
        return fleet

    return build


def replica(name, stateful_set=""):
    return Replica(name, "main", f"http://{name}", stateful_set)


def lanes_of(fleet):
    return {lane.key.level: [replica.uid for replica in lane.replicas] for lane in fleet.lanes}


@pytest.mark.parametrize(
    ("table", "replicas", "expected"),
    [
        pytest.param(
            UNDER_EDIT,
            [replica("a", "m-old"), replica("b", "m-new")],
            {"int8": ["b"], "": ["a"], "int4": ["b"]},
            id="each replica has the levels of its revision",
        ),
        pytest.param(
            UNDER_EDIT,
            [replica("a", "m-old"), replica("b", "m-newer")],
            {"int8": [], "": ["a"], "int4": []},
            id="a revision that the table does not know yet waits until it does",
        ),
        pytest.param(
            UNDER_EDIT,
            [replica("b", "m-newer")],
            {"int8": ["b"], "": ["b"], "int4": ["b"]},
            id="unless nothing else is there",
        ),
        pytest.param(
            AHEAD,
            [replica("a", "m-old"), replica("b")],
            {"int8": ["a", "b"], "int4": ["a", "b"]},
            id="a table of an older operator says nothing of revisions",
        ),
        pytest.param(
            {"routes": [INT8, INT4], "revisions": [OLD, NEW]},
            [replica("a", "m-old"), replica("b", "m-new")],
            {"int8": ["b"], "int4": ["b"], "": ["a"]},
            id="a replica without any of the routes gets requests that name no level",
        ),
    ],
)
def test_lanes_of_a_tier_under_edit(build_fleet, table, replicas, expected):
    assert lanes_of(build_fleet(table, *replicas)) == expected


def test_what_no_route_describes_promises_no_quality_and_is_open_like_its_tier(build_fleet):
    fleet = build_fleet({"routes": [INT8, INT4], "revisions": [OLD]}, replica("a", "m-old"))
    (lane,) = [lane for lane in fleet.lanes if lane.replicas]
    assert (lane.key, lane.route.quality_permille, lane.route.weight) == (RouteKey("main", ""), None, 0.5)


def test_replicas_of_two_revisions_add_up(build_fleet):
    fleet = build_fleet(UNDER_EDIT, replica("a", "m-old"), replica("b", "m-new"))
    assert fleet.capacity() == pytest.approx(10 + 20)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        pytest.param(
            12.0, {"int8": 9 / 12, "": 3 / 12, "int4": 0.0}, id="a second revision takes what the first cannot"
        ),
        pytest.param(18.0, {"int8": 0.5, "": 0.5, "int4": 0.0}, id="both are full at their best"),
        pytest.param(22.5, {"int8": 4.5 / 22.5, "": 9 / 22.5, "int4": 9 / 22.5}, id="only then a lower level is used"),
    ],
)
def test_shares_over_two_revisions(rate, expected):
    routes = [
        TierLoad(RouteKey("main", "int8"), 998, 10.0, 0.5, 1, shared_with="int8"),
        TierLoad(RouteKey("main", ""), 990, 10.0, 0.3, 1),
        TierLoad(RouteKey("main", "int4"), 780, 20.0, 0.2, 1, load=0.5, shared_with="int8"),
    ]
    plan = None
    for period in range(200):
        plan = plan_shares(ShareInputs(routes, rate), plan, period * PERIOD_SECONDS)
    assert {key.level: share for key, share in plan.shares.items()} == pytest.approx(expected, abs=1e-3)


def test_a_refusal_is_remembered_as_long_as_the_replica_is_there(build_fleet):
    old, new = replica("a"), replica("b")
    fleet = build_fleet(AHEAD, old, new)
    fleet.note_refused_level(old, "int8")
    assert lanes_of(fleet) == {"int8": ["b"], "int4": ["a", "b"]}
    fleet.offer_endpoints(EndpointSet({"main": (new,)}))
    fleet.offer_endpoints(EndpointSet({"main": (old, new)}))
    assert lanes_of(fleet) == {"int8": ["a", "b"], "int4": ["a", "b"]}


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/chat/completions"])
async def test_each_replica_is_asked_for_its_own_levels_only(start_engine, start_router, path):
    old = await start_engine("old", "main", script=serves(), stateful_set="m-old")
    new = await start_engine("new", "main", script=serves("int8", "int4"), stateful_set="m-new")
    router = await start_router(old, new, table=UNDER_EDIT)
    assert {(await router.post(path)).status for _ in range(20)} == {200}
    assert set(levels_asked(old)) == {""}
    assert set(levels_asked(new)) == {"int8", "int4"}
    for level, quality in (("", "990"), ("int8", "998"), ("int4", "780")):
        count = await router.metric("adaptive_router_requests_total", tier="main", level=level, code="200")
        assert count == levels_asked(old if level == "" else new).count(level)
        total = await router.metric("adaptive_router_quality_sum_total", tier="main", level=level)
        assert total == pytest.approx(count * int(quality) / 1000)
    assert await router.metric("adaptive_router_ready_replicas", tier="main") == 2
    router.assert_idle()


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/chat/completions"])
async def test_a_level_that_the_router_chose_and_a_replica_refuses_is_served_by_another(
    start_engine, start_router, path
):
    old = await start_engine("old", "main", script=serves())
    new = await start_engine("new", "main", script=serves("int8", "int4"))
    router = await start_router(old, new, table=AHEAD)
    answers = [await router.post(path) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert sorted(filter(None, levels_asked(old))) in ([], ["int4"], ["int8"], ["int4", "int8"]), "asked once for each"
    assert all(answer.headers.get("x-level-served") or "x-quality-served" not in answer.headers for answer in answers)
    router.assert_idle()


async def test_when_no_replica_has_the_tables_levels_requests_are_served_without_and_promise_nothing(
    start_engine, start_router
):
    old = await start_engine("old", "main", script=serves())
    router = await start_router(old, table=AHEAD)
    for _ in range(4):
        answer = await router.post(x_tier="main")
        assert (answer.status, answer.headers["x-tier-served"]) == (200, "main")
        assert not {"x-level-served", "x-quality-served"} & set(map(str.lower, answer.headers))
    assert levels_asked(old) == ["int8", "int4", "", "", "", ""]
    assert await router.metric("adaptive_router_requests_total", tier="main", level="", code="200") == 4
    assert await router.metric("adaptive_router_quality_sum_total", tier="main", level="int8") == 0
    router.assert_idle()


async def test_a_quality_that_was_asked_for_is_not_undercut_by_serving_without_a_level(start_engine, start_router):
    old = await start_engine("old", "main", script=serves())
    router = await start_router(old, table={**AHEAD, "maxQueueSeconds": 0.2})
    assert (await router.post(x_quality_min="700")).status == 503
    assert "" not in levels_asked(old)
    router.assert_idle()


async def test_a_level_that_the_client_asked_for_and_no_replica_has_is_refused_with_those_there_are(
    start_engine, start_router
):
    only = await start_engine("new", "main", script=serves("int8"), stateful_set="m-new")
    table = {"routes": [INT8, INT4], "revisions": [{**NEW, "levels": ["int8"]}]}
    router = await start_router(only, table=table)
    refused = await router.post(x_level="int4")
    assert (refused.status, refused.headers["x-route-reason"]) == (400, "UnknownLevel")
    assert "x-level: no ready replica has level 'int4'; the levels are: int8 of main" in refused.text
    assert only.calls == 0


async def test_a_level_that_the_client_asked_for_is_refused_when_every_replica_refuses_it(start_engine, start_router):
    only = await start_engine("new", "main", script=serves("int8"))
    router = await start_router(only, table=AHEAD)
    refused = await router.post(x_level="int4")
    assert (refused.status, levels_asked(only)) == (400, ["int4"])
    assert "int8 of main" in refused.text
    router.assert_idle()


async def test_a_level_of_a_tier_without_ready_replicas_may_come_later(start_engine, start_router):
    other = await start_engine("full", "full")
    full = {"tier": "full", "weight": 1.0}
    router = await start_router(other, table={"routes": [full, INT8, INT4], "revisions": [NEW]})
    assert (await router.post(x_level="int4")).status == 503


async def test_another_refusal_is_the_clients_and_costs_the_replica_nothing(start_engine, start_router):
    engine = await start_engine("new", "main", script=serves(also="inputs: "))
    router = await start_router(engine, table=AHEAD)
    answer = await router.post()
    assert (answer.status, engine.calls) == (400, 1)
    assert [len(lane.replicas) for lane in router.app.fleet.lanes] == [1, 1]


class Exchange:
    """The operator's plan on a toy cluster, and a router with an engine for every replica that is ready there."""

    def __init__(self, spec, start_engine, router):
        self.cluster = ToyCluster(spec, dict(ROLLING))
        self.decision = make_decision({"full": 0, "int8": 0, "int4": 2}, {"int4": 1.0}, granted=3)  # one by one
        self._start_engine = start_engine
        self.router = router
        self.engines = {}
        self.levels = {}  # that each engine has; {""} of a plain one
        settle(self.cluster, self.decision)

    async def follow_endpoints(self):
        """As EndpointSlices do: every ready replica that does not end."""
        sets = {item.name: item.manifest["spec"]["template"]["spec"] for item in self.cluster.observe().stateful_sets}
        ready = [pod for pod in self.cluster.observe().pods if pod.phase is PodPhase.READY]
        for pod in ready:
            if pod.uid not in self.engines:
                levels = levels_of_arguments(sets[pod.stateful_set]["containers"][0]["args"])
                script = serves(*levels - {""})
                engine = await self._start_engine(pod.uid, pod.tier, script=script, stateful_set=pod.stateful_set)
                self.engines[pod.uid], self.levels[pod.uid] = engine, levels
        self.router.offer(*(self.engines[pod.uid] for pod in ready))

    def follow_table(self):
        self.router.app.fleet.offer_table(parse_table(self.cluster.observe().routing_table, "assistant"))

    async def ask(self, requests):
        answers = await asyncio.gather(*(self.router.post() for _ in range(requests)))
        return [answer.status for answer in answers]


@pytest.mark.parametrize("table_is_late", [False, True], ids=["in-time", "late-table"])
@pytest.mark.parametrize(("before", "after"), RECIPES.values(), ids=RECIPES)
async def test_a_recipe_is_exchanged_under_load_without_a_failed_request(
    start_engine, start_router, before, after, table_is_late
):
    run = Exchange(spec_with(before), start_engine, await start_router(table={}))
    await run.follow_endpoints()
    run.follow_table()
    assert set(await run.ask(10)) == {200}
    first = set(run.engines)
    run.cluster.spec = spec_with(after)
    for _ in range(60):
        plan = run_pass(run.cluster, run.decision)
        if not table_is_late:
            run.follow_table()
        await run.follow_endpoints()
        assert set(await run.ask(10)) == {200}
        run.follow_table()
        if not plan.steps and run.cluster.is_at_rest():
            break
        run.cluster.run_controllers()
    assert first.isdisjoint(replica.uid for replica in run.router.app.fleet.endpoints.of_tier("int4"))
    assert all(set(levels_asked(engine)) <= run.levels[uid] for uid, engine in run.engines.items())
    run.router.assert_idle()
