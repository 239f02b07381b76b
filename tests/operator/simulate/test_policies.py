"""The baselines' rules against cases computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_operator.decide.fill import fill
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.simulate.curve import Lengths, saturation
from adaptive_operator.simulate.generators import generate, square_wave, steady, step
from adaptive_operator.simulate.policies.ablations import AblationError, Variant, make_variant, parse_variant
from adaptive_operator.simulate.policies.base import Scaler
from adaptive_operator.simulate.policies.cost_first import CostFirstPolicy, Load, wants_less, wants_more
from adaptive_operator.simulate.policies.hpa import HpaPolicy, desired_replicas
from adaptive_operator.simulate.policies.infaas import InfaasPolicy, Ladder
from adaptive_operator.simulate.policies.kpa import KpaPolicy
from adaptive_operator.simulate.policies.oracle import Foresight, make_oracle
from adaptive_operator.simulate.policies.ours import AdaptivePolicy
from adaptive_operator.simulate.policies.proteus import Planner, ProteusPolicy, batch_rate, betas_from, weighted
from adaptive_operator.simulate.policies.registry import played_in
from adaptive_operator.simulate.policies.static import StaticPolicy, best_mix, best_tier_mix, cheapest_tier_mix
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import Part, run, run_pool
from adaptive_operator.simulate.scenario import build_scenario
from adaptive_operator.simulate.world import World, fixed_table
from tests.operator.simulate.queues import make_curve
from tests.operator.simulate.scenes import curves_of, make_scenario, make_spec, mixes, quality, served

HPA = {  # (work, ready, unready) -> desired, target 10
    "more work, more replicas": ((35, 2, 0), 4),
    "within 10 % nothing moves": ((21.9, 2, 0), 2),
    "less work, fewer replicas": ((9, 2, 0), 1),
    "replicas that load count with nothing, so nothing is added twice": ((35, 2, 2), 4),
    "still more than those that load will carry": ((60, 2, 2), 6),
    "nothing ready: wait": ((50, 0, 1), 1),
    "never to zero": ((0, 3, 0), 1),
}


@pytest.mark.parametrize("name", HPA)
def test_hpa_asks_for(name):
    arguments, expected = HPA[name]
    assert desired_replicas(*arguments, target=10) == expected


def test_hpa_adds_at_most_four_or_double_and_goes_down_only_after_five_minutes():
    policy = HpaPolicy()
    policy._world = world = World(make_scenario(budget=32))
    wanted = []
    for desired in (32, 32, 32, 1, 1):
        policy._wanted = policy._limited(desired, 32)
        wanted.append(policy._wanted)
        world.events.run_until(world.events.now + 15)
    assert wanted == [5, 10, 20, 20, 20]
    world.events.run_until(400)
    assert policy._limited(1, 32) == 1


def kpa(readings, target=10.0, ready=1):
    policy = KpaPolicy()
    for second, concurrency in readings:
        policy.observe(second, concurrency)
    return policy.decide(target, ready)


def test_kpa_follows_the_mean_of_a_minute():
    assert kpa([(t, 25) for t in range(0, 62, 2)], ready=2) == 3


def test_kpa_panics_when_six_seconds_ask_for_twice_what_is_ready():
    assert kpa([*((t, 5) for t in range(0, 56, 2)), (56, 40), (58, 40), (60, 40)], ready=1) == 4


def test_kpa_goes_down_by_half_at_most():
    assert kpa([(t, 5) for t in range(0, 62, 2)], ready=8) == 4


def test_kpa_never_goes_down_in_panic_and_does_a_minute_later():
    policy = KpaPolicy()
    policy.observe(0.0, 80)
    assert policy.decide(10.0, 2) == 8
    for second in range(2, 60, 2):
        policy.observe(float(second), 0)
    assert policy.decide(10.0, 8) == 8
    for second in range(60, 130, 2):
        policy.observe(float(second), 0)
    assert policy.decide(10.0, 8) == 4


def test_the_scaler_starts_what_the_budget_allows_and_the_rest_when_pods_are_gone():
    world = World(make_scenario(budget=3))
    scaler = Scaler(world)
    scaler.set({"full": 3}, "test")
    world.events.run_until(30.0)
    scaler.set({"full": 1, "int4": 2}, "test")
    assert len(world.plant.of_tier("int4")) == 0
    world.events.run_until(65.0)
    assert world.ready() == {"full": 1, "int4": 2}
    assert world.plant.ledger.most == 3


def test_the_scaler_gives_up_the_pod_that_is_not_ready_first():
    world = World(make_scenario(budget=3))
    scaler = Scaler(world)
    scaler.set({"full": 1}, "test")
    world.events.run_until(30.0)
    scaler.set({"full": 2}, "test")
    scaler.set({"full": 1}, "test")
    assert world.ready() == {"full": 1}


def test_static_mixes_take_the_whole_budget():
    scenario = make_scenario(budget=5)
    assert best_tier_mix(scenario) == {"full": 5}
    assert cheapest_tier_mix(scenario) == {"int8": 5}  # int4 is below the floor of 0.9


@pytest.mark.parametrize("policy", [HpaPolicy, KpaPolicy])
def test_replica_only_policies_scale_the_best_tier_alone_with_the_load(policy):
    trace = generate(square_wave(1.0, 11.0, 300.0), 900.0, seed=1)
    result = run(make_scenario(budget=4), trace, policy())
    assert {tier for mix in mixes(result) for tier in mix} == {"full"}
    assert max(mix["full"] for mix in mixes(result)) >= 3
    assert quality(result) == 1.0
    assert result.ledger.most <= 4


def test_a_static_policy_never_changes():
    result = run(make_scenario(), generate(steady(2.0), 120.0, seed=1), StaticPolicy("p0", {"full": 2}))
    assert mixes(result) == [{"full": 2}]
    assert served(result, since=60.0) == 1.0


SATURATION = {  # (kv share, waiting) per replica -> more?, less?
    "idle replicas: one is enough": ([(0.1, 0), (0.1, 0)], False, True),
    "a single one stays": ([(0.1, 0)], False, False),
    "kv memory is short": ([(0.75, 0), (0.72, 0)], True, False),
    "queues are short of room": ([(0.1, 3), (0.1, 3)], True, False),
    "all are saturated": ([(0.9, 0), (0.1, 6)], True, False),
    "a saturated one is left out of the mean": ([(0.95, 0), (0.2, 0), (0.2, 0)], False, True),
    "one less would be too few": ([(0.5, 0), (0.5, 0)], False, False),
}


@pytest.mark.parametrize("name", SATURATION)
def test_cost_first_judges_saturation(name):
    loads, more, less = SATURATION[name]
    found = [Load(kv, waiting) for kv, waiting in loads]
    assert (wants_more(found), wants_less(found)) == (more, less)


@pytest.mark.slow
def test_cost_first_adds_the_cheapest_within_the_floor_and_never_goes_back_for_quality():
    trace = generate(square_wave(1.0, 30.0, 300.0), 1200.0, seed=1)
    result = run(make_scenario(budget=4), trace, CostFirstPolicy())
    assert {tier for mix in mixes(result) for tier in mix} == {"int8"}  # int4 is below the floor
    assert max(mix["int8"] for mix in mixes(result)) >= 3
    assert quality(result) == pytest.approx(0.99)


MIXES = {
    "a floor of the best tier": (1000, {"full": 4}),
    "a floor that the second best just keeps": (990, {"int8": 4}),
    "a floor below all": (500, {"int4": 4}),
    "a floor in between mixes": (950, {"int8": 3, "int4": 1}),  # 19.2/s of 990 pay for 7.7/s of 850
}


@pytest.mark.parametrize("name", MIXES)
def test_the_best_static_mix_carries_most_within(name):
    floor, mix = MIXES[name]
    assert best_mix(make_scenario(budget=4, quality={"floorPermille": floor})) == mix


def test_the_best_static_mix_of_a_large_pool_takes_no_list_of_all_mixes():
    tiers = tuple((f"t{i}", "int8", 1000 - 10 * i, 4.0 + i, 1 + i % 3) for i in range(8))
    mix = best_mix(make_scenario(budget=200, tiers=tiers))
    assert sum(mix.values()) > 0


@settings(max_examples=30, deadline=None)
@given(
    budget=st.integers(1, 6),
    rates=st.lists(st.floats(0.5, 20.0), min_size=3, max_size=3),
    accelerators=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    floor=st.integers(700, 1000),
)
def test_the_best_static_mix_carries_as_much_as_the_best_of_all_mixes(budget, rates, accelerators, floor):
    names = zip(("full", "int8", "int4"), ("bf16", "int8", "int4"), (1000, 990, 850), rates, accelerators, strict=True)
    if min(accelerators) > budget:
        return
    scenario = make_scenario(budget=budget, tiers=tuple(names), quality={"floorPermille": floor})
    found = best_mix(scenario)
    assert sum(scenario.tier(tier).accelerators * n for tier, n in found.items()) <= budget
    best = max(carried(scenario, mix) for mix in all_mixes(scenario.tiers, budget))
    assert carried(scenario, found) == pytest.approx(best, rel=2e-4, abs=1e-6)


def carried(scenario, mix):
    """Requests/s within the floor."""
    rates = [tier.rate * mix.get(tier.name, 0) for tier in scenario.tiers]
    outcome = fill(sum(rates), rates, [tier.quality_permille for tier in scenario.tiers], 1000 * scenario.floor)
    return sum(outcome.served)


def all_mixes(tiers, left):
    if not tiers:
        yield {}
        return
    for count in range(left // tiers[0].accelerators + 1):
        for rest in all_mixes(tiers[1:], left - count * tiers[0].accelerators):
            yield {tiers[0].name: count, **rest}


PROTEUS = {  # requests/s -> mix on 4 accelerators; replicas serve 4, 6.4 and 10 requests/s
    "idle: the best tier everywhere": (0.0, {"full": 4}),
    "what four of the best just carry, 5 % spare": (16 / 1.05, {"full": 4}),
    "a little more: one cheaper replica": (16.0, {"full": 3, "int8": 1}),
    "twice as much": (30.0, {"int8": 2, "int4": 2}),
    "more than all can: the fastest everywhere": (500.0, {"int4": 4}),
}


@pytest.mark.parametrize("name", PROTEUS)
def test_proteus_plans(name):
    demand, mix = PROTEUS[name]
    scenario = make_scenario(budget=4)
    assert Planner(scenario, tuple(tier.rate for tier in scenario.tiers)).plan(demand).replicas == mix


def test_proteus_gives_every_tier_the_part_that_it_planned_for_it():
    scenario = make_scenario(budget=4)
    mix = Planner(scenario, tuple(tier.rate for tier in scenario.tiers)).plan(16.0)
    assert mix.replicas == {"full": 3, "int8": 1}
    assert mix.served == {"full": pytest.approx(12 / 1.05), "int8": pytest.approx(16 - 12 / 1.05), "int4": 0.0}
    table = weighted(fixed_table(scenario, ("full", "int8", "int4")), mix)
    assert [route.weight for route in table.routes] == [pytest.approx(w) for w in mix.served.values()]
    assert table.generation == 2


def test_proteus_lowers_beta_from_1_05_to_0_2():
    betas = betas_from(1.05)
    assert (betas[0], betas[-1], len(betas)) == (1.05, 0.2, 18)


def test_the_rate_of_a_batch_counts_the_prefills_of_the_others():
    curve, lengths = make_curve(), Lengths(1155.0, 211.0)
    free = batch_rate(curve, lengths, ttft_seconds=1.0, tpot_seconds=0.035)
    assert free == pytest.approx(saturation(curve, lengths), rel=0.01)
    # 15 ms per token leave room for prefills that take 42 % of the time at 8.7 ms a step.
    tight = batch_rate(curve, lengths, ttft_seconds=1.0, tpot_seconds=0.015)
    assert tight < 0.75 * free
    prefill = curve.prefill(1155)
    assert tight * prefill == pytest.approx(0.5, abs=0.1)
    assert batch_rate(curve, lengths, ttft_seconds=0.01, tpot_seconds=0.035) == pytest.approx(
        1 / (210 * curve.step(1) + prefill)
    )  # nothing keeps it: one at a time


@pytest.mark.slow
def test_proteus_swaps_tiers_with_the_load_within_the_budget():
    result = run(make_scenario(budget=3), generate(step(2.0, 20.0, 300.0), 900.0, seed=1), ProteusPolicy())
    assert mixes(result)[0] == {"full": 3}
    assert "int4" in mixes(result)[-1] or "int8" in mixes(result)[-1]
    assert result.ledger.most <= 3


def test_without_the_fast_loop_the_weights_alone_divide_the_requests():
    world = World(make_scenario(budget=2))
    world.dispatcher.follow_weights()
    table = fixed_table(world.scenario, ("full", "int8"))
    routes = tuple(replace(route, weight=w) for route, w in zip(table.routes, (0.25, 0.75), strict=True))
    world.dispatcher.offer_table(replace(table, routes=routes))
    Scaler(world).set({"full": 1, "int8": 1}, "test")
    world.start(generate(steady(2.0), 400.0, seed=1))
    world.events.run_until(400.0)
    late = [request for request in world.requests if request.arrival > 60]
    assert sum(request.tier == "full" for request in late) / len(late) == pytest.approx(0.25, abs=0.02)


def test_ours_watches_a_swap_at_its_own_period_whatever_a_model_asks_for():
    """No pod changes while a replica loads, so nothing but the clock brings a pass."""
    own = {"scaling": {"dwellSeconds": 60, "holdSeconds": 60, "plannerPeriodSeconds": 3600}, "load_seconds": 100}
    policy = AdaptivePolicy(keep_records=True)
    run(make_scenario(**own), generate(steady(2.0), 300.0, seed=1), policy)
    times = [record.at for record in policy.records]
    assert {15.0, 30.0, 45.0, 60.0, 75.0, 90.0} <= set(times)
    assert max(times) < 150.0, "all is ready, and nothing is in flight"


def test_ours_plans_a_pool_at_its_own_period_for_models_that_ask_for_none():
    asks = {"dwellSeconds": 60, "holdSeconds": 60, "plannerPeriodSeconds": 3600}
    parts = [
        Part(
            build_scenario(name, make_spec(**own), 4, curves_of(make_spec(**own))), generate(steady(2.0), 300.0, seed=1)
        )
        for name, own in (("a", {}), ("b", {"scaling": asks}))
    ]
    policy = AdaptivePolicy(keep_records=True)
    run_pool(parts, policy)
    assert {15.0 * n for n in range(20)} <= {record.at for record in policy.records}


def test_foresight_is_the_busiest_minute_that_begins_before_what_starts_now_is_ready():
    trace = [TraceRow(float(t), 1, 1) for t in (0, 100, *range(150, 240))]
    foresight = Foresight(trace, horizon_seconds=30.0)
    # 60 s from 150 s on have 60 requests; a minute from 120 s on half of them.
    assert [foresight.rate(now) for now in (0.0, 75.0, 105.0, 120.0, 300.0)] == [1 / 60, 15 / 60, 45 / 60, 1.0, 0.0]
    assert Foresight(trace, horizon_seconds=0.0).rate(120.0) == 30 / 60


@pytest.mark.slow
def test_the_oracle_adds_capacity_before_a_step_that_ours_can_only_follow():
    scenario, trace = make_scenario(budget=4), generate(step(2.0, 14.0, 400.0), 700.0, seed=1)
    after = [sum(served_at(run(scenario, trace, p))) for p in (make_oracle(scenario, trace), AdaptivePolicy())]
    assert after[0] < after[1]


def served_at(result):
    """Waits for the first token of those that arrived in the minute after the step."""
    return [r.ttft if r.first_token_at == r.first_token_at else 10.0 for r in result.requests if 400 <= r.arrival < 460]


MOVES = {  # mix, requests/s -> more, less; replicas serve 4, 6.4 (the floor leaves int4 out), budget 3
    "room: one more of the cheapest in use": ({"full": 1, "int8": 1}, 9.0, {"full": 1, "int8": 2}, None),
    "no room: the best goes down a tier": ({"full": 2, "int8": 1}, 14.0, {"full": 1, "int8": 2}, None),
    "nothing is left": ({"int8": 3}, 19.0, {"int8": 3}, None),
    "calm: one goes up a tier": ({"int8": 2}, 6.0, {"int8": 3}, {"int8": 1, "full": 1}),
    "calm at the top: one less": ({"full": 2}, 2.0, {"full": 3}, {"full": 1}),
    "the last one stays": ({"full": 1}, 0.1, {"full": 2}, None),
}


@pytest.mark.parametrize("name", MOVES)
def test_infaas_moves_one_step(name):
    mix, rate, more, less = MOVES[name]
    ladder = Ladder(make_scenario(budget=3).tiers[:2], 3)
    assert ladder.more(mix) == more
    assert ladder.less(mix, rate) == (less or mix)


@pytest.mark.slow
def test_infaas_goes_down_in_quality_under_load_and_up_again_within_the_floor():
    trace = generate(square_wave(1.0, 15.0, 400.0), 1600.0, seed=1)
    result = run(make_scenario(budget=3), trace, InfaasPolicy())
    assert {tier for mix in mixes(result) for tier in mix} == {"full", "int8"}
    assert max(mix.get("int8", 0) for mix in mixes(result)) == 3
    assert any(mix.get("full", 0) > 0 for mix in mixes(result)[mixes(result).index({"int8": 3}) :])
    assert result.ledger.most <= 3


VARIANTS = {
    "nothing": ("", {}, {}),
    "a setting": ("growth_headroom=1.3", {"growth_headroom": 1.3}, {}),
    "a whole number": ("exact_plans=10", {"exact_plans": 10}, {}),
    "no forecast": ("without-forecast", {"panic_ratio": math.inf}, {}),
    "no fast loop, and a setting": (
        "without-fast-loop+utilisation=0.8",
        {"utilisation": 0.8},
        {"fast_loop": False},
    ),
    "no damping": (
        "without-damping",
        {"shrink_headroom": 1.0, "growth_headroom": 1.0, "significance": 0.0},
        {"damped": False},
    ),
    "no swap cost": ("without-swap-cost", {}, {"swap_cost": False}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_ours_can_do_without(name):
    text, changed, off = VARIANTS[name]
    settings = replace(DecideSettings(scrape_interval_seconds=10.0), **changed)
    assert parse_variant(text, 10.0) == replace(Variant(settings), **off)


@pytest.mark.parametrize("text", ["without-luck", "growth_headroom", "growth_headroom=x", "luck=1", "utilisation=nan"])
def test_a_part_that_ours_does_not_have_is_refused(text):
    with pytest.raises(AblationError, match="is no part of ours; there are without-forecast"):
        parse_variant(text, 15.0)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("growth_headroom=0.5", "from 1 to 10"),
        ("utilisation=0", "from 0.01 to 1"),
        ("planner_period_seconds=0", "from 1 to 3600"),
        ("quarantine_seconds=-1", "at least 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_range(text, allowed):
    with pytest.raises(AblationError, match=f"out of range; it has to be {allowed}"):
        parse_variant(text, 15.0)


@pytest.mark.parametrize("text", ["utilisation=0.5+utilisation=0.6", "without-damping+utilisation=1+without-damping"])
def test_a_part_that_is_named_twice_is_refused(text):
    with pytest.raises(AblationError, match="is there twice; name each part once"):
        parse_variant(text, 15.0)


def test_a_group_of_settings_is_no_number():
    with pytest.raises(AblationError, match="'correction=1' is no part of ours"):
        parse_variant("correction=1", 15.0)


@pytest.mark.slow
def test_without_damping_ours_changes_more_often():
    trace = generate(square_wave(2.0, 9.0, 100.0), 1200.0, seed=1)
    damped, not_damped = (run(make_scenario(), trace, make_variant(text, 15.0)) for text in ("", "without-damping"))
    assert len(not_damped.changes) > len(damped.changes)


@pytest.mark.slow
def test_without_the_fast_loop_ours_sheds_only_when_the_planner_moves_the_weights():
    trace = generate(step(2.0, 11.0, 300.0), 420.0, seed=1)
    with_loop, without = (
        run(make_scenario(budget=2), trace, make_variant(text, 15.0)) for text in ("", "without-fast-loop")
    )
    first = [[r.quality for r in result.requests if 300 <= r.arrival < 310] for result in (with_loop, without)]
    assert sum(first[0]) / len(first[0]) < sum(first[1]) / len(first[1])


def test_the_oracle_at_once_needs_no_time_to_start():
    scenario = played_in("oracle:0", make_scenario())
    assert [tier.load_seconds for tier in scenario.tiers] == [0.0, 0.0, 0.0]
    assert [tier.card.load_seconds for tier in scenario.spec.tiers] == [0, 0, 0]
    assert scenario.scheduling_seconds == 0.0
    assert played_in("oracle", make_scenario()) == make_scenario()
    trace = generate(step(2.0, 14.0, 200.0), 300.0, seed=1)
    result = run(scenario, trace, make_oracle(scenario, trace))
    assert result.ledger.not_ready_seconds < 30.0
