"""A pool without an AcceleratorPool: a plan worth it is followed, and takes from nobody what carries his own load."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import replace

import pytest

from adaptive_operator.decide.by_plan import Planned
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve
from adaptive_operator.decide.planned import planned_demand
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.situation import build_situation
from adaptive_operator.observe.observation import Planning, PoolObservation, Season, Series
from adaptive_operator.reasons import Reason
from adaptive_operator.record import build_record, decode_record, encode_record
from stand_ins.plant import DEMO_SETTINGS, Model, Plant, demo_spec, metrics, observe_one, tier

NOW = 10_000.0
GPU = "nvidia.com/gpu"
# A small replica of its best tier carries all of a calm model's load, at a little less quality.
CALM, BUSY = {"full": 1, "int4": 1}, {"int8": 1, "int4": 1}


SCALING = demo_spec().scaling.model_dump(by_alias=True, exclude_none=True)


def spec(**overrides):
    return demo_spec(accelerators={}, quality={"floorPermille": 900}, routing={"warmTier": "int4"}, **overrides)


def pool(budget: int = 5, **models: tuple[dict[str, int], float]) -> PoolObservation:
    """Models of one pool; a name's value is (mix, demand)."""
    seen = [observe_one(spec(), mix, metrics(rate), name=name) for name, (mix, rate) in models.items()]
    return PoolObservation(NOW, GPU, budget, 1, 0.0, tuple(seen))


def never(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
    raise AssertionError("no program has to be solved for this")


def run_two(seconds: float = 600.0, **scaling) -> tuple[Plant, Model, Model]:
    """A calm model came first and holds its best tier; a busy one is refused requests while it does."""
    own = spec(scaling={**SCALING, **scaling})
    calm = Model("calm", own, lambda now: 0.35)
    busy = Model("busy", own, lambda now: 0.3 if now < NOW + 200 else 1.6)
    plant = Plant([calm], budget=5)
    plant.run(60)
    assert calm.mix() == CALM
    plant.models.insert(0, busy)
    plant.run(seconds)
    return plant, calm, busy


def test_a_model_that_has_the_pool_for_itself_needs_no_program():
    one = pool(4, a=(BUSY, 9.0))
    decision = decide_pool(one, DEMO_SETTINGS, never)
    assert not decision.planned
    assert decision.decisions[0].pool == ""


def test_while_nobody_lacks_anything_no_program_is_solved():
    assert not decide_pool(pool(8, a=(CALM, 0.3), b=(CALM, 0.3)), DEMO_SETTINGS, never).planned


def test_a_calm_model_gives_the_quality_of_its_best_tier_where_others_would_refuse_requests():
    plant, calm, busy = run_two()
    assert calm.mix() == {"int8": 1, "int4": 1}
    assert busy.mix() == {"int8": 2, "int4": 1}
    gave = next(d for _, d in calm.decisions if d.reason is Reason.GAVE_TO_OTHERS)
    assert gave.message.startswith(
        "others would refuse requests: leaves them 1 accelerator; int8 1 · int4 1 carry 1.17/s"
    )
    assert "the pool's plan is int8 1 · int4 1, 2 accelerators; by need it would be 3" in gave.pool
    assert plant.held() == 5


def test_others_give_while_an_exchange_is_under_way_that_does_not_carry_the_load():
    """Alone, int8 2 and int4 1 is the most that six accelerators leave to `busy`, and refuses requests."""
    calm = Model("calm", spec(), lambda now: 0.3)
    busy = Model("busy", spec(), lambda now: 0.3 if now < NOW + 200 else 2.4)
    plant = Plant([calm], budget=6)
    plant.run(60)
    plant.models.insert(0, busy)
    plant.run(300)
    swaps = [(at, d.reason, d.swap.target if d.swap else None) for at, d in busy.decisions if at >= NOW + 200]
    gave = next(at for at, d in calm.decisions if d.reason is Reason.GAVE_TO_OTHERS)
    further = next(at for at, reason, _ in swaps if reason is Reason.ADDED_REPLICA)
    assert swaps[0][1:] == (Reason.SWAPPED_TO_CHEAPER_TIER, {"full": 0, "int8": 2, "int4": 1})
    assert gave < further
    assert all(target is not None for at, _, target in swaps if at <= further), "the exchange had not ended"
    assert (busy.mix(), calm.mix()) == ({"int8": 3, "int4": 1}, {"int8": 1, "int4": 1})


def test_giving_is_no_addition_so_that_what_waits_afterwards_still_counts_as_demand():
    _, calm, busy = run_two()
    assert calm.memory.last_restore_at is not None, "it is as careful as an upgrade, and counts as one"
    assert calm.memory.last_add_at is None
    assert busy.memory.last_add_at is not None
    told = [d.reason for _, d in calm.decisions]
    assert Reason.GAVE_TO_OTHERS in told
    assert Reason.SWAPPED_TO_CHEAPER_TIER not in told


def test_what_carries_the_own_load_is_never_given():
    plant, calm, busy = run_two()
    calm.load = lambda now: 1.0
    plant.run(300)
    busy.load = lambda now: 9.0
    plant.run(600)
    space = {"full": 0.72, "int8": 0.585, "int4": 0.585}
    assert sum(space[tier] * n for tier, n in calm.mix().items()) >= 1.0


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"acting_since": NOW - 5}, "the operator has just started"),
        ({"now": NOW}, "the last change was a moment ago"),
    ],
    ids=["freshly started", "dwell"],
)
def test_giving_waits_as_an_upgrade_does(change, because):
    seen = pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35))
    late = tuple(replace(m, memory=replace(m.memory, last_change_at=NOW - 5)) for m in seen.models)
    seen = replace(seen, models=late) if "now" in change else replace(seen, **change)
    decision = decide_pool(seen, DEMO_SETTINGS)
    assert decision.decisions[1].replicas == {"full": 1, "int8": 0, "int4": 1}, because


