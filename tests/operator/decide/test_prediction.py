"""A swap's record says what it brings, in which unit, and what it costs; nothing where that is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.lifecycle import adopt_edit
from adaptive_operator.decide.situation import build_situation
from adaptive_operator.levels import Level
from adaptive_operator.observe.observation import Correction, ModelObservation, PodPhase, PolicyMemory, SwapRecord
from adaptive_operator.reasons import Reason
from stand_ins.plant import DEMO_SETTINGS, decide_one, demo_spec, metrics, observe_one, tier
from tests.operator.decide.test_decisions import CHEAP, IDLE, MISSING, loading

# Planned with are .72/s of full, .585/s of int8 and of int4.
FULL_BUDGET = {"full": 1, "int4": 2}
THREE = {"full": 1, "int8": 1, "int4": 1}
BUDGET = demo_spec(accelerators={})
TIERS = ("full", "int8", "int4")
FULL, INT8 = (Level("", 1000, 0.8),), (Level("", 998, 0.65),)
MINIMUM = demo_spec(tiers=[tier(0), tier(1, replicas={"min": 1}), tier(2)])


def edited(rate, levels: tuple[Level, ...] | None = None) -> ModelObservation:
    """full 1 · int4 2, and the spec now gives int4 more memory. `levels`: what the old replicas of int4 serve."""
    model = observe_one(demo_spec(), FULL_BUDGET, metrics(rate))
    replica = {"accelerators": 1, "cpu": "250m", "memory": "3Gi"}
    sets = tuple(replace(item, levels=levels) if item.tier == "int4" else item for item in model.stateful_sets)
    spec = demo_spec(tiers=[tier(0), tier(1), tier(2, replica=replica)], accelerators={})
    return replace(model, spec=spec, stateful_sets=sets, generation=2)


def bound(spec, rate, mix=IDLE) -> ModelObservation:
    """A spec that asks for another mix than the one that runs."""
    memory = PolicyMemory(wanted=mix, generation=1)
    return replace(observe_one(demo_spec(), mix, metrics(rate)), spec=spec, memory=memory, generation=2)


def without(name: str, rate, mix=THREE, levels: tuple[Level, ...] | None = None, corrections=None) -> ModelObservation:
    """The spec without a tier that still runs. `levels`: what its StatefulSet says that its replicas serve."""
    model = bound(demo_spec(tiers=[tier(i) for i, tier_name in enumerate(TIERS) if tier_name != name]), rate, mix)
    sets = tuple(replace(item, levels=levels) if item.tier == name else item for item in model.stateful_sets)
    return replace(model, stateful_sets=sets, memory=replace(model.memory, corrections=corrections or {}))


def orphaned(phase: PodPhase) -> ModelObservation:
    """The same of int8 with its StatefulSet gone and its pod in this phase."""
    model = without("int8", 1.0, levels=INT8)
    pods = tuple(replace(pod, phase=phase) if pod.tier == "int8" else pod for pod in model.pods)
    return replace(model, pods=pods, stateful_sets=tuple(s for s in model.stateful_sets if s.tier != "int8"))


# model, budget -> reason, gain, of what, dip
SWAPS = {
    "an edit in a full budget costs what one replica after the other cannot serve: .195 of 1.5/s": (
        (edited(1.5), 4),
        (Reason.SPEC_CHANGED, 0, "Quality", 130),
    ),
    "an edit with room for both costs nothing": ((edited(1.5), 6), (Reason.SPEC_CHANGED, 0, "Quality", 0)),
    "an edit of what served at a tenth of the rate brings what its old replicas could not serve: .613 of 1.5/s": (
        (edited(1.5, levels=(Level("", 780, 0.093),)), 6),
        (Reason.SPEC_CHANGED, 408, "Requests", 408),
    ),
    "an edit at an unknown demand is not predicted": (
        (edited(MISSING), 4),
        (Reason.SPEC_CHANGED, None, None, None),
    ),
    "first replicas serve all, and until then nobody is served": (
        (observe_one(demo_spec(), {}, metrics(0.5)), 4),
        (Reason.STARTING_UP, 1000, "Requests", 1000),
    ),
    "first replicas of a model that nobody could ask yet are not predicted": (
        (observe_one(demo_spec(), {}, metrics(MISSING)), 4),
        (Reason.STARTING_UP, None, None, None),
    ),
    "a lower budget loses what is not served with it: .295 of 1.6/s": (
        (observe_one(BUDGET, THREE, metrics(1.6)), 3),
        (Reason.BUDGET_EXCEEDED, -184, "Requests", 184),
    ),
    "a lower budget that carries the load costs nothing": (
        (observe_one(BUDGET, THREE, metrics(0.5)), 3),
        (Reason.BUDGET_EXCEEDED, 0, "Quality", 0),
    ),
    "a way back, to int4 4, brings what the failed tier did not serve, .495 of 1.8/s; while full drains, .63 wait": (
        (loading(PodPhase.PENDING), 4),
        (Reason.SWAP_ROLLED_BACK, 275, "Requests", 350),
    ),
    "a minimum that was raised": ((bound(MINIMUM, 0.3), 4), (Reason.SPEC_CHANGED, 0, "Quality", 0)),
    "a minimum that makes what is served better: .28 of 1/s go from int4 to int8": (
        (bound(MINIMUM, 1.0), 4),
        (Reason.SPEC_CHANGED, 61, "Quality", 0),
    ),
    "a tier that left the spec and carried nothing": (
        (without("int8", 0.3, levels=INT8), 4),
        (Reason.SPEC_CHANGED, 0, "Quality", 0),
    ),
    "a tier that left the spec takes its quality along: .28 of 1/s go from int8 to int4": (
        (without("int8", 1.0, levels=INT8), 4),
        (Reason.SPEC_CHANGED, -61, "Quality", 0),
    ),
    "a tier that left the spec is exchanged for int4 3, one replica first, then full: .63 of 1.8/s wait": (
        (without("int8", 1.8, levels=INT8), 4),
        (Reason.SPEC_CHANGED, -159, "Quality", 350),
    ),
    "a tier that left the spec was in the way of a better mix, int8 3 · int4 1: .43 of 1.6/s wait": (
        (without("full", 1.6, FULL_BUDGET, FULL), 4),
        (Reason.SPEC_CHANGED, 119, "Quality", 269),
    ),
    "a tier that left the spec counts at what was measured of its card: half of .28 of 1/s came from int4 already": (
        (without("int8", 1.0, levels=INT8, corrections={"int8": Correction(650, 240, 9_000.0)}), 4),
        (Reason.SPEC_CHANGED, -31, "Quality", 0),
    ),
    "a tier that left the spec with a correction of another card counts as that card says": (
        (without("int8", 1.0, levels=INT8, corrections={"int8": Correction(600, 240, 9_000.0)}), 4),
        (Reason.SPEC_CHANGED, -61, "Quality", 0),
    ),
    "a tier that left the spec is not known where its StatefulSet does not say what it serves": (
        (without("int8", 0.3), 4),
        (Reason.SPEC_CHANGED, None, None, None),
    ),
    "a tier that left the spec without a card served nobody knows how much": (
        (without("int8", 0.3, levels=(Level("", None, None),)), 4),
        (Reason.SPEC_CHANGED, None, None, None),
    ),
    "a tier that left the spec is not known where its StatefulSet is gone and its pod serves on": (
        (orphaned(PodPhase.READY), 4),
        (Reason.SPEC_CHANGED, None, None, None),
    ),
    "a tier that left the spec is gone with its StatefulSet once its pod ends": (
        (orphaned(PodPhase.TERMINATING), 4),
        (Reason.SPEC_CHANGED, 0, "Quality", 0),
    ),
    "a tier without a card serves nobody knows how much": (
        (bound(demo_spec(tiers=[tier(0), tier(1), tier(2, card=None, replicas={"min": 2})]), 0.3), 4),
        (Reason.SPEC_CHANGED, None, None, None),
    ),
    "growth tells of requests: .495 of 1.8/s": (
        (observe_one(demo_spec(), IDLE, metrics(1.8)), 4),
        (Reason.SWAPPED_TO_CHEAPER_TIER, 275, "Requests", 350),
    ),
}


@pytest.mark.parametrize("name", SWAPS)
def test_a_swap_says_what_it_brings_and_costs(name: str) -> None:
    (model, budget), expected = SWAPS[name]
    decision = decide_one(model, budget=budget)
    assert decision.swap is not None
    swap = decision.swap
    told = (swap.predicted_gain_permille, swap.predicted_gain_of, swap.predicted_dip_permille)
    assert (decision.reason, *told) == expected


def test_a_restore_tells_of_quality() -> None:
    memory = PolicyMemory(wanted=CHEAP, generation=1, agreed_plan="full=1,int4=1", agreed_count=2, agreed_at=9_900.0)
    decision = decide_one(observe_one(demo_spec(), CHEAP, metrics(0.4), memory=memory))
    assert decision.reason is Reason.RESTORED_TIER
    assert decision.swap is not None
    assert (decision.swap.predicted_gain_permille, decision.swap.predicted_gain_of) == (2, "Quality")


def test_a_swap_that_goes_on_keeps_what_was_predicted_or_not_when_it_began() -> None:
    before = SwapRecord("id", "SpecChanged", FULL_BUDGET, {**FULL_BUDGET, "int8": 0}, "Starting", 9_990.0, 10_200.0, 1)
    decision = decide_one(replace(edited(1.5), swap=before))
    assert decision.swap is not None
    assert (decision.swap.predicted_gain_permille, decision.swap.predicted_dip_permille) == (None, None)


@given(rate=st.floats(0.0, 20.0), budget=st.integers(4, 7))
def test_no_edit_costs_more_than_all_requests_or_less_than_what_is_refused_at_its_end(rate: float, budget: int) -> None:
    situation = build_situation(edited(rate), 10_000.0, 0.0, budget, DEMO_SETTINGS)
    proposal = adopt_edit(situation, budget)
    assert proposal is not None
    assert proposal.prediction is not None
    at_the_end = 1000 * max(0.0, rate - (0.72 + 2 * 0.585)) / rate if rate > 0 else 0.0
    assert at_the_end - 1e-6 <= proposal.prediction.dip_permille <= 1000
    assert proposal.prediction.gain_permille == pytest.approx(0.0)
