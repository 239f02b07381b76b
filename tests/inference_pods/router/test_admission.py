"""Places, waits and refusals, without HTTP."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.admission import Admission, RefusalCause, Refused
from inference_pods.router.endpoints import EndpointSet, Replica
from inference_pods.router.fleet import Fleet
from inference_pods.router.places import Demand, RouteReason
from inference_pods.router.table import parse_table

# mu 1/s and W = 1 + 0 s: one request per replica
ONE_EACH = {"ttftMilliseconds": 990, "tpotMilliseconds": 1, "attainmentPercent": 90}


def build_world(tools, tiers, floor=0, **by_tier):
    """An admission over `tiers` (name -> quality) with as many one-request replicas as `by_tier` says."""
    clock = asyncio.get_running_loop().time
    fleet = Fleet(clock)
    admission = Admission(fleet, clock)
    routes = [
        {"tier": name, "qualityPermille": quality, "mu": 1.0, "weight": 1.0 if i == 0 else 1e-9}
        for i, (name, quality) in enumerate(tiers.items())
    ]
    table = tools.build_table(routes=routes, slo=ONE_EACH, floorPermille=floor)
    fleet.offer_table(parse_table(json.dumps(table), "assistant"))

    def offer(starting=(), **counts):
        ready = {t: tuple(Replica(f"{t}-{i}", t, "") for i in range(n)) for t, n in counts.items()}
        fleet.offer_endpoints(EndpointSet(ready, starting=frozenset(starting)))

    offer(**by_tier)
    return SimpleNamespace(fleet=fleet, admission=admission, clock=clock, offer=offer)


async def acquire(world, seconds=0.02, **demand):
    return await world.admission.acquire(Demand(**demand), world.clock() + seconds)


TIERS = {"full": 1000, "int8": 990, "int4": 780}


async def test_cheaper_tiers_are_used_before_anybody_waits_then_the_wait_ends_with_429(tools):
    world = build_world(tools, TIERS, full=1, int8=1, int4=1)
    placements = [await acquire(world) for _ in range(3)]
    assert [p.route.key.tier for p in placements] == ["full", "int8", "int4"]
    assert [p.reason for p in placements] == [RouteReason.PREFERRED, RouteReason.OVERFLOW, RouteReason.OVERFLOW]
    with pytest.raises(Refused) as refused:
        await acquire(world)
    assert (refused.value.status, refused.value.cause) == (429, RefusalCause.QUEUE_TIMEOUT)
    assert 1 <= refused.value.retry_after_seconds <= 60
    assert world.admission.held == 0


async def test_a_better_tier_with_room_is_used_when_the_cheaper_one_whose_turn_it_was_is_full(tools):
    world = build_world(tools, {"full": 1000, "int4": 780}, full=2, int4=1)
    world.fleet.plan = type(world.fleet.plan)({lane.key: float(lane.key.tier == "int4") for lane in world.fleet.lanes})
    first, second = await acquire(world), await acquire(world)
    assert (first.route.key.tier, first.reason) == ("int4", RouteReason.SHED)
    assert (second.route.key.tier, second.reason) == ("full", RouteReason.UPGRADED)


async def test_waiters_are_served_in_order_and_a_pinned_one_blocks_nobody(tools):
    world = build_world(tools, {"full": 1000, "int4": 780}, full=1, int4=1)
    full, int4 = await acquire(world), await acquire(world)
    order = []

    async def wait(name, **demand):
        placement = await acquire(world, 2, **demand)
        order.append(name)
        return placement

    tasks = [
        asyncio.create_task(wait("pinned", tier="full")),
        asyncio.create_task(wait("first")),
        asyncio.create_task(wait("second")),
    ]
    await asyncio.sleep(0.01)
    assert (world.admission.held, world.admission.held_free) == (3, 2)
    world.admission.release(int4)
    await asyncio.sleep(0.01)
    assert order == ["first"]
    world.admission.release(full)
    await asyncio.sleep(0.01)
    assert order == ["first", "pinned"]
    for task in tasks[:2]:
        world.admission.release(await task)
        await asyncio.sleep(0)
    world.admission.release(await tasks[2])
    assert sum(world.admission.in_flight.values()) == 0


async def test_a_newcomer_does_not_overtake_its_equals(tools):
    world = build_world(tools, {"full": 1000}, full=1)
    running = await acquire(world)
    waiting = asyncio.create_task(acquire(world, 2))
    await asyncio.sleep(0.01)
    world.admission.release(running)
    with pytest.raises(Refused):
        await acquire(world)
    world.admission.release(await waiting)


async def test_a_place_given_to_a_waiter_that_leaves_in_the_same_moment_is_given_back(tools):
    world = build_world(tools, {"full": 1000}, full=1)
    running = await acquire(world)
    waiting = asyncio.create_task(acquire(world, 2))
    await asyncio.sleep(0.01)
    world.admission.release(running)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert sum(world.admission.in_flight.values()) == 0
    world.admission.release(await acquire(world))


async def test_a_new_replica_serves_those_who_wait(tools):
    world = build_world(tools, {"full": 1000})
    waiting = asyncio.create_task(acquire(world, 2))
    await asyncio.sleep(0.01)
    world.offer(full=1)
    assert (await waiting).replica.uid == "full-0"


async def test_overflow_stops_where_the_floor_would_be_broken_and_waits_instead(tools):
    world = build_world(tools, {"full": 1000, "int4": 700}, floor=750, full=1, int4=9)
    placements = [await acquire(world) for _ in range(6)]
    assert [p.route.key.tier for p in placements] == ["full", *["int4"] * 5]
    with pytest.raises(Refused) as refused:
        await acquire(world)
    assert refused.value.status == 429
    pinned = await acquire(world, tier="int4")
    assert pinned.reason is RouteReason.PINNED


async def test_only_tiers_below_the_floor_ready_is_said_so(tools):
    world = build_world(tools, {"full": 1000, "int4": 700}, floor=750, int4=1)
    with pytest.raises(Refused) as refused:
        await acquire(world)
    assert refused.value.cause is RefusalCause.FLOOR_REACHED


@pytest.mark.parametrize(
    ("demand", "status", "cause"),
    [
        ({"tier": "gold"}, 400, RefusalCause.UNKNOWN_TIER),
        ({"tier": "int8"}, 503, RefusalCause.TIER_NOT_READY),
        ({"tier": "int4", "quality_min": 900}, 400, RefusalCause.QUALITY_UNKNOWN),
        ({"quality_min": 995}, 503, RefusalCause.NOTHING_READY),
    ],
)
async def test_what_cannot_be_served_is_refused_with_its_cause(tools, demand, status, cause):
    world = build_world(tools, TIERS, int4=1)
    with pytest.raises(Refused) as refused:
        await acquire(world, **demand)
    assert (refused.value.status, refused.value.cause) == (status, cause)


ASKED = {
    "a tier": ({"tier": "full"}, RefusalCause.TIER_NOT_READY, "x-tier: tier 'full' has no ready replica"),
    "a quality": ({"quality_min": 995}, RefusalCause.NOTHING_READY, "x-quality-min: a quality of 995 has no ready"),
    "both": ({"tier": "full", "quality_min": 900}, RefusalCause.TIER_NOT_READY, "x-tier: tier 'full' has no ready"),
}


@pytest.mark.parametrize("name", ASKED)
async def test_what_no_replica_serves_nor_starts_to_is_refused_at_once_whatever_header_asks(tools, name):
    demand, cause, words = ASKED[name]
    world = build_world(tools, TIERS, int4=1)
    world.offer(int4=1, starting=["int8"])
    with pytest.raises(Refused) as refused:
        await asyncio.wait_for(acquire(world, 60, **demand), 1)
    assert (refused.value.status, refused.value.cause) == (503, cause)
    assert refused.value.message.startswith(words)
    assert refused.value.message.endswith(", and none is starting: try later, or leave the header out")


@pytest.mark.parametrize("name", ASKED)
async def test_what_starts_is_waited_for_whatever_header_asks(tools, name):
    demand, cause, words = ASKED[name]
    world = build_world(tools, TIERS, int4=1)
    world.offer(int4=1, starting=["full"])
    with pytest.raises(Refused, match="none became ready in time") as refused:
        await acquire(world, **demand)
    assert (refused.value.status, refused.value.cause) == (503, cause)
    assert refused.value.message.startswith(words)
    waiting = asyncio.create_task(acquire(world, 2, **demand))
    await asyncio.sleep(0.01)
    world.offer(int4=1, full=1)
    assert (await waiting).replica.uid == "full-0"


@pytest.mark.parametrize("name", ASKED)
async def test_the_successor_of_a_replica_that_went_a_moment_ago_is_waited_for(tools, name):
    world = build_world(tools, TIERS, full=1, int4=1)
    world.offer(int4=1)
    waiting = asyncio.create_task(acquire(world, 2, **ASKED[name][0]))
    await asyncio.sleep(0.01)
    world.offer(int4=1, full=1)
    assert (await waiting).route.key.tier == "full"


async def test_a_failed_replica_is_avoided_and_another_tier_taken(tools):
    world = build_world(tools, TIERS, full=1, int4=1)
    placement = await acquire(world, avoid=frozenset({"full-0"}))
    assert placement.route.key.tier == "int4"


async def test_bodies_that_wait_are_bounded_by_bytes(tools):
    world = build_world(tools, {"full": 1000}, full=1)
    await acquire(world)
    waiting = asyncio.create_task(acquire(world, 2, held_bytes=63 << 20))
    await asyncio.sleep(0.01)
    with pytest.raises(Refused) as refused:
        await acquire(world, 2, held_bytes=2 << 20)
    assert (refused.value.status, refused.value.cause) == (429, RefusalCause.QUEUE_FULL)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_stream_makes_room_with_its_first_token_not_only_with_its_end(tools):
    world = build_world(tools, {"full": 1000}, full=1)
    table = tools.build_table(
        generation=2,
        routes=[{"tier": "full", "qualityPermille": 1000, "mu": 1.0, "weight": 1.0}],
        slo={"ttftMilliseconds": 1000, "tpotMilliseconds": 900, "attainmentPercent": 90},
    )
    world.fleet.offer_table(parse_table(json.dumps(table), "assistant"))  # 10 in flight, 1 without its first token
    first = await acquire(world, streams=True)
    waiting = asyncio.create_task(acquire(world, 2, streams=True))
    await asyncio.sleep(0.01)
    assert world.admission.held == 1
    world.admission.note_first_token(first)
    world.admission.note_first_token(first)
    second = await waiting
    with pytest.raises(Refused):  # counted once, although it was said twice
        await acquire(world, streams=True)
    world.admission.release(first)
    with pytest.raises(Refused):  # `second` still waits inside the engine
        await acquire(world, streams=True)
    world.admission.release(second)
    world.admission.release(await acquire(world, streams=True))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "come", "go", "leave"]),
            st.sampled_from([{}, {"tier": "int4"}, {"quality_min": 900}]),
            st.integers(0, 10),
        ),
        max_size=60,
    )
)
def test_whatever_comes_goes_and_leaves_every_place_is_given_back_once(tools, events):
    async def play():
        world = build_world(tools, TIERS, full=1, int8=1, int4=1)
        tasks = []
        for kind, demand, index in events:
            if kind == "come":
                tasks.append(asyncio.create_task(acquire(world, 5, **demand)))
            elif tasks and kind == "go":
                task = tasks[index % len(tasks)]
                if task.done() and not task.cancelled():
                    tasks.remove(task)
                    world.admission.release(task.result())
            elif tasks:
                tasks.pop(index % len(tasks)).cancel() if not tasks[index % len(tasks)].done() else None
            await asyncio.sleep(0)
            held = [world.fleet.book.in_flight(lane.replicas[0]) for lane in world.fleet.lanes]
            assert all(0 <= count <= 1 for count in held)
        while tasks:
            for task in list(tasks):
                await asyncio.sleep(0)
                if task.done():
                    tasks.remove(task)
                    world.admission.release(task.result())
        await asyncio.sleep(0)
        assert sum(world.admission.in_flight.values()) == 0
        assert world.admission.held == 0

    asyncio.run(play())


def close(world, tools, *closed, floor=750, generation=2):
    """A newer table in which these tiers have no weight: the planner wants no replica of them."""
    routes = [
        {"tier": lane.key.tier, "qualityPermille": lane.route.quality_permille, "mu": 1.0, "weight": weight}
        for lane in world.fleet.lanes
        for weight in [0.0 if lane.key.tier in closed else 1.0]
    ]
    table = tools.build_table(routes=routes, slo=ONE_EACH, floorPermille=floor, generation=generation)
    assert world.fleet.offer_table(parse_table(json.dumps(table), "assistant"))


@pytest.mark.parametrize("demand", [{}, {"quality_min": 600}], ids=["free", "a quality below the floor"])
async def test_a_floor_that_nothing_reaches_nor_is_to_reach_refuses_at_once(tools, demand):
    world = build_world(tools, {"full": 1000, "int4": 700}, floor=750, int4=1)
    close(world, tools, "full")
    with pytest.raises(Refused, match="quality floor 750") as refused:
        await asyncio.wait_for(acquire(world, 60, **demand), 1)
    assert (refused.value.status, refused.value.cause) == (429, RefusalCause.FLOOR_REACHED)
    assert refused.value.retry_after_seconds == 60
    assert (await acquire(world, tier="int4")).reason is RouteReason.PINNED


async def test_what_reaches_the_floor_is_waited_for_while_it_starts_though_the_table_does_not_know_it_yet(tools):
    world = build_world(tools, {"full": 1000, "int4": 700}, floor=750, int4=1)
    close(world, tools, "full")
    world.offer(int4=1, starting=["full"])
    waiting = asyncio.create_task(acquire(world, 2))
    await asyncio.sleep(0.01)
    assert world.admission.held == 1
    world.offer(int4=1, full=1)
    close(world, tools, generation=3)
    assert (await waiting).replica.uid == "full-0"


async def test_what_is_to_reach_the_floor_is_waited_for_before_its_replica_is_there(tools):
    world = build_world(tools, {"full": 1000, "int4": 700}, floor=750, int4=1)
    close(world, tools)
    waiting = asyncio.create_task(acquire(world, 2))
    await asyncio.sleep(0.01)
    world.offer(int4=1, full=1)
    assert (await waiting).replica.uid == "full-0"
