"""Levels of a nested tier: the steps that operator and router agree on, shares over them, and requests by level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.levels import LevelPoint, frontier
from inference_pods.router.shares import PERIOD_SECONDS, ShareInputs, TierLoad, plan_shares
from inference_pods.router.table import RouteKey

CONTRACT = json.loads((Path(__file__).parents[2] / "fixtures" / "contract.json").read_text())
FULL, INT8, INT4 = RouteKey("full"), RouteKey("nested", "int8"), RouteKey("nested", "int4")
ROUTES = [
    {"tier": "nested", "level": "int8", "qualityPermille": 998, "mu": 10.0, "load": 1.0, "weight": 0.9},
    {"tier": "nested", "level": "int4", "qualityPermille": 780, "mu": 20.0, "load": 0.5, "weight": 0.1},
]
# 0.9 of 10/s to 20/s, from the same replica
LEVELS = (TierLoad(INT8, 998, 10.0, 0.9, 1), TierLoad(INT4, 780, 20.0, 0.1, 1, load=0.5))


@pytest.mark.parametrize("case", CONTRACT["frontier"], ids=lambda case: case["name"])
def test_steps_are_those_that_the_operator_plans_with(case):
    points = [LevelPoint(i, quality, mu) for i, (_, quality, mu) in enumerate(case["levels"])]
    names = [name for name, _, _ in case["levels"]]
    assert [(names[s.index], s.rate, s.margin) for s in frontier(points)] == [
        (name, pytest.approx(rate), pytest.approx(quality)) for name, rate, quality in case["steps"]
    ]


def settle(inputs):
    plan, now = None, 0.0
    for _ in range(60):
        now += PERIOD_SECONDS
        plan = plan_shares(inputs, plan, now)
    return plan


@pytest.mark.parametrize(
    ("rate", "top"),
    [
        pytest.param(8.0, 1.0, id="the top level carries it"),
        pytest.param(13.5, 1 / 3, id="half of the time for each level: 4.5 + 9"),
        pytest.param(18.0, 0.0, id="the lower level alone carries it"),
        pytest.param(40.0, 0.0, id="overloaded: the most that can be served"),
    ],
)
def test_levels_share_one_replica(rate, top):
    shares = settle(ShareInputs(LEVELS, rate))
    assert shares.of(INT8) == pytest.approx(top, abs=1e-3)
    assert shares.of(INT8) + shares.of(INT4) == pytest.approx(1)


def test_load_is_shed_to_the_lower_level_of_the_same_replica_within_one_period():
    calm = settle(ShareInputs(LEVELS, 5.0))
    busy = plan_shares(ShareInputs(LEVELS, 17.0), calm, calm.at + PERIOD_SECONDS)
    assert calm.of(INT8) == pytest.approx(1, abs=1e-3)
    assert busy.of(INT8) < 0.1


def test_another_tier_with_room_is_used_before_quality_is_given_up():
    plain = TierLoad(RouteKey("int4"), 790, 10.0, 1.0, 1)
    assert settle(ShareInputs((LEVELS[0], plain, LEVELS[1]), 15.0)).of(INT4) == pytest.approx(0, abs=1e-3)


levels = st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.floats(0.2, 50), st.floats(0.1, 1.0))


@given(levels, st.floats(0, 300), st.floats(0, 100), st.integers(0, 1000), st.integers(1, 4))
def test_shares_over_levels_fall_with_the_load_fit_the_replicas_and_never_pass_the_floor(found, rate, more, floor, n):
    one, other, mu, load = found
    best, worst = max(one, other), min(one, other)
    routes = (TierLoad(INT8, best, mu, 1.0, n), TierLoad(INT4, worst, mu / load, 1.0, n, load=load))
    light = settle(ShareInputs(routes, rate, floor_permille=floor))
    heavy = settle(ShareInputs(routes, rate + more, floor_permille=floor))
    assert heavy.of(INT8) <= light.of(INT8) + 1e-6
    for plan, demand in ((light, rate), (heavy, rate + more)):
        total = plan.of(INT8) + plan.of(INT4)
        assert total == pytest.approx(1) or total == 0
        assert plan.of(INT8) * best + plan.of(INT4) * worst >= floor * total - 1e-4
        if demand <= 0.9 * mu * n and best >= max(floor, worst + 1):  # of equal ones the faster serves
            assert plan.of(INT8) == pytest.approx(1, abs=1e-3)


async def test_the_router_tells_the_engine_its_level_and_the_client_too(start_engine, start_router):
    engine = await start_engine(tier="nested")
    router = await start_router(engine, table={"routes": ROUTES, "floorPermille": 0})
    answer = await router.post()
    assert (answer.status, answer.headers["x-tier-served"], answer.headers["x-level-served"]) == (200, "nested", "int8")
    assert engine.headers[-1]["x-level"] == "int8"
    assert await router.metric("adaptive_router_requests_total", tier="nested", level="int8", code="200") == 1
    router.assert_idle()


async def test_a_client_may_ask_for_a_level_and_a_wrong_one_names_those_there_are(start_engine, start_router):
    engine = await start_engine(tier="nested")
    router = await start_router(engine, table={"routes": ROUTES, "floorPermille": 0})
    for pins in ({"x_tier": "nested", "x_level": "int4"}, {"x_level": "int4"}):
        answer = await router.post(**pins)
        assert (answer.headers["x-level-served"], answer.headers["x-route-reason"]) == ("int4", "Pinned")
        assert engine.headers[-1]["x-level"] == "int4"
    refused = await router.post(x_tier="nested", x_level="int2")
    assert refused.status == 400
    assert "int8 of nested, int4 of nested" in refused.text
    assert len(engine.headers) == 2


async def test_a_level_of_a_plain_tier_is_refused_and_never_reaches_its_engine(start_engine, start_router):
    engine = await start_engine(tier="full")
    router = await start_router(engine)
    assert (await router.post(x_level="int4")).status == 400
    answer = await router.post()
    assert "x-level-served" not in answer.headers
    assert "x-level" not in engine.headers[-1]
