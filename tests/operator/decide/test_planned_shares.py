"""An AcceleratorPool that the plan divides: weights in the program, surge and budget kept, and what is told of it."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace

import pytest

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve
from adaptive_operator.decide.planned_shares import find_weights
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.observe.observation import Planning, PoolObservation, PoolShare
from adaptive_operator.reasons import Reason, ShareReason
from adaptive_operator.record import build_record, decode_record, encode_record
from stand_ins.plant import DEMO_SETTINGS, Model, Plant, demo_spec, metrics, observe_one, tier
from tests.operator.decide.test_by_plan import BUSY, CALM, GPU, NOW, pool, spec

PLANNED, WEIGHTED = PoolDivision.PLANNED, PoolDivision.WEIGHTED
ONE_TIER = [tier(1, card={"qualityPermille": 998, "capacityMilliRequestsPerSecond": 1000, "loadSeconds": 20})]


def planned(seen: PoolObservation, *shares: PoolShare, surge: int = 0) -> PoolObservation:
    """The same models in an AcceleratorPool that the plan divides."""
    models = tuple(replace(model, pool="gpu") for model in seen.models)
    return replace(seen, models=models, name="gpu", division=PLANNED, shares=shares, surge=surge)


def run_two(division: PoolDivision, *shares: PoolShare, budget: int = 6) -> tuple[Model, Model]:
    """A calm model came first and holds its best tier; a busy one is refused requests while it does."""
    calm = Model("calm", spec(), lambda now: 0.35)
    busy = Model("busy", spec(), lambda now: 0.3 if now < NOW + 200 else 2.2)
    plant = Plant([calm], budget=budget, pool="gpu", division=division, shares=shares)
    plant.run(60)
    assert calm.mix() == CALM
    plant.models.insert(0, busy)
    plant.run(600)
    return calm, busy


@pytest.mark.parametrize(
    ("division", "got"),
    [
        pytest.param(WEIGHTED, [3, 3], id="by weight: to each his fair share"),
        pytest.param(PLANNED, [2, 4], id="by plan: to where requests would be refused"),
    ],
)
def test_accelerators_that_only_quality_depends_on_go_to_a_model_that_refuses_requests(division, got):
    calm, busy = run_two(division)
    assert [sum(t.replica.accelerators * m.mix().get(t.name, 0) for t in m.spec.tiers) for m in (calm, busy)] == got
    assert (Reason.GAVE_TO_OTHERS in [d.reason for _, d in calm.decisions]) is (division is PLANNED)


def test_of_two_equal_models_the_one_that_counts_more_serves_its_requests_while_the_other_lacks():
    def load(now: float) -> float:
        return 0.3 if now < NOW + 100 else 5.0

    def run(*shares: PoolShare) -> list[int]:
        own = demo_spec(tiers=ONE_TIER, accelerators={})
        found = [Model(name, own, load) for name in "ab"]
        Plant(found, budget=8, pool="gpu", division=PLANNED, shares=shares).run(400)
        return [sum(model.mix().values()) for model in found]

    assert run() == [4, 4]
    assert run(PoolShare("demo", "b", weight=3)) == [1, 7], "0.9/s a replica: b needs six for 5/s, with headroom seven"


def test_quality_is_given_for_requests_of_a_model_that_counts_as_much_and_not_where_the_own_quality_counts_far_more():
    """Full is worth 22 points more: times a thousand, that is more than ten for each request that is refused."""
    own = demo_spec(accelerators={}, tiers=[tier(0), tier(2)])
    models = [
        observe_one(own, {"int4": 2}, metrics(1.6), name="busy"),
        observe_one(own, {"full": 1, "int4": 1}, metrics(0.35), name="calm"),
    ]
    seen, told = PoolObservation(NOW, GPU, 5, 1, 0.0, tuple(models)), {}
    for weight in (1, 1000):
        decision = decide_pool(planned(seen, PoolShare("demo", "calm", weight=weight)), DEMO_SETTINGS)
        told[weight] = decision.decisions[1]
    assert "others refuse requests for want of" in told[1].message
    assert "others refuse requests for want of" not in told[1000].message


def run_late(*shares: PoolShare, surge: int = 0) -> list[Model]:
    """`first` has what carries its load when that of `late` rises: all but one accelerator."""
    own = demo_spec(tiers=ONE_TIER, accelerators={})
    first = Model("first", own, lambda now: 0.3 if now < NOW + 50 else 5.0)
    late = Model("late", own, lambda now: 0.3 if now < NOW + 150 else 5.0)
    plant = Plant([first, late], budget=8, pool="gpu", division=PLANNED, shares=shares, surge=surge)
    plant.run(150)
    assert [sum(model.mix().values()) for model in plant.models] == [7, 1]
    plant.run(150)
    return [first, late]


@pytest.mark.parametrize("surge", [1, 4])
def test_who_only_gives_needs_no_surge(surge):
    """What is held already is not beyond the budget: giving was dropped where its replicas were more than the surge."""
    first, late = run_late(PoolShare("demo", "late", weight=3), surge=surge)
    assert [sum(model.mix().values()) for model in (first, late)] == [1, 7]


@pytest.mark.parametrize(
    ("shares", "got"),
    [
        pytest.param((), [7, 1], id="both count the same: what carries the own load stays"),
        pytest.param((PoolShare("demo", "first", weight=3),), [7, 1], id="the first counts more"),
        pytest.param((PoolShare("demo", "late", weight=3),), [1, 7], id="the late one counts more"),
    ],
)
def test_what_carries_the_own_load_goes_to_a_model_that_counts_more_and_to_no_other(shares, got):
    first, late = run_late(*shares)
    assert [sum(model.mix().values()) for model in (first, late)] == got
    gave = [d.message for _, d in first.decisions if d.reason is Reason.GAVE_TO_OTHERS]
    assert [message.startswith("others that count more would refuse requests: leaves them 6") for message in gave] == (
        [True] if got == [1, 7] else []
    )


def test_a_model_that_refuses_requests_itself_gives_to_one_that_counts_more():
    own = demo_spec(accelerators={})
    models = [Model(name, own, lambda now: 0.3 if now < NOW + 100 else 5.0) for name in "ab"]
    plant = Plant(models, budget=8, pool="gpu", division=PLANNED, shares=(PoolShare("demo", "b", weight=3),))
    plant.run(300)
    assert [sum(model.mix().values()) for model in models] == [1, 7]
    told = [d.reason for _, d in models[0].decisions]
    assert told.count(Reason.GAVE_TO_OTHERS) == 1
    assert Reason.HELD_FOR_AGREEMENT in told, "as careful as any other giving"


@pytest.mark.slow
def test_square_waves_in_antiphase_do_not_flap_though_one_of_them_counts_more():
    own = demo_spec(accelerators={}, scaling={**demo_spec().scaling.model_dump(by_alias=True), "dwellSeconds": 120})
    loads = [lambda now: 0.3 if int(now // 240) % 2 else 3.0, lambda now: 3.0 if int(now // 240) % 2 else 0.3]
    models = [Model(f"m{i}", own, load) for i, load in enumerate(loads)]
    plant = Plant(models, budget=6, pool="gpu", division=PLANNED, shares=(PoolShare("demo", "m1", weight=3),))
    plant.run(1440)  # three times there and back
    for model in models:
        mixes = [(at, dict(d.replicas)) for at, d in model.decisions]
        changes = [mixes[0], *(new for old, new in itertools.pairwise(mixes) if old[1] != new[1])]
        for (_, a), (began, b), (ended, c) in zip(changes, changes[1:], changes[2:], strict=False):
            assert a != c or a == b or ended - began >= 120


@pytest.mark.parametrize(("weight", "gives"), [(1, True), (20, False)])
def test_requests_that_a_giver_loses_meanwhile_are_weighed_against_the_others_as_both_count(weight, gives):
    """Without `full` the calm model refuses a third of its requests until another int4 has loaded."""
    own = demo_spec(accelerators={}, tiers=[tier(0), tier(2)])
    models = [
        observe_one(own, {"int4": 2}, metrics(1.6), name="busy"),
        observe_one(own, {"full": 1, "int4": 1}, metrics(0.9), name="calm"),
    ]
    seen = planned(PoolObservation(NOW, GPU, 5, 1, 0.0, tuple(models)), PoolShare("demo", "calm", weight=weight))
    decided = decide_pool(seen, DEMO_SETTINGS)
    assert decided.followed
    assert decided.plan is not None
    assert decided.plan.counts["demo/calm"] == {"int4": 2}, "the plan wants it in any case"
    assert ("others refuse requests for want of" in decided.decisions[1].message) is gives


def test_weights_count_for_each_model_of_a_namespace_and_reservations_for_nobody():
    seen = planned(pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35)), PoolShare("demo", "", 4, 3))
    assert find_weights(seen) == {"demo/busy": 3, "demo/calm": 3}
    without = replace(seen, shares=(PoolShare("demo", "", 0, 3),))
    decisions = [decide_pool(each, DEMO_SETTINGS).decisions for each in (seen, without)]
    assert [(d.replicas, d.accelerators_granted, d.part) for d in decisions[0]] == [
        (d.replicas, d.accelerators_granted, d.part) for d in decisions[1]
    ]


@pytest.mark.parametrize("weight", [1, 7])
def test_weights_that_are_all_the_same_decide_as_none_do(weight):
    seen = pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35))
    one, other = (
        decide_pool(each, DEMO_SETTINGS) for each in (seen, planned(seen, PoolShare("demo", "", weight=weight)))
    )
    assert [d.replicas for d in one.decisions] == [d.replicas for d in other.decisions]
    assert [d.reason for d in one.decisions] == [d.reason for d in other.decisions]
    assert one.plan is not None
    assert other.plan is not None
    assert one.plan.counts == other.plan.counts
    assert one.followed == other.followed


def test_the_program_has_the_weights_and_no_more_than_the_budget_of_the_pool():
    asked: list[Problem] = []

    def listen(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        asked.append(problem)
        return solve(problem, changed)

    decide_pool(
        planned(pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35)), PoolShare("demo", "busy", 0, 3), surge=2),
        DEMO_SETTINGS,
        listen,
    )
    [problem] = asked
    assert {model.key: model.weight for model in problem.models} == {"demo/busy": 3.0, "demo/calm": 1.0}
    assert [limit.accelerators for limit in problem.limits] == [5]


def test_each_decision_tells_its_part_with_the_plan_that_was_weighed():
    seen = planned(pool(5, busy=(BUSY, 2.5), calm=(CALM, 0.35)), PoolShare("demo", "busy", weight=3))
    busy, calm = decide_pool(seen, DEMO_SETTINGS).decisions
    assert busy.part is not None
    assert calm.part is not None
    assert (busy.part.granted, busy.part.reservation, busy.part.weight, busy.part.reason) == (
        2,
        0,
        3,
        ShareReason.PLANNED,
    )
    assert busy.part.message.startswith("2 accelerators (weight 3): wants more, and others have the rest: the pool's")
    assert (calm.part.weight, calm.part.reason) == (1, ShareReason.SATISFIED)
    assert busy.pool.endswith(
        "at full quality, where a refused request counts ten, and all counts times a model's weight, here 3"
    )
    assert "one more accelerator of the pool would be worth" in busy.pool
    shared = next(f.message for f in busy.findings if f.reason is Reason.BUDGET_SHARED)
    assert "demo/calm 3, demo/busy 2 (weight 3) of 5 nvidia.com/gpu in pool gpu" in shared


def test_where_no_plan_is_asked_a_decision_tells_its_part_only():
    seen = planned(pool(8, a=(CALM, 0.3), b=(CALM, 0.3)))
    assert {d.pool for d in decide_pool(seen, DEMO_SETTINGS).decisions} == {
        "3 accelerators (weight 1): has all that it wants"
    }


def test_what_is_told_of_a_part_does_not_move_with_the_load():
    """It stands in the pool's status, which is written when it changes."""
    parts = [
        [d.part for d in decide_pool(planned(pool(5, busy=(BUSY, rate), calm=(CALM, 0.35))), DEMO_SETTINGS).decisions]
        for rate in (2.5, 2.6)
    ]
    assert parts[0] == parts[1]