def test_giving_needs_plans_in_agreement():
    seen = pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35))
    first = decide_pool(seen, DEMO_SETTINGS).decisions[1]
    assert (first.reason, first.memory.agreed_count) == (Reason.HELD_FOR_AGREEMENT, 1)
    assert "others refuse requests for want of what int8 1 · int4 1 would leave them" in first.message
    later = replace(seen, now=NOW + 5, models=(seen.models[0], replace(seen.models[1], memory=first.memory)))
    assert decide_pool(later, DEMO_SETTINGS).decisions[1].reason is Reason.GAVE_TO_OTHERS


@pytest.mark.parametrize(
    ("before", "told"),
    [
        pytest.param(None, Reason.STEADY, id="no history"),
        pytest.param(0.9, Reason.STEADY, id="the last ten minutes were carried: it may be chance"),
        pytest.param(1.25, Reason.HELD_FOR_AGREEMENT, id="the last ten minutes were not carried either"),
    ],
)
def test_a_lack_that_may_be_chance_takes_from_others_only_if_it_has_lasted(before, told):
    """Nothing is free, so `busy` says that it is steady: 1.25/s pass the 1.17/s of its mix by less than chance."""
    seen = pool(5, busy=(BUSY, 1.25), calm=(CALM, 0.35))
    if before is not None:
        past = Series((before,) * 40, 15.0, NOW)
        busy = replace(seen.models[0], metrics=replace(seen.models[0].metrics, history=past))
        seen = replace(seen, models=(busy, seen.models[1]))
    decisions = decide_pool(seen, DEMO_SETTINGS).decisions
    assert [d.reason for d in decisions] == [Reason.STEADY, told]


def test_what_a_model_would_give_back_for_its_price_goes_to_one_that_uses_it():
    """Two accelerators for full add more quality to `thrifty` than to `plain`, but less than they are to be worth."""
    rates = {"full": 16_000, "int4": 13_000}
    cards = {i: {**tier(i)["card"], "capacityMilliRequestsPerSecond": rates[tier(i)["name"]]} for i in (0, 2)}
    tiers, scaling = [tier(i, card=card) for i, card in cards.items()], demo_spec().scaling.model_dump(by_alias=True)
    shrink = {"worthPerQualityPointMilli": 50, "pricePerAcceleratorHourMilli": 20_000}  # full from 10.1/s on
    thrifty = demo_spec(accelerators={}, tiers=tiers, scaling={**scaling, "idleShrink": shrink})
    plain = demo_spec(accelerators={}, tiers=tiers)
    models = [Model("thrifty", thrifty, lambda now: 8.0), Model("plain", plain, lambda now: 20.0)]
    plant = Plant(models, budget=6)
    plant.run(400)
    assert [model.mix() for model in plant.models] == [{"int4": 1}, {"full": 2, "int4": 1}]


