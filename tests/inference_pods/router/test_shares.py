"""Loop F as a pure function: tables of known cases, and invariants over all cases."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.shares import (
    PERIOD_SECONDS,
    ShareInputs,
    SharePlan,
    ShareReason,
    TierLoad,
    plan_shares,
)
from inference_pods.router.table import RouteKey

FULL, INT8, INT4 = RouteKey("full"), RouteKey("int8"), RouteKey("int4")


def tier(key=FULL, quality=1000, mu=1.0, weight=1.0, ready=1, backlog=0.0):
    return TierLoad(key, quality, mu, weight, ready, backlog)


def settle(inputs: ShareInputs, previous: SharePlan | None = None, periods: int = 60) -> SharePlan:
    """Let loop F run until nothing changes any more."""
    now = previous.at if previous else 0.0
    for _ in range(periods):
        now += PERIOD_SECONDS
        previous = plan_shares(inputs, previous, now)
    return previous


DEMO = (tier(FULL, 1000, 0.8), tier(INT4, 780, 0.65))


@pytest.mark.parametrize(
    ("name", "inputs", "want"),
    [
        ("idle: the best tier takes all", ShareInputs(DEMO, 0.0), {FULL: 1.0, INT4: 0.0}),
        ("below capacity: the best tier takes all", ShareInputs(DEMO, 0.7), {FULL: 1.0, INT4: 0.0}),
        ("above: the best tier is filled to 0.9", ShareInputs(DEMO, 1.2), {FULL: 0.6, INT4: 0.4}),
        (
            "two routers: each plans half the capacity",
            ShareInputs(DEMO, 0.6, routers=2),
            {FULL: 0.6, INT4: 0.4},
        ),
        (
            "beyond all capacity: shares follow capacities",
            ShareInputs(DEMO, 10.0),
            {FULL: 0.8 / 1.45, INT4: 0.65 / 1.45},
        ),
        (
            "waiting requests count as load to be worked off in 5 s",
            ShareInputs(DEMO, 0.2, held=5),
            {FULL: 0.6, INT4: 0.4},
        ),
        (
            "a tier's backlog takes from its capacity",
            ShareInputs((tier(FULL, 1000, 1.0, backlog=2.5), tier(INT4, 780, 1.0)), 0.8),
            {FULL: 0.5, INT4: 0.5},
        ),
        (
            "weight 0 closes a tier",
            ShareInputs((tier(FULL, 1000, weight=0.0), tier(INT4, 780)), 0.1),
            {INT4: 1.0},
        ),
        (
            "weight 0 stays open when nothing else is ready",
            ShareInputs((tier(FULL, 1000, weight=0.0), tier(INT4, 780, ready=0)), 0.1),
            {FULL: 1.0},
        ),
        (
            "unknown capacity: admission alone limits it",
            ShareInputs((tier(FULL, None, None), tier(INT4, 780)), 50.0),
            {FULL: 1.0, INT4: 0.0},
        ),
        (
            "the floor limits how much a worse tier may take: 5 of 6 at 700 under 750 do not fit",
            ShareInputs((tier(FULL, 1000, 1.0), tier(INT4, 700, 100.0)), 50.0, floor_permille=750),
            {FULL: 1 / 6, INT4: 5 / 6},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_settled_shares_are(name, inputs, want):
    assert settle(inputs).shares == pytest.approx(want, abs=1e-6)


def test_shedding_happens_in_one_period_and_restoring_takes_several():
    calm, busy = ShareInputs(DEMO, 0.3), ShareInputs(DEMO, 2.88)
    plan = settle(calm)
    shed = plan_shares(busy, plan, plan.at + PERIOD_SECONDS)
    assert shed.of(FULL) < 0.56
    after_one = plan_shares(calm, shed, shed.at + PERIOD_SECONDS)
    assert after_one.of(FULL) == pytest.approx(shed.of(FULL) + 0.3 * (1 - shed.of(FULL)))
    assert after_one.reason is ShareReason.RESTORING
    assert settle(calm, after_one, 12).of(FULL) > 0.98


def test_events_between_two_periods_do_not_speed_up_the_restoration():
    busy, calm = ShareInputs(DEMO, 2.88), ShareInputs(DEMO, 0.3)
    shed = settle(busy)
    once = plan_shares(calm, shed, shed.at + PERIOD_SECONDS)
    often = shed
    for step in range(1, 11):
        often = plan_shares(calm, often, shed.at + PERIOD_SECONDS * step / 10)
    assert often.of(FULL) == pytest.approx(once.of(FULL))


def test_the_planners_weights_are_the_starting_point():
    tiers = (tier(FULL, 1000, 10, weight=0.2), tier(INT4, 780, 10, weight=0.8))
    assert plan_shares(ShareInputs(tiers, 0.0), None, 0.0).of(FULL) == pytest.approx(0.2 + 0.3 * 0.8)


def test_a_lost_tier_hands_its_share_over_at_once():
    plan = settle(ShareInputs(DEMO, 0.1))
    lost = (tier(FULL, 1000, 0.8, ready=0), DEMO[1])
    assert plan_shares(ShareInputs(lost, 0.1), plan, plan.at + 0.01).shares == {INT4: 1.0}


def test_a_raised_floor_does_not_wait_for_the_damping():
    tiers = (tier(FULL, 1000, 1.0), tier(INT4, 700, 100.0))
    plan = settle(ShareInputs(tiers, 50.0))
    raised = plan_shares(ShareInputs(tiers, 50.0, floor_permille=900), plan, plan.at + PERIOD_SECONDS)
    assert raised.of(FULL) * 1000 + raised.of(INT4) * 700 >= 900 - 1e-6


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (ShareInputs((), 1.0), ShareReason.NOTHING_READY),
        (ShareInputs((tier(ready=0),), 1.0), ShareReason.NOTHING_READY),
        (ShareInputs((tier(INT4, 700),), 1.0, floor_permille=750), ShareReason.FLOOR_REACHED),
        (ShareInputs(DEMO, 5.0), ShareReason.SATURATED),
        (ShareInputs(DEMO, 0.1), ShareReason.STEADY),
    ],
)
def test_the_reason_is(inputs, reason):
    assert settle(inputs).reason is reason


def test_a_step_in_load_is_followed_without_oscillation():
    """A queue that grows with the overload and loop F close a circle: the share may not swing once it has settled."""
    queue, shares, plan, now = 0.0, [], None, 0.0
    tiers = (tier(FULL, 1000, 10.0), tier(INT4, 780, 22.0))
    for step in range(240):
        now += PERIOD_SECONDS
        rate = 8.0 if step < 40 else 20.0
        loaded = (tier(FULL, 1000, 10.0, backlog=queue), tiers[1])
        plan = plan_shares(ShareInputs(loaded, rate), plan, now)
        queue = max(queue + (rate * plan.of(FULL) - 10.0) * PERIOD_SECONDS, 0.0)
        shares.append(plan.of(FULL))
    assert shares[39] == pytest.approx(1.0, abs=1e-3)
    assert shares[42] < 0.5, "shed within two seconds"
    settled = shares[80:]
    assert max(settled) - min(settled) < 0.01
    assert settled[-1] == pytest.approx(0.45, abs=0.01)


qualities = st.one_of(st.none(), st.integers(0, 1000))
tier_loads = st.builds(
    TierLoad,
    key=st.just(FULL),
    quality_permille=qualities,
    mu=st.one_of(st.none(), st.floats(0.01, 1000)),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    ready=st.integers(0, 8),
    backlog=st.floats(0, 100),
)


@st.composite
def fleets(draw):
    """Up to five tiers, best quality first, with distinct keys."""
    drawn = draw(st.lists(tier_loads, min_size=1, max_size=5))
    drawn.sort(key=lambda load: -(load.quality_permille if load.quality_permille is not None else 1001))
    return tuple(
        TierLoad(RouteKey(f"t{i}"), t.quality_permille, t.mu, t.weight, t.ready, t.backlog) for i, t in enumerate(drawn)
    )


inputs_of = st.builds(
    ShareInputs,
    tiers=fleets(),
    arrival_rate=st.floats(0, 10_000),
    held=st.integers(0, 2000),
    routers=st.integers(1, 5),
    floor_permille=st.integers(0, 1000),
)


def test_a_surplus_spent_to_the_last_bit_leaves_no_share_below_zero():
    loads = [(608, 420.48078750534376, 3, 85.01576695648787), (309, None, 1, 0.0), (0, None, 1, 0.0)]
    tiers = tuple(
        TierLoad(RouteKey(f"t{i}"), quality, mu, 0.3, ready, backlog)
        for i, (quality, mu, ready, backlog) in enumerate(loads)
    )
    plan = plan_shares(ShareInputs(tiers, 414.0, routers=5, floor_permille=461), None, 0.0)
    assert min(plan.shares.values()) >= 0


@given(st.lists(inputs_of, min_size=1, max_size=6), st.floats(0, 2))
def test_shares_are_a_distribution_and_respect_the_floor_whatever_happened_before(history, step):
    plan = None
    now = 0.0
    for inputs in history:
        plan = plan_shares(inputs, plan, now)
        now += step
        total = math.fsum(plan.shares.values())
        assert all(0 <= share <= 1 + 1e-9 for share in plan.shares.values())
        assert (
            total == pytest.approx(1.0) or (total == 0 and not plan.shares) or plan.reason is ShareReason.FLOOR_REACHED
        )
        by_key = {load.key: load for load in inputs.tiers}
        assert all(by_key[key].ready > 0 for key in plan.shares)
        surplus = math.fsum(
            share * (by_key[key].quality_permille - inputs.floor_permille)
            for key, share in plan.shares.items()
            if by_key[key].quality_permille is not None
        )
        assert surplus >= -1e-6


@given(inputs_of)
def test_closed_tiers_get_nothing_while_an_open_one_is_ready(inputs):
    plan = plan_shares(inputs, None, 0.0)
    open_ready = [load for load in inputs.tiers if load.ready and load.weight > 0]
    if open_ready:
        assert {key for key, share in plan.shares.items() if share > 0} <= {load.key for load in open_ready}


@given(inputs_of, st.floats(0, 10_000))
def test_the_share_of_the_best_tier_never_rises_with_the_load(inputs, more):
    heavier = ShareInputs(inputs.tiers, inputs.arrival_rate + more, inputs.held, inputs.routers, inputs.floor_permille)
    light, heavy = settle(inputs), settle(heavier)
    if light.shares and light.reason is not ShareReason.FLOOR_REACHED:
        best = next(iter(light.shares))
        margin = next(load.quality_permille for load in inputs.tiers if load.key == best)
        if margin is None or margin >= inputs.floor_permille:
            assert heavy.of(best) <= light.of(best) + 1e-6
