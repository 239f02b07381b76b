"""Shadow prices of tiers: by hand, against the solver's duals, and in decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.fill import fill
from adaptive_operator.decide.optimize.milp import route
from adaptive_operator.decide.optimize.problem import (
    Column,
    PlannedModel,
    PlannedTier,
    Problem,
    RequestClass,
    Route,
)
from adaptive_operator.decide.tier_prices import shadow_prices
from stand_ins.plant import decide_one, demo_spec, metrics, observe_one, tier

QUALITIES = {"full": 1000.0, "int8": 950.0, "int4": 780.0}


def prices(demand, floor=0.0, **rates):
    qualities = [QUALITIES[name] for name in rates]
    return shadow_prices(demand, rates, lambda changed: fill(demand, list(changed.values()), qualities, floor))


@pytest.mark.parametrize(
    ("demand", "rates", "expected"),
    [
        pytest.param(0.0, {"full": 0.72, "int4": 0.6}, {"full": 0, "int4": 0}, id="nothing comes"),
        pytest.param(0.7, {"full": 0.72, "int4": 0.6}, {"full": 0, "int4": 0}, id="full carries it"),
        pytest.param(1.0, {"full": 0.72, "int4": 0.6}, {"full": 0.22, "int4": 0}, id="full takes from int4"),
        pytest.param(
            1.5, {"full": 0.72, "int8": 0.6, "int4": 0.6}, {"full": 0.22, "int8": 0.17, "int4": 0}, id="three tiers"
        ),
        pytest.param(
            2.0, {"full": 0.72, "int4": 0.6}, {"full": 11.0, "int4": 10.78}, id="what is not served is worth the most"
        ),
        pytest.param(1.0, {"full": 0.0, "int4": 1.2}, {"full": 0.22, "int4": 0}, id="the first replica of full"),
    ],
)
def test_prices_by_hand(demand, rates, expected):
    assert prices(demand, **rates) == pytest.approx(expected, abs=1e-3)


@given(st.floats(0.1, 5.0), *[st.floats(0.05, 2.0)] * 3, st.sampled_from([0.0, 700.0, 900.0, 980.0]))
def test_prices_are_the_duals_of_the_program_with_these_replicas(demand, full, int8, int4, floor):
    rates = {"full": full, "int8": int8, "int4": int4}
    model = PlannedModel(
        "demo/a",
        tuple(PlannedTier(name) for name in rates),
        tuple(Column(name, "gpu", 1, rate, 60.0) for name, rate in rates.items()),
        tuple(Route(name, ((name, 1.0),)) for name in rates),
        (RequestClass("all", demand, tuple(QUALITIES[name] / 1000 for name in rates)),),
        floor=floor / 1000,
    )
    duals = {name: route(Problem((model,), ()), {"demo/a": (1, 1, 1)}).tier_prices["demo/a", name] for name in rates}
    ours, more = (prices(demand * (1 + part), floor=floor, **rates) for part in (0.0, 1e-3))
    less = prices(demand * (1 - 1e-3), floor=floor, **rates)
    for name in rates:  # at a kink of the fill any value between both sides is a dual
        low, high = sorted((less[name], more[name]))
        assert min(low, ours[name]) - 2e-3 <= duals[name] <= max(high, ours[name]) + 2e-3


def test_a_decision_names_the_prices_of_scarce_tiers_and_none_when_idle():
    mix = {"full": 1, "int8": 0, "int4": 1}
    busy, idle = (decide_one(observe_one(demo_spec(), mix, metrics(rate))) for rate in (1.0, 0.1))
    assert busy.tier_prices["full"] == pytest.approx(0.22, abs=1e-3)
    assert busy.tier_prices["int4"] == 0.0
    assert set(idle.tier_prices.values()) == {0.0}


def test_a_tier_without_a_card_has_no_price():
    spec = demo_spec(tiers=[tier(0), {k: v for k, v in tier(1).items() if k != "card"}, tier(2)])
    decision = decide_one(observe_one(spec, {"full": 1, "int8": 0, "int4": 1}, metrics(1.0)))
    assert set(decision.tier_prices) == {"full", "int4"}


def test_the_price_of_a_nested_tier_is_what_its_levels_cost_each_other():
    """Between 4/s at int8 and 6/s at int4, a reference request more lets others go back to int8."""
    nested = tier(
        1,
        name="nested",
        recipe={"nested": {"levels": ["int8", "int4"]}},
        card={
            "qualityPermille": 998,
            "capacityMilliRequestsPerSecond": 2000,
            "levels": [{"name": "int4", "qualityPermille": 780, "capacityMilliRequestsPerSecond": 3000}],
        },
    )
    decision = decide_one(observe_one(demo_spec(tiers=[nested]), {"nested": 2}, metrics(4.5)))
    assert decision.tier_prices["nested"] == pytest.approx((0.998 - 0.78) / (1 - 2 / 3), abs=1e-3)
