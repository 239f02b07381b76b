"""Policy and choreography together on a toy cluster that keeps all state: only status and objects survive a pass."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptive_operator.api.status import AdaptiveModelStatus, Condition
from adaptive_operator.observe.observation import ModelObservation, Unknown
from adaptive_operator.plan import plan_model
from adaptive_operator.plan.plan import WriteStatus
from stand_ins.plant import decide_one, demo_spec, metrics, observe_one, tier
from tests.operator.decide.world import PERIOD, World, surge
from tests.operator.plan.situations import SETTINGS

FULL, CHEAP = {"full": 1, "int4": 1}, {"int8": 3, "int4": 1}


def test_the_main_job_from_an_empty_cluster_and_back_with_all_state_in_the_cluster():
    world = World(surge)
    world.run(600)
    assert world.mixes() == [FULL, CHEAP, FULL]
    assert {t: n for t, n in world.cluster.asked().items() if n} == FULL
    assert world.cluster.removed_undrained == []
    order = [r for r in world.history() if r in ("StartingUp", "SwappedToCheaperTier", "RestoredTier")]
    assert order == ["StartingUp", "SwappedToCheaperTier", "RestoredTier"]


def test_at_rest_nothing_is_written():
    world = World(lambda at: 0.4 + 0.02 * (at % 3))
    world.run(400)
    assert world.writes[-40:] == [0] * 40


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 1, 2, 3])
def test_an_operator_that_dies_in_every_other_pass_comes_to_the_same_end(every):
    world = World(surge)
    world.run(900, kill_after=lambda i: every if i % 2 else None)
    assert world.mixes()[-1] == FULL
    assert CHEAP in world.mixes()
    assert {t: n for t, n in world.cluster.asked().items() if n} == FULL


def test_a_tier_that_never_becomes_ready_is_rolled_back_with_its_words_and_something_always_serves():
    world = World(surge)
    world.cluster.load_rounds["int8"] = None
    world.run(60)
    for _ in range(100):
        world.step()
        world.cluster.run_controllers(PERIOD)
        assert world.cluster.routable()
    assert "SwapRolledBack" in world.history()
    rolled = next(d for d in world.decisions if d.reason == "SwapRolledBack")
    assert "0/1 nodes are available" in rolled.message
    assert world.cluster.asked().get("int8", 0) == 0


def test_an_edit_of_one_tier_during_a_swap_still_ends():
    world = World(surge)
    world.run(115)
    spec = world.cluster.spec
    tiers = [t.model_copy(update={"replica": t.replica.model_copy(update={"memory": "3Gi"})}) for t in spec.tiers]
    world.edit(spec.model_copy(update={"tiers": tuple(tiers)}))
    world.run(900)
    assert world.mixes()[-1] == FULL
    assert world.decisions[-1].swap is None


NOW = 10_000.0
MISSING = Unknown("sum(rate(adaptive_router_requests_total[15s]))", "connection refused")


def told(model: ModelObservation) -> AdaptiveModelStatus:
    """The status that a user reads after one pass of policy and plan."""
    decision = decide_one(model, NOW)
    written = [step for step in plan_model(model, decision, SETTINGS, NOW, 1).steps if isinstance(step, WriteStatus)]
    return AdaptiveModelStatus.model_validate(written[0].status["status"])


def condition(status: AdaptiveModelStatus, kind: str) -> Condition:
    return next(item for item in status.conditions if item.type == kind)


WITHOUT_CARDS = demo_spec(tiers=[tier(0, card=None), tier(2, card=None)], quality={})
ONE_WITHOUT_CARD = demo_spec(tiers=[tier(0), tier(1, card=None), tier(2)])
CAPACITY = {
    "demand unknown": (demo_spec(), MISSING, 1.0, "Unknown", "SamplesUnknown", "demand is unknown: sum(rate("),
    "demand too old": (demo_spec(), 0.3, 900.0, "Unknown", "SamplesStale", "demand is unknown: arrivals"),
    "demand carried": (demo_spec(), 0.3, 1.0, "False", "WithinBudget", "the budget carries the load"),
    "demand too high": (demo_spec(), 90.0, 1.0, "True", "CapacityLimited", "demand passes capacity"),
    "no cards": (WITHOUT_CARDS, 9.0, 1.0, "Unknown", "NoTierCard", "spec.tiers full, int4 without a card"),
    "no cards, no demand": (WITHOUT_CARDS, MISSING, 1.0, "Unknown", "NoTierCard", "declare tiers[].card"),
    "one card missing": (ONE_WITHOUT_CARD, 0.3, 1.0, "False", "WithinBudget", "spec.tiers int8 without a card"),
}


@pytest.mark.parametrize("name", CAPACITY)
def test_the_status_claims_no_more_of_the_capacity_than_is_known(name):
    spec, arrivals, age, truth, reason, words = CAPACITY[name]
    mix = CHEAP if name == "demand too high" else FULL
    found = condition(told(observe_one(spec, mix, metrics(arrivals, age=age))), "CapacityLimited")
    assert (found.status, found.reason) == (truth, reason)
    assert words in found.message


def test_the_status_of_a_dry_run_says_that_nothing_was_changed():
    status = told(observe_one(demo_spec(mode="DryRun"), FULL, metrics(1.8)))
    assert status.last_decision is not None
    assert status.last_decision.reason == "SwappedToCheaperTier"
    assert status.last_decision.message.startswith("dry run: demand ")
    tiers = condition(status, "TiersReady")
    assert (tiers.status, tiers.reason) == ("False", "DryRun")
    assert "spec.mode is DryRun: nothing was changed" in tiers.message
    assert condition(status, "Degraded").status == "False"


@pytest.mark.parametrize(("before", "after"), [("DryRun", "Active"), ("Active", "DryRun")])
def test_the_prefix_of_a_dry_run_comes_and_goes_with_the_mode(before, after):
    model = observe_one(demo_spec(mode=before), FULL, metrics(0.3))
    entry = told(replace(model, spec=demo_spec(mode=after), status=told(model))).last_decision
    assert entry is not None
    assert entry.message.startswith("dry run: ") is (after == "DryRun")


def test_an_edit_that_changes_nothing_but_what_binds_is_explained_anew():
    world = World(lambda at: 0.4)
    world.run(200)
    world.edit(world.cluster.spec.model_copy(update={"accelerators": world.cluster.spec.accelerators}))
    before = world.cluster.status.last_decision
    world.step()
    after = world.cluster.status.last_decision
    assert (after.reason, after.to) == (before.reason, before.to) == ("Steady", "full 1 · int4 1")
    assert after.time > before.time
    assert after.alternative
    world.step()
    assert world.writes[-1] == 0