def test_a_model_that_does_not_act_keeps_what_it_has_and_a_dry_run_says_how_it_was_decided():
    seen = planned(pool(6, busy=(BUSY, 2.5), calm=(CALM, 0.35), third=({"int4": 1}, 0.3)))
    modes = (Mode.ACTIVE, Mode.PAUSED, Mode.DRY_RUN)
    models = tuple(
        replace(m, spec=m.spec.model_copy(update={"mode": mode})) for m, mode in zip(seen.models, modes, strict=True)
    )
    decisions = decide_pool(replace(seen, models=models), DEMO_SETTINGS).decisions
    assert [d.part.reason for d in decisions if d.part] == [
        ShareReason.PLANNED,
        ShareReason.UNMANAGED,
        ShareReason.UNMANAGED,
    ]
    assert decisions[1].pool == "3 accelerators (weight 1): keeps what it has, because its mode is not Active"
    assert "the pool's plan counts Active models only" in decisions[2].pool


def test_a_program_that_was_not_solved_is_told_by_each_model_of_the_pool():
    def never(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        raise AssertionError("no program has to be solved for this")

    seen = planned(pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35)), PoolShare("demo", "busy", weight=3))
    for planning in (Planning.BY_NEED, Planning.GREEDY):
        decision = decide_pool(replace(seen, planning=planning), DEMO_SETTINGS, never)
        told = [[f.reason for f in d.findings].count(Reason.POOL_NOT_SOLVED) for d in decision.decisions]
        assert told == [1, 1]