@pytest.mark.slow
def test_square_waves_in_antiphase_do_not_flap():
    """Giving and taking back are both damped: no mix lives shorter than the dwell between two equal ones."""
    own = spec(scaling={**demo_spec().scaling.model_dump(by_alias=True, exclude_none=True), "dwellSeconds": 120})
    loads = [lambda now: 0.3 if int(now // 240) % 2 else 2.0, lambda now: 2.0 if int(now // 240) % 2 else 0.3]
    plant = Plant([Model(f"m{i}", own, load) for i, load in enumerate(loads)], budget=6)
    plant.run(1440)  # three times there and back
    for model in plant.models:
        mixes = [(at, dict(d.replicas)) for at, d in model.decisions]
        changes = [mixes[0], *(new for old, new in itertools.pairwise(mixes) if old[1] != new[1])]
        for (_, a), (began, b), (ended, c) in zip(changes, changes[1:], changes[2:], strict=False):
            assert a != c or a == b or ended - began >= 120


def test_the_prices_of_a_full_pool_and_its_tiers_are_told_and_are_nothing_when_all_is_well():
    def price_of(decision, model):
        return next(d.tier_prices for d in decision.decisions if d.key == f"demo/{model}")

    scarce = decide_pool(pool(5, busy=(BUSY, 2.5), calm=(CALM, 0.35)), DEMO_SETTINGS)
    assert scarce.planned
    assert scarce.prices[GPU] > 1
    assert price_of(scarce, "busy")["int8"] > price_of(scarce, "calm")["int8"]
    idle = decide_pool(pool(8, a=(CALM, 0.0), b=(CALM, 0.0)), DEMO_SETTINGS)
    assert (idle.planned, idle.prices) == (False, {})  # nobody lacks anything: there is no plan to have prices
    assert set(price_of(idle, "a").values()) == {0.0}


def test_a_solver_that_failed_leaves_the_pool_shared_by_need_and_later_to_a_greedy_choice_and_is_told():
    seen = pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35))
    by_need = decide_pool(replace(seen, planning=Planning.BY_NEED), DEMO_SETTINGS, never)
    assert not by_need.planned
    greedy = decide_pool(replace(seen, planning=Planning.GREEDY), DEMO_SETTINGS, never)
    assert greedy.unsolved
    for decision, how in ((by_need, "what is free is shared by need"), (greedy, "a greedy choice stands in")):
        told = [[f.message for f in d.findings if f.reason is Reason.POOL_NOT_SOLVED] for d in decision.decisions]
        assert [len(messages) for messages in told] == [1, 1], "each model of the pool says so, once"
        assert how in told[0][0]


def doubts(seen: PoolObservation) -> list[int]:
    decisions = decide_pool(seen, DEMO_SETTINGS, never).decisions
    return [sum(f.reason is Reason.POOL_NOT_SOLVED for f in d.findings) for d in decisions]


def test_the_greedy_choice_is_told_for_as_long_as_it_stands_in_also_while_nothing_has_to_be_chosen():
    """It was for one pass: in the next, the swap that it began left nothing to plan."""
    satisfied = pool(8, a=(CALM, 0.0), b=(CALM, 0.0))
    assert doubts(satisfied) == [0, 0]
    assert doubts(replace(satisfied, planning=Planning.GREEDY)) == [1, 1]
    assert doubts(replace(pool(8, a=(CALM, 0.0)), planning=Planning.GREEDY)) == [0], "a model alone needs no program"


def test_a_plan_far_from_its_bound_is_told_and_counts():
    def cut_off(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        return replace(solve(problem, changed), gap=0.5)

    decision = decide_pool(pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35)), DEMO_SETTINGS, cut_off)
    assert decision.unsolved
    assert any("the solver stopped early" in f.message for d in decision.decisions for f in d.findings)


def test_trust_ends_at_three_per_cent_of_the_demand():
    problem = Problem((), ())
    plan = solve(problem)
    assert Planned(problem, replace(plan, gap=0.03), {}).is_trusted
    assert not Planned(problem, replace(plan, gap=0.031), {}).is_trusted


