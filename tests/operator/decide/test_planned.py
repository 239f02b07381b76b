"""Situations as a program of the pool, and its plan as proposals that the damping still governs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_operator.api.v1alpha1 import AdaptiveModelSpec
from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.optimize.milp import route
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve
from adaptive_operator.decide.planned import (
    build_problem,
    is_plannable,
    planned_demand,
    planned_mixes,
    propose_mix,
)
from adaptive_operator.decide.situation import Situation, as_mix, as_plan, build_situation, plan_space
from adaptive_operator.observe.observation import PoolObservation
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SCALING, DEMO_SETTINGS, Model, Plant, demo_spec, tier

GPU = "nvidia.com/gpu"


def plant_of(*loads: float, budget: int, seconds: float = 300.0, spec=None) -> Plant:
    """Models after so many seconds under these loads (requests/s)."""
    specs = spec or demo_spec(accelerators={"budget": budget})
    models = [Model(f"m{i}", specs, load=lambda _, rate=rate: rate) for i, rate in enumerate(loads)]
    plant = Plant(models, budget=budget)
    plant.run(seconds)
    return plant


def situations_of(*loads: float, budget: int = 4, seconds: float = 300.0, spec=None) -> list[Situation]:
    """Models that have run under these loads (requests/s) until nothing moves any more."""
    seen = plant_of(*loads, budget=budget, seconds=seconds, spec=spec).observe()
    return [build_situation(m, seen.now, seen.acting_since, seen.budget, DEMO_SETTINGS) for m in seen.models]


def under(situation: Situation, rate: float, peak: float | None = None) -> Situation:
    """The same situation under another demand (requests/s)."""
    demand = replace(situation.demand, rate=rate, arrivals=rate, lasting=rate, peak=max(rate, peak or rate), chance=0.0)
    return replace(situation, demand=demand)


def planned_mix(situation: Situation, problem: Problem, plan: PoolPlan) -> dict[str, int]:
    """What the plan wants of one of the models."""
    return planned_mixes([situation], problem, plan)[situation.model.key]


def test_a_situation_becomes_columns_with_derated_rates_and_what_is_wanted_as_present():
    [situation] = situations_of(0.5)
    [model] = build_problem([situation], GPU, 4, {}).models

    assert [(c.tier, c.accelerators, c.rate, c.load_seconds) for c in model.columns] == [
        ("full", 2, pytest.approx(0.72), 20.0),
        ("int8", 1, pytest.approx(0.585), 20.0),
        ("int4", 1, pytest.approx(0.585), 20.0),
    ]
    assert model.present == tuple(situation.wanted.values())
    assert (model.floor, model.most_accelerators) == (0.75, 4)
    assert [(t.name, t.low, t.high) for t in model.tiers] == [("full", 0, None), ("int8", 0, None), ("int4", 1, None)]
    assert model.classes[0].qualities == (1.0, 0.998, 0.78)
    assert model.classes[0].demand == pytest.approx(planned_demand(situation))


def test_the_demand_to_plan_for_is_the_hold_windows_peak_with_headroom():
    [situation] = situations_of(0.5)

    assert planned_demand(under(situation, 0.5, peak=1.0)) == pytest.approx(1.15)


def test_levels_of_a_nested_tier_are_routes_that_take_less_of_its_rate():
    card = {
        "loadSeconds": 20,
        "levels": [
            {"name": "int8", "qualityPermille": 998, "capacityMilliRequestsPerSecond": 600},
            {"name": "int4", "qualityPermille": 900, "capacityMilliRequestsPerSecond": 800},
        ],
    }
    nested = tier(1, name="nested", recipe={"nested": {"levels": ["int8", "int4"]}}, card=card)
    [situation] = situations_of(0.4, spec=demo_spec(tiers=[nested]))
    [model] = build_problem([situation], GPU, 4, {}).models

    assert [r.name for r in model.routes] == ["nested/int8", "nested/int4"]
    assert [r.loads[0] for r in model.routes] == [("nested", 1.0), ("nested", pytest.approx(0.75))]


# A point for 1,000 requests is worth .05, an accelerator costs 1.00 an hour: full's two are worth it from .505/s on.
SHRINK = {"worthPerQualityPointMilli": 50, "pricePerAcceleratorHourMilli": 1000}


def priced_spec(**shrink: int) -> AdaptiveModelSpec:
    """A model on full and int4 that weighs quality against money."""
    scaling = {**DEMO_SCALING, "idleShrink": {**SHRINK, **shrink}}
    return demo_spec(scaling=scaling, tiers=[tier(0), tier(2)], accelerators={})


def priced(rate: float, **shrink: int) -> Situation:
    """The priced model under a demand (requests/s)."""
    return under(situations_of(0.1, budget=20, spec=priced_spec(**shrink))[0], rate)


WORTH = {
    "nothing comes": (0.0, {}, {"full": 0, "int4": 1}),
    "too little comes for full": (0.4, {}, {"full": 0, "int4": 1}),
    "enough comes for one full replica": (0.5, {}, {"full": 1, "int4": 1}),
    "enough for one, not for a second": (0.9, {}, {"full": 1, "int4": 1}),
    "enough for two": (1.2, {}, {"full": 2, "int4": 1}),
    "an accelerator that costs next to nothing": (0.1, {"pricePerAcceleratorHourMilli": 1}, {"full": 1, "int4": 1}),
    "one that no quality is worth": (1.2, {"pricePerAcceleratorHourMilli": 10**6}, {"full": 0, "int4": 3}),
    "quality that is worth nothing": (1.2, {"worthPerQualityPointMilli": 0}, {"full": 0, "int4": 3}),
}


@pytest.mark.parametrize("name", WORTH)
def test_the_program_gives_what_a_model_would_keep_by_its_price(name):
    rate, shrink, wanted = WORTH[name]
    situation = priced(rate, **shrink)
    problem = build_problem([situation], GPU, 20, {})
    assert planned_mix(situation, problem, solve(problem)) == wanted
    space = plan_space(situation, 20)
    kept = best_plan(space, planned_demand(situation), 10_000)
    assert as_mix(situation, space, kept) == wanted, "as the model's own rules"


@cache
def settled(price: int) -> PoolObservation:
    """The priced model after five minutes of hardly any load, under this price of an accelerator."""
    return plant_of(0.1, budget=20, spec=priced_spec(pricePerAcceleratorHourMilli=price)).observe()


def test_under_hardly_any_load_an_accelerator_is_worth_a_small_price_and_not_a_large_one():
    mixes = [{tier: n for tier, n in settled(p).models[0].memory.wanted.items() if n} for p in (1, 10**7)]
    assert mixes == [{"full": 1, "int4": 1}, {"int4": 1}]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rate=st.floats(0.0, 5.0),
    price=st.integers(0, 10**7),
    worth=st.integers(0, 10**4),
    budget=st.integers(1, 12),
    earlier=st.sampled_from([1, 10**7]),
)
def test_no_price_makes_the_program_refuse_requests_that_it_could_serve(rate, price, worth, budget, earlier):
    seen = settled(earlier)
    spec = priced_spec(pricePerAcceleratorHourMilli=price, worthPerQualityPointMilli=worth)
    model = replace(seen.models[0], spec=spec)
    situation = under(build_situation(model, seen.now, seen.acting_since, seen.budget, DEMO_SETTINGS), rate)
    problem = build_problem([situation], GPU, budget, {})
    mix = planned_mix(situation, problem, solve(problem))
    demand, space = planned_demand(situation), replace(plan_space(situation, budget), accelerator_price=0.0)
    best = best_plan(space, demand, 10_000)
    refused, least = (space.fill(plan, demand).unserved for plan in (as_plan(space, mix), best))
    assert refused <= least + 0.003 * demand, "but for the gap that the program is solved to"


def test_a_model_with_a_swap_in_flight_to_what_carries_its_load_is_not_planned():
    [young] = situations_of(1.0, seconds=6.0)

    assert young.swap is not None
    assert not is_plannable(young)
    assert is_plannable(situations_of(0.5)[0])


def test_a_model_with_a_swap_in_flight_is_planned_when_its_load_passes_what_that_leads_to():
    [young] = situations_of(1.0, seconds=6.0)
    lacking = under(young, 9.0)

    assert lacking.swap is not None
    assert is_plannable(lacking)
    assert not is_plannable(lacking, 1), "it has to fit its budget first"


def test_a_mix_that_is_wanted_already_is_steady():
    [situation] = situations_of(0.5)

    assert propose_mix(situation, situation.wanted, 4).reason is Reason.STEADY


def test_missing_capacity_is_added_at_once():
    [situation] = situations_of(0.5)
    loaded = under(situation, 1.6)
    problem = build_problem([loaded], GPU, 4, {})
    mix = planned_mix(loaded, problem, solve(problem))
    proposal = propose_mix(loaded, mix, 4)

    assert proposal.reason in (Reason.ADDED_REPLICA, Reason.SWAPPED_TO_CHEAPER_TIER)
    assert proposal.replicas == mix
    assert proposal.prediction is not None
    assert proposal.prediction.gain_permille > 0


def test_a_better_mix_waits_for_plans_in_agreement():
    [situation] = situations_of(1.6)
    quiet = under(situation, 0.3)
    problem = build_problem([quiet], GPU, 4, {})
    mix = planned_mix(quiet, problem, solve(problem))
    proposal = propose_mix(quiet, mix, 4)

    assert mix != quiet.wanted
    assert proposal.reason is Reason.HELD_FOR_AGREEMENT
    assert proposal.replicas == quiet.wanted
    assert proposal.memory.agreed_count == 1


def test_a_mix_that_is_hardly_better_is_not_worth_an_exchange():
    [situation] = situations_of(0.5)
    wanted = replace(
        situation, tiers=tuple(replace(t, wanted=n) for t, n in zip(situation.tiers, (0, 3, 1), strict=True))
    )
    busy = under(wanted, 1.4)

    # full 1 · int8 1 in place of int8 3 would raise 1.4 requests/s by less than a permille, and serve fewer of them
    assert propose_mix(busy, {"full": 1, "int8": 1, "int4": 1}, 4).reason is Reason.STEADY


def test_a_mix_that_others_have_to_make_room_for_leaves_it_to_the_rules_meanwhile():
    [situation] = situations_of(0.5)
    loaded = under(situation, 1.6)

    proposal = propose_mix(loaded, {"full": 0, "int8": 3, "int4": 1}, 3)
    assert loaded.cost(proposal.replicas) <= 3


def test_replicas_of_a_tier_without_a_card_are_paid_for_first():
    tiers = [tier(0), tier(1), tier(2, card=None, replicas={"min": 1})]
    [situation] = situations_of(0.5, spec=demo_spec(tiers=tiers))
    problem = build_problem([situation], GPU, 4, {})

    assert [column.tier for column in problem.models[0].columns] == ["full", "int8"]
    assert problem.limits[0].accelerators == 3
    assert planned_mix(situation, problem, solve(problem))["int4"] == 1


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=st.floats(0.05, 4.0), budget=st.integers(2, 8))
def test_alone_in_its_pool_a_model_gets_nothing_worse_than_the_rules_best_plan(rate, budget):
    [settled] = situations_of(0.5, budget=budget, seconds=60.0)
    situation = under(settled, rate)
    problem = build_problem([situation], GPU, budget, {})
    space = plan_space(situation, budget)
    plan = best_plan(space, planned_demand(situation), situation.settings.exact_plans)
    assert plan is not None
    rules = as_mix(situation, space, plan)
    model = problem.models[0]
    by_rules = route(problem, {model.key: tuple(rules[column.tier] for column in model.columns)})

    assert solve(problem).objective >= by_rules.objective - 1e-3 * problem.weighted_demand - 1e-9


@settings(deadline=None, max_examples=15)
@given(rates=st.lists(st.floats(0.05, 3.0), min_size=2, max_size=3), budget=st.integers(4, 8))
def test_what_all_models_get_never_passes_the_pool(rates, budget):
    settled = situations_of(*([0.3] * len(rates)), budget=budget, seconds=60.0)
    situations = [under(s, rate) for s, rate in zip(settled, rates, strict=True)]
    problem = build_problem(situations, GPU, budget, {})
    plan = solve(problem)

    assert sum(s.cost(planned_mix(s, problem, plan)) for s in situations) <= budget
