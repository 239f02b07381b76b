"""What carries a model's own load is given only to others that count more, and with the care of all giving."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.api.status import GainOf
from adaptive_operator.decide.situation import Situation, build_situation
from adaptive_operator.decide.yielding import yield_load
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SETTINGS, demo_spec, metrics, observe_one, tier

NOW = 10_000.0
ONE_TIER = [tier(1, card={"qualityPermille": 998, "capacityMilliRequestsPerSecond": 1000, "loadSeconds": 20})]
FEWER = {"int8": 2}  # of four: 1.8/s of the 3.0/s that come


def situation(acting_since: float = 0.0, age: float = 1.0, **memory: object) -> Situation:
    model = observe_one(demo_spec(tiers=ONE_TIER, accelerators={}), {"int8": 4}, metrics(3.0, age=age), name="light")
    model = replace(model, memory=replace(model.memory, **memory))
    return build_situation(model, NOW, acting_since, 8, DEMO_SETTINGS)


def test_plans_have_to_agree_before_it_is_given_and_what_is_lost_is_told_in_requests():
    first = yield_load(situation(), FEWER, 4, 2.0)
    assert first is not None
    assert first.reason is Reason.HELD_FOR_AGREEMENT
    assert first.replicas == {"int8": 4}
    assert "others that count more refuse requests for want of what int8 2 would leave them" in first.message
    again = yield_load(
        situation(agreed_plan=first.memory.agreed_plan, agreed_count=1, agreed_at=NOW - 5), FEWER, 4, 2.0
    )
    assert again is not None
    assert (again.reason, dict(again.replicas)) == (Reason.GAVE_TO_OTHERS, FEWER)
    assert again.message.startswith("others that count more would refuse requests: leaves them 2 accelerators")
    assert again.prediction is not None
    assert (again.prediction.gain_of, round(again.prediction.gain_permille)) == (GainOf.REQUESTS, -400)


@pytest.mark.parametrize(
    ("changes", "mix", "refused"),
    [
        pytest.param({}, FEWER, 1.2, id="as many are refused afterwards as are served"),
        pytest.param({}, {"int8": 4}, 2.0, id="the plan leaves it what it has"),
        pytest.param({}, {"int8": 5}, 2.0, id="the plan gives it more"),
        pytest.param({"last_change_at": NOW - 5}, FEWER, 2.0, id="the last change was a moment ago"),
        pytest.param({"acting_since": NOW - 5}, FEWER, 2.0, id="the operator has just started"),
        pytest.param({"age": 60.0}, FEWER, 2.0, id="the readings are old"),
    ],
)
def test_nothing_is_given(changes, mix, refused):
    assert yield_load(situation(**changes), mix, 4, refused) is None


def test_one_replica_stays_where_the_plan_leaves_none():
    """A model that has none is not planned any more: it would start up again on what it gave."""
    given = yield_load(situation(agreed_plan="int8=1", agreed_count=1, agreed_at=NOW - 5), {}, 4, 5.0)
    assert given is not None
    assert (given.reason, dict(given.replicas)) == (Reason.GAVE_TO_OTHERS, {"int8": 1})
