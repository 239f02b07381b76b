"""A model that is only watched: it is told how it is decided, and takes nothing from those that act."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.observe.observation import PoolObservation
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SETTINGS, decide_one, demo_spec, metrics, observe_one, tier
from tests.operator.decide.test_by_plan import BUSY, CALM, NOW, pool, spec


def watched(seen: PoolObservation, name: str) -> PoolObservation:
    """The same pool with one of its models in a dry run."""
    dry = [
        replace(m, spec=m.spec.model_copy(update={"mode": Mode.DRY_RUN})) if m.name == name else m for m in seen.models
    ]
    return replace(seen, models=tuple(dry))


def decided(seen: PoolObservation) -> dict[str, Decision]:
    return {decision.key: decision for decision in decide_pool(seen, DEMO_SETTINGS).decisions}


def test_a_dry_run_beside_others_is_told_that_the_pools_plan_does_not_count_it() -> None:
    """Active, the plan would give it one accelerator more, of `calm`'s."""
    seen = pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35))
    assert "the pool's plan is int8 2 · int4 1, 3 accelerators" in decided(seen)["demo/busy"].pool
    assert decided(watched(seen, "busy"))["demo/busy"].pool == (
        "a dry run is decided by need, with what it holds and what is free: the pool's plan counts Active models only,"
        " and may give it more or less once it is one"
    )


def test_a_dry_run_in_an_acceleratorpool_is_told_that_its_share_does_not_count_yet() -> None:
    seen = replace(pool(5, busy=(BUSY, 1.6), calm=(CALM, 0.35)), name="gpu")
    told = decided(watched(seen, "busy"))["demo/busy"].pool
    assert told.endswith(
        "; a dry run is decided with what it holds and what is free: its share counts once its mode is Active"
    )


def test_a_dry_run_that_has_the_accelerators_for_itself_is_decided_as_it_would_be() -> None:
    model = observe_one(demo_spec(mode="DryRun"), CALM, metrics(1.8))
    assert decide_one(model).pool == ""


@pytest.mark.parametrize("name", ["", "gpu"], ids=["no AcceleratorPool", "an AcceleratorPool"])
@pytest.mark.parametrize("rate", [0.0, 1.6, 9.0])
def test_what_is_decided_for_others_does_not_depend_on_the_load_of_a_dry_run(name: str, rate: float) -> None:
    alone = observe_one(spec(), CALM, metrics(1.2), name="calm")
    dry = observe_one(spec(mode="DryRun"), BUSY, metrics(rate), name="busy")
    calm = [
        decided(PoolObservation(NOW, "nvidia.com/gpu", 6, 1, 0.0, (model, alone), name=name))["demo/calm"]
        for model in (dry, replace(dry, metrics=metrics(0.0)))
    ]
    assert calm[0] == calm[1]


@pytest.mark.parametrize("name", ["", "gpu"], ids=["no AcceleratorPool", "an AcceleratorPool"])
def test_who_holds_the_rest_is_named_also_where_it_only_watches(name: str) -> None:
    seen = replace(watched(pool(5, busy=(BUSY, 9.0), calm=(CALM, 0.35)), "calm"), name=name)
    limited = (Reason.BUDGET_SHARED, Reason.CAPACITY_LIMITED)
    told = [f.message for f in decided(seen)["demo/busy"].findings if f.reason in limited]
    assert told
    assert all("demo/calm 3 (mode DryRun)" in message for message in told)


def test_a_new_model_in_a_dry_run_is_told_that_its_floor_is_out_of_reach() -> None:
    tiers = [tier(0, replicas={"max": 0}), tier(1), tier(2)]
    model = observe_one(demo_spec(mode="DryRun", tiers=tiers, quality={"floorPermille": 999}), {}, metrics(0.0))
    decision = decide_one(model)
    assert decision.reason is Reason.STARTING_UP
    assert "; quality.floorPermille 999 is out of reach: replicas.max of full is 0" in decision.message
