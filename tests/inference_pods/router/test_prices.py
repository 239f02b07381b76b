"""Which of unlike requests go where: leanings, the estimate of a request's work, and places given by both."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.endpoints import EndpointSet, Replica
from inference_pods.router.fleet import Fleet
from inference_pods.router.places import Demand, Places
from inference_pods.router.prices import PULL_REQUESTS, UsualWork, estimate_work, leanings
from inference_pods.router.shares import SharePlan
from inference_pods.router.table import ReferenceRequest, RouteKey, parse_table

FULL, INT8, INT4 = RouteKey("full"), RouteKey("int8"), RouteKey("int4")
REFERENCE = ReferenceRequest(prompt_tokens=100, output_tokens=50)  # 200 prompt tokens' worth of work


@pytest.mark.parametrize(
    ("prices", "size", "expected"),
    [
        pytest.param((0.2, 0.0), 0.5, [4.0, 0.0], id="a small request leans towards the dearer route"),
        pytest.param((0.2, 0.0), 1.5, [-4.0, 0.0], id="a large one away from it"),
        pytest.param((0.2, 0.0), 90.0, [-8.0, 0.0], id="by no more than for twice the usual work"),
        pytest.param((0.2, 0.0), 1.0, [0.0, 0.0], id="the usual one leans nowhere"),
        pytest.param((0.4, 0.1, 0.0), 0.5, [4.0, 1.0, 0.0], id="prices count relative to each other"),
        pytest.param((11.0, 10.8), 0.5, [4.0, 0.0], id="what all have in common moves nobody"),
        pytest.param((0.0, 0.0), 0.5, [], id="nothing is scarce"),
        pytest.param((0.2,), 0.5, [], id="there is one route only"),
    ],
)
def test_leanings(prices, size, expected):
    assert leanings(prices, size) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("body", "output"),
    [
        pytest.param({"inputs": "a" * 400}, 50, id="the reference's answer where no limit is given"),
        pytest.param({"parameters": {"max_new_tokens": 1}}, 1, id="TGI's limit"),
        pytest.param({"max_tokens": 10}, 10, id="OpenAI's limit"),
        pytest.param({"max_completion_tokens": 10}, 10, id="OpenAI's newer limit"),
        pytest.param({"max_tokens": 4000}, 50, id="a high limit says nothing"),
        pytest.param({"inputs": '"max_tokens": 1'}, 50, id="the prompt's own words are no limit"),
    ],
)
def test_work_is_told_from_the_body(body, output):
    text = json.dumps(body).encode()
    assert estimate_work(text, REFERENCE) == pytest.approx((len(text) / 4 + 2 * output) / 200)


def test_without_a_reference_all_requests_are_alike():
    assert estimate_work(b"x" * 100_000, None) == 1.0


def test_the_usual_work_follows_recent_requests():
    usual = UsualWork()
    assert usual.size_of(7.0) == 1.0
    for _ in range(3):
        usual.record(2.0)
    assert (usual.size_of(2.0), usual.size_of(1.0)) == (1.0, 0.5)
    for _ in range(500):
        usual.record(4.0)
    assert usual.size_of(2.0) == pytest.approx(0.5, abs=1e-3)


def test_one_huge_request_takes_a_few_turns_and_leaves_the_mean_about_where_it_was():
    usual = UsualWork()
    for _ in range(50):
        usual.record(1.0)
    assert usual.size_of(1024.0) == 4.0
    usual.record(1024.0)
    assert usual.size_of(1.0) == pytest.approx(1.0, rel=0.1)


def build(tools, prices, shares, qualities=(1000, 950, 780), floor=0):
    """Places with room for everybody on tiers full, int8, int4, whose shares do not move."""
    keys = (FULL, INT8, INT4)[: len(prices)]
    fleet = Fleet(lambda: 0.0)
    routes = [
        {"tier": key.tier, "qualityPermille": quality, "mu": 1000.0, "weight": 1.0, "price": price}
        for key, quality, price in zip(keys, qualities, prices, strict=False)
    ]
    table = tools.build_table(routes=routes, floorPermille=floor)
    assert fleet.offer_table(parse_table(json.dumps(table), "assistant"))
    fleet.offer_endpoints(EndpointSet({key.tier: (Replica(f"{key.tier}-0", key.tier, ""),) for key in keys}))
    fleet.plan = SharePlan(dict(zip(keys, shares, strict=True)))
    return SimpleNamespace(fleet=fleet, places=Places(fleet, lambda: 0.0), tools=tools, routes=routes)


def serve(world, sizes, **demand):
    """Keys that requests of these sizes go to, one after the other."""
    served = []
    for size in sizes:
        placement = world.places.take(Demand(work=size, **demand))
        assert placement is not None
        served.append(placement)
        world.places.give_back(placement)
    return [placement.route.key for placement in served]


def sizes(seed, count=600):
    rng = random.Random(seed)
    return [rng.lognormvariate(-0.3, 0.8) for _ in range(count)]


def work_at(keys, found, key):
    return sum(size for size, where in zip(found, keys, strict=True) if where == key)


def test_large_requests_go_to_the_tier_where_they_cost_least_when_full_is_scarce(tools):
    found = sizes(1)
    keys = serve(build(tools, (0.22, 0.0), (0.5, 0.5)), found)
    settled = list(zip(found, keys, strict=True))[100:]
    small = [key for size, key in settled if size < 0.6]
    large = [key for size, key in settled if size > 2.2]
    assert small.count(FULL) > 0.95 * len(small)
    assert large.count(INT8) > 0.95 * len(large)
    assert keys.count(FULL) > 0.65 * len(keys), "the same work of full answers more requests"


def test_the_same_prices_on_all_tiers_change_nothing(tools):
    for price in (0.0, 0.3):
        assert serve(build(tools, (price, price), (0.5, 0.5)), sizes(2)) == [FULL, INT8] * 300


def test_equal_requests_are_divided_by_the_shares_alone(tools):
    plain, priced = (serve(build(tools, prices, (0.6, 0.4)), [3.0] * 200) for prices in ((0.0, 0.0), (0.5, 0.0)))
    assert plain == priced


def test_idle_tiers_get_nothing_by_a_price_that_is_out_of_date(tools):
    """The fast loop has everything on the best tier again, while the table still has the prices of a minute ago."""
    assert set(serve(build(tools, (0.22, 0.05, 0.0), (1.0, 0.0, 0.0)), sizes(3))) == {FULL}


def test_what_leanings_owed_is_forgotten_when_nothing_is_scarce_any_more(tools):
    world = build(tools, (0.22, 0.0), (0.5, 0.5))
    serve(world, [0.2] * 5 + [1.0] * 5 + [0.1] * 8)
    calm = [{**route, "price": 0.0} for route in world.routes]
    table = tools.build_table(routes=calm, floorPermille=0, generation=2)
    assert world.fleet.offer_table(parse_table(json.dumps(table), "assistant"))
    world.fleet.plan = SharePlan({FULL: 1.0, INT8: 0.0})
    assert set(serve(world, sizes(4, 50))) == {FULL}


def test_a_pinned_request_goes_where_it_is_pinned_to(tools):
    assert set(serve(build(tools, (0.22, 0.0), (1.0, 0.0)), sizes(5, 20), tier="int8")) == {INT8}


def test_a_quality_that_was_asked_for_comes_before_prices(tools):
    keys = serve(build(tools, (0.22, 0.05, 0.0), (0.2, 0.2, 0.6)), sizes(6), quality_min=900)
    assert INT4 not in keys


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=3, unique=True), st.integers(0, 1000), st.integers(0, 10))
def test_every_tier_gets_its_share_of_the_work_whatever_the_prices(tools, prices, cut, seed):
    shares = [cut / 1000, 1 - cut / 1000, 0.0][: len(prices)]
    found = sizes(seed, 300)
    world = build(tools, prices, shares)
    keys = serve(world, found)
    slack = 4 * PULL_REQUESTS + 2 * max(found)
    for key, share in zip((FULL, INT8, INT4), shares, strict=False):
        assert abs(work_at(keys, found, key) - share * sum(found)) <= slack


@pytest.mark.slow
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 10))
def test_the_part_that_full_answers_never_rises_with_the_load(tools, one, other, seed):
    """More load means a smaller share of full; the number of its answers follows, up to those owed by leanings."""
    light, heavy = (max(one, other) / 100, min(one, other) / 100)
    found = sizes(seed, 300)
    many, few = (serve(build(tools, (0.22, 0.0), (s, 1 - s)), found).count(FULL) for s in (light, heavy))
    assert few <= many + PULL_REQUESTS / 2


@given(
    st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3),
    st.integers(0, 1000),
    st.lists(st.floats(0.01, 20.0), min_size=1, max_size=120),
    st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(any),
)
def test_prices_never_push_the_mean_quality_below_the_floor(tools, prices, floor, found, weights):
    qualities = (1000, 950, 780)
    world = build(tools, prices, [w / sum(weights) for w in weights], qualities, floor)
    total, count = 0, 0
    for size in found:
        placement = world.places.take(Demand(work=size))
        if placement is not None:
            total, count = total + placement.route.quality_permille, count + 1
            world.places.give_back(placement)
        assert total >= floor * count