def test_a_planned_decision_is_the_same_again_from_its_record():
    seen = pool(5, busy=(BUSY, 2.5), calm=(CALM, 0.35))
    history = Series((*[None] * 5, *[0.5] * 34, 2.5), 15.0, NOW)
    models = tuple(replace(m, metrics=replace(m.metrics, history=history)) for m in seen.models)
    seen = replace(seen, models=models, prices={GPU: 0.4})
    decided = decide_pool(seen, DEMO_SETTINGS)
    record = decode_record(encode_record(build_record(seen, DEMO_SETTINGS, decided.decisions)))
    assert record.observation.prices == {GPU: 0.4}
    assert decide_pool(record.observation, record.settings) == decided


@pytest.mark.parametrize(
    ("season", "expected"),
    [
        pytest.param(None, 0.575, id="no season: the peak and headroom"),
        pytest.param((0.5, 2.0), 2.0, id="two days rose now"),
        pytest.param((0.5, 0.5), 0.575, id="two days stayed as they were"),
        pytest.param((1.0, 4.0), 2.0, id="two days had twice as much"),
        pytest.param((None, 2.0), 0.575, id="nobody knows what today compares with"),
    ],
)
def test_demand_is_planned_for_as_it_was_at_this_time_of_two_days(season, expected):
    model = pool(5, busy=(BUSY, 0.5)).models[0]
    metrics = replace(model.metrics, history=Series((0.5,) * 40, 15.0, NOW))
    if season is not None:
        before, after = season
        # Bins of a minute; the next one begins within the load time of 20 s and a period.
        end = math.ceil(NOW / 60.0) * 60.0
        periods = ((*[before] * 11, after),) * 2
        metrics = replace(metrics, season=Season(periods, 86_400.0, 60.0, end + 60.0))
    situation = build_situation(replace(model, metrics=metrics), NOW, 0.0, 5, DEMO_SETTINGS)

    assert planned_demand(situation) == pytest.approx(expected)


def test_what_is_expected_raises_the_demand_that_is_planned_for():
    quiet = pool(5, busy=(BUSY, 0.5), calm=(CALM, 0.35))
    rising = Series((*[0.5] * 38, 0.5, 3.0), 15.0, NOW)
    busy = replace(quiet.models[0], metrics=replace(quiet.models[0].metrics, history=rising))
    assert decide_pool(replace(quiet, models=(busy, quiet.models[1])), DEMO_SETTINGS).planned


def test_a_model_that_the_plan_offered_what_is_free_may_agree_on_it_though_the_next_plan_offers_it_to_another():
    """Both plans are worth the same, so the solver finds now this one, now that one; neither is carried out at once."""
    own = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[tier(0), tier(2)])
    four = tier(2, replica={"accelerators": 4, "cpu": "250m", "memory": "1Gi"})
    wide = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[four])
    equals = [observe_one(own, {"int4": 1}, metrics(0.35), name=name) for name in ("a", "b")]
    # It is carried, but not with headroom, so that a plan is worth following; what is free is too little for it.
    seen = [*equals, observe_one(wide, {"int4": 1}, metrics(0.55), name="wide")]
    turns = itertools.cycle(("demo/a", "demo/b"))
    restored: list[str] = []
    for passed in range(4):
        chosen = next(turns)

        def offer(problem: Problem, changed: Collection[str] | None, chosen: str = chosen) -> PoolPlan:
            assert [column.tier for column in problem.models[0].columns] == ["full", "int4"]
            counts = {"demo/a": (0, 1), "demo/b": (0, 1), "demo/wide": (2,), chosen: (1, 1)}
            return replace(solve(Problem((), ())), counts=counts, prices={GPU: 0.1})

        now = NOW + 5 * passed
        decision = decide_pool(PoolObservation(now, GPU, 8, 1, 0.0, tuple(seen)), DEMO_SETTINGS, offer)
        assert decision.followed
        restored += [d.key for d in decision.decisions if d.reason is Reason.RESTORED_TIER]
        seen = [replace(m, memory=d.memory) for m, d in zip(seen, decision.decisions, strict=True)]
        if restored:
            break
    assert restored == ["demo/a"]


