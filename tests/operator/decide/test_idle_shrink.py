"""Accelerators that are given back at the cost of quality: only where a model asks for it and a price is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from adaptive_operator.decide.situation import accelerator_price
from adaptive_operator.observe.observation import PolicyMemory
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SCALING, Model, Plant, decide_one, demo_spec, metrics, observe_one, tier

IDLE = {"full": 1, "int4": 1}
# A point for 1,000 requests is worth .05, an accelerator costs 1.00 an hour: 20 points for 1,000 requests an hour each.
SHRINK: dict[str, Any] = {"worthPerQualityPointMilli": 50, "pricePerAcceleratorHourMilli": 1000}


def spec_with(shrink: dict[str, Any] | None, **more: Any) -> Any:
    scaling = {**DEMO_SCALING, "plansInAgreement": 1} | ({"idleShrink": shrink} if shrink else {})
    return demo_spec(scaling=scaling, tiers=[tier(0), tier(2)], **more)


def decide(
    rate: float, shrink: dict[str, Any] | None, mix: dict[str, int] = IDLE, pool_price: int | None = None
) -> Any:
    model = observe_one(spec_with(shrink), mix, metrics(rate), pool_price_milli=pool_price)
    return decide_one(replace(model, memory=PolicyMemory(wanted=mix, generation=1)))


def test_a_price_in_permille_of_quality():
    asked = {"worthPerQualityPointMilli": 500, "pricePerAcceleratorHourMilli": 2500}
    model = observe_one(spec_with(asked), IDLE, metrics(0.0))
    assert accelerator_price(model) == pytest.approx(50 * 1000 / 3600)


# full's two accelerators cost 40 points for 1,000 requests an hour and add 22: worth it from 0.505 requests/s on
CASES = {
    "nothing comes: only the warm tier stays": (0.0, SHRINK, None, {"full": 0, "int4": 1}, Reason.REMOVED_REPLICA),
    "little comes: its quality is not worth two accelerators": (
        0.2,
        SHRINK,
        None,
        {"full": 0, "int4": 1},
        Reason.REMOVED_REPLICA,
    ),
    "the pool's price counts where the model names none": (
        0.2,
        {"worthPerQualityPointMilli": 50},
        1000,
        {"full": 0, "int4": 1},
        Reason.REMOVED_REPLICA,
    ),
    "without a price quality comes first": (0.2, {"worthPerQualityPointMilli": 50}, None, IDLE, Reason.STEADY),
    "without being asked, too, though the pool has a price": (0.2, None, 1000, IDLE, Reason.STEADY),
    "quality that is worth more stays": (
        0.2,
        {**SHRINK, "worthPerQualityPointMilli": 500},
        None,
        IDLE,
        Reason.STEADY,
    ),
    "quality that is worth nothing goes": (
        0.2,
        {**SHRINK, "worthPerQualityPointMilli": 0},
        None,
        {"full": 0, "int4": 1},
        Reason.REMOVED_REPLICA,
    ),
    "capacity is never given back for money": (1.0, SHRINK, None, IDLE, Reason.STEADY),
}


@pytest.mark.parametrize("name", CASES)
def test_accelerators_are_weighed_against_quality(name):
    rate, shrink, pool_price, expected, reason = CASES[name]
    decision = decide(rate, shrink, pool_price=pool_price)
    assert (dict(decision.replicas), decision.reason) == (expected, reason)


def test_it_is_said_what_was_given_up_for_what():
    message = decide(0.2, SHRINK).message
    assert "with 1 instead of 3 accelerators, at 780 instead of 1000 permille of quality" in message
    assert "(scaling.idleShrink)" in message


def test_a_floor_is_kept_whatever_accelerators_cost():
    spec = spec_with(
        {**SHRINK, "worthPerQualityPointMilli": 0}, quality={"floorPermille": 900}, routing={"warmTier": "int4"}
    )
    assert dict(decide_one(observe_one(spec, IDLE, metrics(0.2))).replicas) == IDLE


def test_quality_comes_back_with_the_load_and_noise_around_the_threshold_changes_nothing_again_and_again():
    rates = {0: 0.2, 1: 0.7, 2: 0.2}
    model = Model("assistant", spec_with(SHRINK), lambda now: rates[int((now - 10_000) // 400) % 3])
    plant = Plant([model])
    plant.run(1200)
    mixes = [{t: n for t, n in d.replicas.items() if n} for _, d in model.decisions]
    changes = [mix for i, mix in enumerate(mixes) if i == 0 or mixes[i - 1] != mix]
    assert changes == [IDLE, {"int4": 1}, IDLE, {"int4": 1}]
    noisy = Model("assistant", spec_with(SHRINK), lambda now: 0.505 * (1.04 if int(now) // 5 % 2 else 0.96))
    plant = Plant([noisy])
    plant.run(2400)
    mixes = [d.replicas for _, d in noisy.decisions]
    assert sum(before != after for before, after in pairwise(mixes)) <= 1
