"""Table, endpoints and shares put together, on a clock that the test turns."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from inference_pods.router.endpoints import EndpointSet, Replica
from inference_pods.router.fleet import Fleet
from inference_pods.router.pick import ReplicaLimits
from inference_pods.router.table import RouteKey, parse_table


@pytest.fixture
def world(tools):
    """A fleet, its clock, and ways to change what it knows."""
    time = SimpleNamespace(now=100.0)
    fleet = Fleet(lambda: time.now)

    def offer(routers=1, **by_tier):
        replicas = {
            tier: tuple(Replica(f"{tier}-{i}", tier, f"http://{tier}-{i}") for i in range(count))
            for tier, count in by_tier.items()
        }
        fleet.offer_endpoints(EndpointSet(replicas, routers))

    def offer_table(**changes):
        return fleet.offer_table(parse_table(json.dumps(tools.build_table(**changes)), "assistant"))

    return SimpleNamespace(fleet=fleet, time=time, offer=offer, offer_table=offer_table)


def test_without_a_table_nothing_is_open_and_the_loop_does_nothing(world):
    world.offer(full=1)
    world.fleet.rebalance()
    assert world.fleet.open_lanes() == []
    assert not world.fleet.is_ready()


def test_each_router_takes_its_part_of_every_replica(world):
    world.offer_table()
    world.offer(full=2)
    assert world.fleet.lanes[0].limits == ReplicaLimits(100, queued=25, decoding=50)
    assert world.fleet.capacity() == pytest.approx(100)
    world.offer(full=2, routers=3)
    assert world.fleet.lanes[0].limits == ReplicaLimits(34, queued=9, decoding=pytest.approx(50 / 3))
    assert world.fleet.capacity() == pytest.approx(100 / 3)


def test_draining_pods_are_in_no_lane(world):
    world.offer(full=2)
    world.offer_table(draining=["full-0"])
    assert [replica.uid for replica in world.fleet.lanes[0].replicas] == ["full-1"]


def test_endpoints_known_before_the_table_are_used_with_it(world):
    world.offer(int4=1)
    world.offer_table()
    assert world.fleet.plan.of(RouteKey("int4")) == 1.0
    assert world.fleet.any_replica() is not None


def test_readiness_outlives_the_last_replica_by_the_time_requests_are_held(world):
    world.offer_table(maxQueueSeconds=60)
    world.offer(full=1)
    world.time.now += 1000
    world.offer()
    assert world.fleet.is_ready()
    world.time.now += 61
    assert not world.fleet.is_ready()


def test_every_change_is_announced_once(world):
    calls = []
    world.fleet.on_change.append(lambda: calls.append(world.fleet.plan.reason))
    world.offer_table()
    world.offer(full=1)
    world.offer(full=1)
    assert len(calls) == 2


def test_load_from_own_arrivals_moves_the_shares(world):
    world.offer_table()
    world.offer(full=1, int4=1)
    for _ in range(40):
        world.time.now += 0.5
        world.fleet.rebalance()
    assert world.fleet.plan.of(RouteKey("full")) == pytest.approx(1.0, abs=1e-3)
    for _ in range(200):
        world.time.now += 0.0125
        world.fleet.arrivals.record(world.time.now)
    world.fleet.rebalance()
    assert world.fleet.plan.of(RouteKey("full")) == pytest.approx(45 / 80, abs=0.03)


@pytest.mark.parametrize(
    ("streams", "started", "usual"),
    [
        (False, 0, 60),  # whole answers: 50 are decoded at once, 10 wait even without an overload
        (True, 0, 10),  # streams show themselves when they start: 10 wait even without an overload
        (True, 20, 30),  # and those that have started do not wait
    ],
)
def test_what_waits_inside_an_engine_beyond_the_usual_takes_from_its_tiers_share(world, streams, started, usual):
    world.offer_table()
    world.offer(full=1, int4=1)
    replica = world.fleet.lanes[0].replicas[0]
    for _ in range(usual):
        world.fleet.book.start(replica, streams=streams)
    for _ in range(started):
        world.fleet.book.note_first_token(replica)
    for step in range(1600):
        world.time.now += 0.025
        world.fleet.arrivals.record(world.time.now)
        if step % 20 == 0:
            world.fleet.rebalance()
    assert world.fleet.plan.of(RouteKey("full")) == pytest.approx(1.0, abs=0.01)
    for _ in range(50):
        world.fleet.book.start(replica, streams=streams)
    world.fleet.rebalance()
    # 45/s less 50 requests within 5 s
    assert world.fleet.plan.of(RouteKey("full")) == pytest.approx(35 / 40, abs=0.01)


def test_without_a_known_capacity_only_the_number_in_flight_limits_a_replica(world):
    world.offer_table(routes=[{"tier": "plain", "weight": 1}])
    world.offer(plain=1)
    assert world.fleet.lanes[0].limits == ReplicaLimits(4)
    world.offer_table(generation=2, slo=None)
    assert world.fleet.lanes[0].limits == ReplicaLimits(4)