def test_a_model_that_agrees_on_a_smaller_mix_of_its_own_goes_on_though_more_is_free():
    """Offered what is free, it looked at a mix that is no better by a whole permille, and forgot the smaller one."""
    four = tier(0, replica={"accelerators": 4, "cpu": "500m", "memory": "2Gi"})
    almost = tier(1, card={**tier(1)["card"], "qualityPermille": 999})
    own = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[four, almost])
    wide = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[tier(1, replica=four["replica"])])
    # `wide` is carried, but not with headroom, so that a plan is worth following; what is free is too little for it.
    seen = [
        observe_one(own, {"int8": 3}, metrics(0.95), name="own"),
        observe_one(wide, {"int8": 1}, metrics(0.55), name="wide"),
    ]

    def offer(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        counts = {"demo/own": (0, 2), "demo/wide": (2,)}
        return replace(solve(Problem((), ())), counts=counts, prices={GPU: 0.1})

    told: list[Reason] = []
    for passed in range(2):
        decision = decide_pool(PoolObservation(NOW + 5 * passed, GPU, 10, 1, 0.0, tuple(seen)), DEMO_SETTINGS, offer)
        assert decision.followed
        told.append(decision.decisions[0].reason)
        seen = [replace(m, memory=d.memory) for m, d in zip(seen, decision.decisions, strict=True)]
    assert told == [Reason.HELD_FOR_AGREEMENT, Reason.REMOVED_REPLICA]


def test_a_model_goes_on_with_what_it_agreed_on_though_the_next_plan_offers_it_more():
    """With as much as that it would begin anew, and with less again after it: nobody would come to three in a row."""
    common = {"accelerators": {}, "quality": {"floorPermille": 750}, "scaling": {**SCALING, "plansInAgreement": 3}}
    own = demo_spec(tiers=[tier(0), tier(2)], **common)
    wide = demo_spec(tiers=[tier(1, replica={"accelerators": 6, "cpu": "250m", "memory": "1Gi"})], **common)
    # `wide` is carried, but not with headroom, so that a plan is worth following; what is free is too little for it.
    seen = [
        observe_one(own, {"full": 1, "int4": 2}, metrics(1.8), name="own"),
        observe_one(wide, {"int8": 1}, metrics(0.55), name="wide"),
    ]
    told: list[tuple[Reason, str | None]] = []
    for passed, offered in enumerate([(2, 2), (3, 1), (2, 2)]):

        def offer(problem: Problem, changed: Collection[str] | None, own: tuple[int, ...] = offered) -> PoolPlan:
            counts = {"demo/own": own, "demo/wide": (2,)}
            return replace(solve(Problem((), ())), counts=counts, prices={GPU: 0.1})

        decision = decide_pool(PoolObservation(NOW + 5 * passed, GPU, 16, 1, 0.0, tuple(seen)), DEMO_SETTINGS, offer)
        assert decision.followed
        told.append((decision.decisions[0].reason, decision.decisions[0].memory.agreed_plan))
        seen = [replace(m, memory=d.memory) for m, d in zip(seen, decision.decisions, strict=True)]
    assert told == [(Reason.HELD_FOR_AGREEMENT, "full=2,int4=2")] * 2 + [(Reason.RESTORED_TIER, None)]


def free_beside(capacity: int, load: float) -> PoolObservation:
    """Two accelerators are free, and `a` would gain 0.1/s with them; `wide` makes that much or little of the demand."""
    own = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[tier(0), tier(2)])
    card = {**tier(2)["card"], "capacityMilliRequestsPerSecond": capacity}
    four = tier(2, replica={"accelerators": 4, "cpu": "250m", "memory": "1Gi"}, card=card)
    wide = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[four])
    # `wide` is carried, but not with headroom, so that a plan is worth following; what is free is too little for it.
    seen = [
        *(observe_one(own, {"int4": 1}, metrics(0.35), name=name) for name in ("a", "b")),
        observe_one(wide, {"int4": 1}, metrics(load), name="wide"),
    ]
    return PoolObservation(NOW, GPU, 8, 1, 0.0, tuple(seen))


