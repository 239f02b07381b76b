"""What was told of a model at rest stands near a border; what lacks is told at once, and all is decided as ever."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pytest

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.api.status import AdaptiveModelStatus
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.observe.observation import PodPhase, PolicyMemory, PoolObservation, SwapRecord
from adaptive_operator.observe.remembered import recall_memory
from adaptive_operator.reasons import ConditionType, Reason, ShareReason
from stand_ins.plant import metrics, observe_one, tier
from tests.operator.decide.resting_pool import PERIOD, build_pool, tell
from tests.operator.decide.test_by_plan import GPU, NOW, spec
from tests.operator.decide.test_planned_shares import planned

SETTINGS: Final = DecideSettings()
ANEW: Final = replace(SETTINGS, standing_band=0.0)
MIX: Final = {"full": 1, "int4": 1}


def look(
    rate: float, status: AdaptiveModelStatus | None = None, mix: Mapping[str, int] = MIX, budget: int = 5
) -> PoolObservation:
    """A model that carries 1.31/s and would be served better with more from 0.98/s on, and one that has the rest."""
    a = observe_one(spec(), mix, metrics(rate), NOW, "a", status=status)
    b = observe_one(spec(), {"int8": 1, "int4": 1}, metrics(1.15), NOW, "b")
    return planned(PoolObservation(NOW, GPU, budget, 1, 0.0, (a, b)))


def decide(seen: PoolObservation, settings: DecideSettings = SETTINGS) -> Decision:
    return decide_pool(seen, settings).decisions[0]


def told(rate: float, mix: Mapping[str, int] = MIX, budget: int = 5) -> AdaptiveModelStatus:
    """The status after a first pass at this rate."""
    seen = look(rate, None, mix, budget)
    status = tell(seen.models[0], decide(seen), NOW)
    assert status is not None
    return status


def words(status: AdaptiveModelStatus | None) -> tuple[object, ...]:
    """What a status tells of the last decision and of the capacity."""
    assert status is not None
    return status.last_decision, *(c for c in status.conditions if c.type == ConditionType.CAPACITY_LIMITED)


def limit(decision: Decision) -> str:
    """What the condition tells of the capacity: that it lacks, that more is wished for, or nothing."""
    found = [finding.message for finding in decision.findings if finding.reason is Reason.BUDGET_SHARED]
    return "lacks" if any(text.startswith("demand passes capacity: ") for text in found) else "wishes" * bool(found)


@pytest.mark.parametrize(
    ("before", "rate", "expected", "anew"),
    [
        pytest.param(0.9, 1.5, "lacks", "lacks", id="a lack comes at once"),
        pytest.param(1.2, 1.5, "lacks", "lacks", id="also where it was told that more would serve better"),
        pytest.param(1.5, 1.4, "lacks", "wishes", id="and stands while it may be there again"),
        pytest.param(1.5, 1.2, "wishes", "wishes", id="not when the demand is clearly below"),
        pytest.param(0.9, 1.0, "wishes", "wishes", id="a wish comes at once, too"),
        pytest.param(1.0, 0.92, "wishes", "", id="and stands"),
        pytest.param(1.0, 0.85, "", "", id="and goes when nothing is wished for near the demand"),
    ],
)
def test_what_limits_a_model_comes_at_once_and_goes_when_it_has_clearly_gone(before, rate, expected, anew):
    seen = look(rate, told(before))
    decision = decide(seen)
    assert limit(decision) == expected
    assert limit(decide(seen, ANEW)) == anew
    assert decision.part is not None
    assert decision.part.reason is (ShareReason.PLANNED if expected else ShareReason.SATISFIED)


def test_what_stands_is_not_written_again_and_what_is_decided_is_the_same():
    status = told(1.5)
    assert status.last_decision is not None
    assert status.last_decision.reason == Reason.BUDGET_SHARED
    seen = look(1.4, status)
    again, anew = decide(seen), decide(seen, ANEW)
    assert (again.reason, anew.reason) == (Reason.BUDGET_SHARED, Reason.HELD_BY_SURVIVOR_CHECK)
    assert again.message == again.findings[0].message
    assert words(tell(seen.models[0], again, NOW + 15)) == words(status)
    assert words(tell(seen.models[0], anew, NOW + 15)) != words(status)
    for name in ("replicas", "weights", "memory", "swap", "accelerators_granted", "tier_prices"):
        assert getattr(again, name) == getattr(anew, name)


def test_what_was_told_of_another_mix_does_not_stand():
    status = told(0.95, mix={"int8": 1, "int4": 1})
    assert status.conditions
    assert limit(decide(look(0.95, status))) == limit(decide(look(0.95), ANEW)) == ""


def test_what_others_held_does_not_stand_when_they_hold_it_no_longer():
    seen = look(1.0, told(1.0))
    alone = replace(seen, models=(replace(seen.models[0], metrics=metrics(0.95)),))
    assert limit(decide(alone)) == ""


@pytest.mark.parametrize(
    ("swaps", "expected"),
    [
        pytest.param(True, "wishes", id="one is under way: it is free for a moment"),
        pytest.param(False, "", id="none is: it is free"),
    ],
)
def test_what_others_held_stands_while_replicas_are_exchanged(swaps, expected):
    """`a` has three accelerators and wished for five; `b`, which wants no more than one, now leaves it two."""
    seen = look(0.92, told(1.0), budget=6)
    b = observe_one(spec(tiers=[tier(2, replicas={"max": 1})]), {"int4": 1}, metrics(0.3), NOW, "b")
    if swaps:
        swap = SwapRecord("s1", Reason.REMOVED_REPLICA, {"int4": 2}, {"int4": 1}, "Starting", NOW - 5, NOW + 300, 1)
        b = replace(b, swap=swap, pods=(replace(b.pods[0], phase=PodPhase.STARTING, created_at=NOW - 5),))
    assert limit(decide(replace(seen, models=(seen.models[0], b)))) == expected


def test_what_others_held_does_not_stand_while_a_model_waits_for_something_within_what_is_free():
    """It would say at once that others hold the rest, and that it waits for its own dwell to take of it."""
    seen = look(0.92, told(1.0), budget=8)
    late = replace(seen.models[0], memory=replace(seen.models[0].memory, last_change_at=NOW - 3), metrics=metrics(1.0))
    swap = SwapRecord("s1", Reason.RESTORED_TIER, {"int4": 1}, {"int4": 1}, "Starting", NOW - 5, NOW + 300, 1)
    b = observe_one(spec(tiers=[tier(2, replicas={"max": 1})]), {"int4": 1}, metrics(0.3), NOW, "b", swap=swap)
    b = replace(b, pods=(replace(b.pods[0], phase=PodPhase.STARTING, created_at=NOW - 5),))
    decision = decide(replace(seen, models=(late, b)))
    assert (decision.reason, limit(decision)) == (Reason.HELD_BY_DWELL, "")


def test_a_floor_that_cannot_be_kept_is_told_at_once_whatever_was_told_before():
    own = spec(tiers=[tier(0), tier(2)])

    def look_at(rate: float, status: AdaptiveModelStatus | None = None) -> PoolObservation:
        a = observe_one(own, {"full": 1, "int4": 2}, metrics(rate), NOW, "a", status=status)
        b = observe_one(own, {"full": 1}, metrics(0.7), NOW, "b")
        return planned(PoolObservation(NOW, GPU, 6, 1, 0.0, (a, b)))

    status = tell(look_at(1.2).models[0], decide(look_at(1.2)), NOW)
    assert status is not None
    assert status.last_decision is not None
    assert status.last_decision.reason == Reason.STEADY
    assert decide(look_at(1.9, status)).reason is Reason.QUALITY_FLOOR_INFEASIBLE


@pytest.mark.parametrize(
    ("before", "rate", "expected"),
    [
        pytest.param(0.96, 1.0, Reason.STEADY, id="nothing better is known"),
        pytest.param(1.0, 0.96, Reason.HELD_BY_SURVIVOR_CHECK, id="something better waits"),
        pytest.param(1.0, 0.8, Reason.STEADY, id="clearly nothing"),
        pytest.param(0.8, 1.2, Reason.HELD_BY_SURVIVOR_CHECK, id="clearly something"),
    ],
)
def test_a_reason_for_doing_nothing_stands_while_it_is_true_near_the_demand(before, rate, expected):
    seen = look(rate, told(before))
    decision = decide(seen)
    assert decision.reason is expected
    assert decide(seen) == decision, "the same observation, the same decision"


def test_what_a_single_plan_sees_better_is_not_told_before_a_second_one_sees_it():
    own = spec()
    own = own.model_copy(update={"scaling": own.scaling.model_copy(update={"plans_in_agreement": 3})})

    def look_at(rate: float, status: AdaptiveModelStatus | None = None) -> PoolObservation:
        cheap = observe_one(own, {"int8": 3, "int4": 1}, metrics(rate), NOW, "a", status=status)
        return PoolObservation(NOW, GPU, 4, 1, 0.0, (cheap,))

    status = tell(look_at(1.8).models[0], decide(look_at(1.8)), NOW)
    first = decide(look_at(0.4, status))
    assert first.memory.agreed_count == 1
    assert decide(look_at(0.4)).reason is Reason.HELD_FOR_AGREEMENT, "of which nothing was told yet"
    assert status is not None
    assert status.last_decision is not None
    assert (first.reason, first.message) == (status.last_decision.reason, status.last_decision.message)
    after = tell(look_at(0.4, status).models[0], first, NOW + 5)
    assert recall_memory(after).agreed_count == 0, "the weights follow the load, and are all that is written"


def test_what_was_true_of_the_moment_does_not_stand_while_plans_only_begin_to_agree():
    """Plans that take turns begin to agree each time: `dwell` would be told for ever."""
    own = spec()
    own = own.model_copy(update={"scaling": own.scaling.model_copy(update={"plans_in_agreement": 3})})

    def look_at(now: float, changed: float, status: AdaptiveModelStatus | None = None) -> PoolObservation:
        memory = PolicyMemory(wanted={"int8": 3, "int4": 1}, generation=1, last_change_at=changed)
        cheap = observe_one(own, {"int8": 3, "int4": 1}, metrics(0.4), now, "a", status=status, memory=memory)
        return PoolObservation(now, GPU, 4, 1, 0.0, (cheap,))

    first = look_at(NOW, NOW - 5)
    status = tell(first.models[0], decide(first), NOW)
    assert decide(first).reason is Reason.HELD_BY_DWELL
    later = decide(look_at(NOW + 600, NOW - 5, status))
    assert (later.reason, later.memory.agreed_count) == (Reason.HELD_FOR_AGREEMENT, 1)


def pareto(models: int, seed: int) -> list[float]:
    """Loads (requests/s) of many small models and a few large ones."""
    dice = random.Random(seed)
    return [min(4.0, 0.3 * dice.paretovariate(1.2)) for _ in range(models)]


AT_REST = {
    # loads, noise, accelerators per model, how the pool is divided (None: the models name none)
    "16 models, by the plan, +-3 %": (pareto(16, 1), 0.03, 2.5, PoolDivision.PLANNED),
    "16 models, by the plan, +-5 %": (pareto(16, 4), 0.05, 2.5, PoolDivision.PLANNED),
    "6 large ones, by the plan": ([12.0, 18.0, 25.0, 8.0, 9.0, 30.0], 0.05, 22.0, PoolDivision.PLANNED),
    "16 models, by weight": (pareto(16, 5), 0.05, 2.8, PoolDivision.WEIGHTED),
    "16 models without a pool": (pareto(16, 6), 0.05, 2.8, None),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", AT_REST)
def test_at_rest_no_status_is_written_because_loads_move_by_a_few_per_cent(name):
    loads, noise, per_model, division = AT_REST[name]
    pool = build_pool(loads, noise, per_model, division=division)
    pool.run(20 * PERIOD)  # noise has shown what it has: what lacks at times is told
    pool.writes.clear()
    pool.moved = 0
    pool.run(1200)
    assert pool.moved == 0, "nothing is at rest here"
    assert sorted(pool.writes) == []