def test_a_pool_that_is_divided_by_weight_asks_no_program():
    def never(problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        raise AssertionError("shares divide it")

    seen = replace(planned(pool(5, busy=(BUSY, 2.5), calm=(CALM, 0.35))), division=WEIGHTED)
    decision = decide_pool(seen, DEMO_SETTINGS, never)
    assert (decision.planned, decision.prices, decision.plan) == (False, {}, None)
    assert ShareReason.PLANNED not in [d.part.reason for d in decision.decisions if d.part]


def test_another_division_of_the_same_shares_is_explained_anew():
    shares = (PoolShare("demo", "busy", weight=3),)
    seen = planned(pool(5, busy=(BUSY, 2.5), calm=(CALM, 0.35)), *shares)
    hashes = {
        decide_pool(each, DEMO_SETTINGS).decisions[0].shares
        for each in (seen, replace(seen, division=WEIGHTED), replace(seen, shares=()))
    }
    assert len(hashes) == 3


def test_a_decision_is_the_same_again_from_its_record():
    seen = planned(pool(5, busy=(BUSY, 2.5), calm=(CALM, 0.35)), PoolShare("demo", "busy", weight=3), surge=1)
    seen = replace(seen, prices={GPU: 0.4})
    decided = decide_pool(seen, DEMO_SETTINGS)
    record = decode_record(encode_record(build_record(seen, DEMO_SETTINGS, decided.decisions, decided.plan)))
    assert record.observation.division is PLANNED
    assert decide_pool(record.observation, record.settings) == decided


@pytest.mark.parametrize(("surge", "mix"), [(0, {"int8": 2}), (2, {"full": 1})], ids=["without", "with"])
def test_surge_lets_a_full_pool_swap_without_a_dip(surge, mix):
    """Two int8 use the budget up, and full needs both: without surge nothing would serve while it loads."""
    own = demo_spec(tiers=[tier(0), tier(1, replicas={"min": 0})], accelerators={}, routing={"warmTier": "int8"})
    model = Model("a", own, lambda now: 1.0 if now < NOW + 100 else 0.1)
    plant = Plant([model], budget=2, pool="gpu", surge=surge, division=PLANNED)
    plant.run(400)
    assert model.mix() == mix
    assert plant.held() == 2


def test_swaps_that_begin_in_one_pass_share_the_surge_the_first_by_name_has_it():
    own = demo_spec(tiers=[tier(0), tier(1, replicas={"min": 0})], accelerators={}, routing={"warmTier": "int8"})
    models = [Model(name, own, lambda now: 1.0 if now < NOW + 100 else 0.1) for name in "ab"]
    plant = Plant(models, budget=4, pool="gpu", surge=2, division=PLANNED)
    plant.run(100)
    assert [model.mix() for model in models] == [{"int8": 2}] * 2
    most = 0
    for _ in range(100):
        plant.run(plant.period)
        most = max(most, plant.held())
        assert sum(model.swap is not None for model in models) <= 1
    assert [model.mix() for model in models] == [{"full": 1}] * 2
    assert most == 6


def test_the_surge_is_for_swaps_and_never_for_growth():
    own = demo_spec(tiers=ONE_TIER, accelerators={})
    plant = Plant([Model(n, own, lambda now: 50.0) for n in "ab"], budget=4, pool="gpu", surge=3, division=PLANNED)
    for _ in range(60):
        plant.run(plant.period)
        assert plant.held() <= 4