def offer_to_first(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
    """What is free goes to `a`."""
    counts = {"demo/a": (1, 1), "demo/b": (0, 1), "demo/wide": (2,)}
    return replace(solve(Problem((), ())), counts=counts, prices={GPU: 0.1})


@pytest.mark.parametrize(
    ("capacity", "load", "left_free", "told"),
    [
        pytest.param(650, 0.55, False, Reason.HELD_FOR_AGREEMENT, id="0.1/s more at full quality are worth it"),
        pytest.param(650, 0.55, True, Reason.HELD_FOR_AGREEMENT, id="also where the last plan left it free"),
        pytest.param(
            100_000, 85.0, False, Reason.STEADY, id="the same is less than a thousandth of what these are asked for"
        ),
        pytest.param(65_000, 55.0, False, Reason.HELD_FOR_AGREEMENT, id="it is a little more than a thousandth"),
        pytest.param(65_000, 55.0, True, Reason.STEADY, id="but not enough after a plan that left it free"),
    ],
)
def test_what_is_free_is_offered_only_where_that_gains_more_than_the_plan_may_miss(capacity, load, left_free, told):
    seen = free_beside(capacity, load)
    decision = decide_pool(replace(seen, left_free=left_free), DEMO_SETTINGS, offer_to_first)
    assert decision.followed
    assert decision.left_free is (told is Reason.STEADY)
    assert [d.reason for d in decision.decisions] == [told, Reason.STEADY, Reason.STEADY]
    assert ("What runs is kept" in decision.decisions[0].pool) is (told is Reason.STEADY)


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        pytest.param(13, Reason.HELD_FOR_AGREEMENT, id="nothing is free: a replica has to drain before others start"),
        pytest.param(15, Reason.STEADY, id="what is free has room for a replica more"),
    ],
)
def test_replicas_are_exchanged_in_time_only_where_what_is_free_has_no_room_for_more(budget, told):
    own = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[tier(0), tier(2)])
    four = tier(2, replica={"accelerators": 4, "cpu": "250m", "memory": "1Gi"})
    wide = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[four])
    # `wide` is carried, but not with headroom, so that a plan is worth following; what is free is too little for it.
    seen = (
        observe_one(own, {"full": 4, "int4": 1}, metrics(2.9), name="own"),
        observe_one(wide, {"int4": 1}, metrics(0.55), name="wide"),
    )

    def offer(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        counts = {"demo/own": (4, 1), "demo/wide": (2,)}
        return replace(solve(Problem((), ())), counts=counts, prices={GPU: 0.1})

    decision = decide_pool(PoolObservation(NOW, GPU, budget, 1, 0.0, seen), DEMO_SETTINGS, offer)
    assert decision.followed
    assert decision.decisions[0].reason is told


def test_what_runs_is_kept_in_the_passes_too_in_which_the_plan_is_not_worth_following():
    """By need each model asked for what is free in such a pass, and forgot it in the next one that was followed."""
    own = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[tier(0), tier(2)])
    card = {**tier(2)["card"], "capacityMilliRequestsPerSecond": 100_000}
    four = tier(2, replica={"accelerators": 4, "cpu": "250m", "memory": "1Gi"}, card=card)
    wide = demo_spec(accelerators={}, quality={"floorPermille": 750}, tiers=[four])
    seen = (
        *(observe_one(own, {"int4": 1}, metrics(0.35), name=name) for name in ("a", "b")),
        observe_one(wide, {"int4": 1}, metrics(80.0), name="wide"),  # carried, but not with headroom
    )

    def offer(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        counts = {"demo/a": (1, 1), "demo/b": (0, 1), "demo/wide": (1,)}
        return replace(solve(Problem((), ())), counts=counts, prices={GPU: 0.1})

    decision = decide_pool(PoolObservation(NOW, GPU, 8, 1, 0.0, seen), DEMO_SETTINGS, offer)
    assert not decision.followed
    assert [d.reason for d in decision.decisions] == [Reason.STEADY] * 3
    assert "What runs is kept" in decision.decisions[0].pool


def test_plans_may_agree_on_having_nothing_at_all():
    model = pool(5, busy=(BUSY, 1.6)).models[0]
    model = replace(model, memory=replace(model.memory, agreed_plan="", agreed_count=1, agreed_at=NOW - 5))
    situation = build_situation(model, NOW, 0.0, 5, DEMO_SETTINGS)
    assert (situation.memory.agreed_count, situation.memory.agreed_at) == (1, NOW - 5)


@pytest.mark.parametrize("free", [2, 3, 4])
def test_what_is_left_free_is_told_as_there_for_nobody_however_much_it_is(free):
    """As it moved, all models of a pool were told in one pass that others hold the rest, and not in the next."""
    scene = replace(free_beside(100_000, 85.0), budget=6 + free)
    decision = decide_pool(scene, DEMO_SETTINGS, offer_to_first)
    assert decision.left_free
    told = [[finding.reason for finding in d.findings] for d in decision.decisions]
    assert told[:2] == [[Reason.BUDGET_SHARED]] * 2
