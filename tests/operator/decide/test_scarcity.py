"""What is said where a pool, or what a model may have of it, is too small: never that all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.api.pool import PoolDivision
from adaptive_operator.reasons import Reason, ShareReason
from stand_ins.plant import demo_spec, metrics, observe_one, tier
from tests.operator.decide.test_neighbours import decided, told

BOTH = pytest.mark.parametrize("division", PoolDivision)


def part_of(budget: int, division: PoolDivision, mix: dict[str, int], rate: float, **spec) -> tuple[ShareReason, str]:
    model = observe_one(demo_spec(**({"accelerators": {}} | spec)), mix, metrics(rate), name="a")
    part = decided(budget, replace(model, pool="gpu"), name="gpu", division=division)["a"].part
    assert part is not None
    return part.reason, part.message


@BOTH
@pytest.mark.parametrize(("budget", "mix"), [(1, {"int4": 1}), (0, {})], ids=["of one", "of none"])
def test_a_pool_that_cannot_carry_the_load_is_told_to_be_too_small(division, budget, mix):
    reason, message = part_of(budget, division, mix, 9.0)
    assert reason is ShareReason.POOL_TOO_SMALL
    assert message.endswith("wants more than the whole pool can give")


@BOTH
@pytest.mark.parametrize(
    ("budget", "spec"),
    [
        pytest.param(4, {"accelerators": {"budget": 1}, "tiers": [tier(2)]}, id="its own budget"),
        pytest.param(4, {"tiers": [tier(2, replicas={"max": 1})]}, id="the bounds of its tiers"),
        pytest.param(1, {"tiers": [tier(2)], "quality": {"floorPermille": 900}}, id="a floor that no tier reaches"),
    ],
)
def test_a_model_that_is_limited_by_what_its_spec_allows_is_told_so(division, budget, spec):
    assert part_of(budget, division, {"int4": 1}, 9.0, **spec)[0] is ShareReason.OWN_LIMITS


@BOTH
def test_a_model_that_lacks_nothing_has_all_that_it_wants(division):
    assert part_of(4, division, {"full": 1, "int8": 1, "int4": 1}, 0.3)[0] is ShareReason.SATISFIED


def test_a_budget_of_zero_is_told_as_such_to_a_new_model():
    decision = decided(0, observe_one(demo_spec(accelerators={}), {}, metrics(9.0), name="a"))["a"]
    words = "the budget of nvidia.com/gpu is 0, so nothing can run; raise it"
    assert (decision.reason, decision.message) == (Reason.CAPACITY_LIMITED, words)
    assert told(decision, Reason.CAPACITY_LIMITED) == f"there is demand, and {words}"


def test_a_model_with_more_than_the_budget_is_not_told_that_the_budget_was_lowered():
    """It may never have been higher: only that it is too small is known."""
    model = observe_one(demo_spec(accelerators={}), {"int8": 1, "int4": 1}, metrics(0.5), name="a")
    none, one = decided(0, model)["a"], decided(1, model)["a"]
    assert none.message == (
        "int8 1 · int4 1 are given up: the budget of nvidia.com/gpu is 0, so nothing can run; raise it"
    )
    assert one.message == (
        "int8 1 · int4 1 hold more than 1 accelerator, which is the whole budget: go to int4 1;"
        " raise the budget of nvidia.com/gpu to keep them"
    )


LIMITED = {
    # mix, its budget, more of the spec -> how the message ends
    "paused": (
        {"int8": 2, "int4": 1},
        4,
        {"mode": "Paused"},
        "spec.mode is Paused, so nothing is started; set it to Active",
    ),
    "all in use": (
        {"int4": 4},
        4,
        {},
        "raise the budget of nvidia.com/gpu or replicas.max of its tiers, or add a cheaper tier",
    ),
}


@pytest.mark.parametrize("name", LIMITED)
def test_a_model_whose_load_passes_what_it_has_is_told_the_cause_and_the_remedy(name):
    mix, budget, more, end = LIMITED[name]
    decision = decided(budget, observe_one(demo_spec(accelerators={}, **more), mix, metrics(9.0), name="a"))["a"]
    assert told(decision, Reason.CAPACITY_LIMITED).endswith(f"; {end}")


def test_a_new_model_that_does_not_fit_is_told_what_to_change():
    model = observe_one(demo_spec(accelerators={}, tiers=[tier(0)]), {}, metrics(0.0), name="a")
    assert decided(1, model)["a"].message.endswith(
        "; raise the budget of nvidia.com/gpu, or add a tier with a smaller replica"
    )
