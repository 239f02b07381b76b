"""The status of an AcceleratorPool: its condition, what each model has and why, and when it is news."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.api.pool import AcceleratorPoolStatus
from adaptive_operator.decide.decision import PoolPart
from adaptive_operator.observe.observation import PoolShare
from adaptive_operator.plan.pool_status import (
    Member,
    PoolFacts,
    build_pool_status,
    dump_pool_status,
    is_told_already,
)
from adaptive_operator.reasons import PoolReason, ShareReason

PART = PoolPart(2, 1, 3, ShareReason.WEIGHTED, "2 accelerators (reservation 1, weight 3): wants more")
FACTS = PoolFacts(
    generation=2,
    resource="nvidia.com/gpu",
    budget=4,
    surge=1,
    held=3,
    shares=(PoolShare("demo", "", 1, 3),),
    price_milli=None,
    members=(Member("demo", "b", 1), Member("demo", "a", 2, PART)),
    now=1_800_000_000.0,
)


@pytest.mark.parametrize(
    ("changes", "status", "reason", "words"),
    [
        pytest.param({}, "True", "Sharing", "4 nvidia.com/gpu (and 1 more while", id="all is well"),
        pytest.param({"held": 5}, "True", "Sharing", "", id="the surge is in use"),
        pytest.param({"held": 6}, "False", "OverBudget", "nothing is started until", id="more is held than there is"),
        pytest.param(
            {"shares": (PoolShare("demo", "", 5),)},
            "False",
            "ReservationsReduced",
            "lower shares[].reservation",
            id="more is reserved than there is",
        ),
        pytest.param(
            {"trouble": (PoolReason.NODES_TAKEN, "set budget of both"), "budget": None},
            "False",
            "NodesTaken",
            "set budget of both",
            id="its budget is not known",
        ),
    ],
)
def test_the_condition(changes, status, reason, words):
    (condition,) = build_pool_status(replace(FACTS, **changes)).conditions
    assert (condition.type, condition.status, condition.reason) == ("Ready", status, reason)
    assert words in condition.message


def test_each_model_is_listed_with_what_it_has_and_why():
    models = build_pool_status(FACTS).models
    assert [(m.name, m.accelerators, m.granted, m.weight, m.reason) for m in models] == [
        ("a", 2, 2, 3, "Weighted"),
        ("b", 1, 1, 3, "Unmanaged"),
    ]
    assert "nothing can be decided for it now" in models[1].message


def test_a_price_makes_a_cost():
    assert build_pool_status(FACTS).cost_per_hour_milli is None
    assert build_pool_status(replace(FACTS, price_milli=2500)).cost_per_hour_milli == 7500


def test_the_time_of_a_condition_moves_with_its_status_only():
    written = build_pool_status(FACTS)
    later = replace(FACTS, now=FACTS.now + 60, written=written)
    assert is_told_already(build_pool_status(later), written)
    lost = build_pool_status(replace(later, held=9))
    assert not is_told_already(lost, written)
    assert lost.conditions[0].last_transition_time != written.conditions[0].last_transition_time
    reduced = build_pool_status(replace(FACTS, now=FACTS.now + 60, written=lost, shares=(PoolShare("d", "", 5),)))
    assert reduced.conditions[0].last_transition_time == lost.conditions[0].last_transition_time


def test_what_is_written_reads_back_and_empty_lists_are_left_out():
    status = build_pool_status(FACTS)
    assert AcceleratorPoolStatus.model_validate(dump_pool_status(status)) == status
    assert "models" not in dump_pool_status(build_pool_status(replace(FACTS, members=())))


def test_the_first_thousand_models_are_listed_and_all_are_counted():
    members = tuple(Member("demo", f"m{i:04}", 0) for i in range(1003))
    status = build_pool_status(replace(FACTS, members=members))
    assert (len(status.models), status.models_total) == (1000, 1003)


def message_of(**changes) -> str:
    (condition,) = build_pool_status(replace(FACTS, **changes)).conditions
    assert (condition.status, condition.reason) == ("True", "Sharing")
    return condition.message


def test_a_budget_beyond_what_the_nodes_have_is_told_with_the_remedy():
    assert "budget is" not in message_of(named=4)
    assert message_of(named=6, surge=0) == (
        "its models share 4 nvidia.com/gpu; budget is 6, and its nodes advertise no more that no other pool takes:"
        " add nodes, correct nodeSelector, or lower budget to 4"
    )


def test_shares_that_nobody_has_are_named():
    shares = (PoolShare("demo", "a"), PoolShare("demo", "aa"), PoolShare("other", ""))
    assert "; nobody has the shares of demo/aa, namespace other: correct them" in message_of(shares=shares)
    assert "nobody" not in message_of(shares=shares[:1])
    many = tuple(PoolShare("demo", f"m{i}") for i in range(7))
    assert "demo/m4 and 2 more: correct them" in message_of(shares=many)
