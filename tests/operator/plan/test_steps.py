"""One pass of the choreography, as a table: what exists, what is wanted, what is asked for next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from adaptive_operator.decide.decision import Decision
from adaptive_operator.levels import Level
from adaptive_operator.observe.observation import ModelObservation, Sample
from adaptive_operator.plan.draining import DrainRules
from adaptive_operator.plan.revisions import current_revisions
from adaptive_operator.plan.steps import Choreography, SwapStep, plan_choreography
from adaptive_operator.reasons import Reason
from tests.operator.plan.situations import (
    FAILED,
    METRICS,
    NOW,
    PENDING,
    READY,
    SETTINGS,
    STARTING,
    TERMINATING,
    make_decision,
    make_model,
    make_spec,
    make_swap,
    make_tier,
    with_set,
)

RULES = DrainRules(NOW, deadline_seconds=120, settle_seconds=2)
SHED = {"full": 0, "int8": 3, "int4": 1}


def choreograph(
    model: ModelObservation, decision: Decision, written: frozenset[str] = frozenset(), epoch: int = 1
) -> Choreography:
    return plan_choreography(model, decision, current_revisions(model, SETTINGS.engine_image), written, RULES, epoch)


def replicas_of(result: Choreography) -> Mapping[str, int]:
    return {step.group.tier: step.replicas for step in result.steps if step.group.current is not None}


def running(**phases: list[object]) -> ModelObservation:
    model = make_model()
    for tier, of_tier in phases.items():
        model = with_set(model, tier, of_tier, started=True)  # type: ignore[arg-type]
    return model


def test_a_new_model_starts_what_is_wanted() -> None:
    assert replicas_of(choreograph(make_model(), make_decision({"full": 1, "int8": 0, "int4": 1}))) == {
        "full": 1,
        "int8": 0,
        "int4": 1,
    }


def test_a_grant_too_small_for_everything_starts_the_cheapest_first() -> None:
    result = choreograph(make_model(), make_decision({"full": 1, "int8": 0, "int4": 1}, granted=2))
    assert replicas_of(result) == {"full": 0, "int8": 0, "int4": 1}


def test_room_for_one_replica_is_used_before_anything_drains() -> None:
    result = choreograph(running(full=[READY], int4=[READY]), make_decision(SHED))
    assert replicas_of(result) == {"full": 1, "int8": 1, "int4": 1}
    assert result.draining == frozenset()
    assert result.step is SwapStep.STARTING


def test_nothing_drains_while_the_first_new_replica_loads() -> None:
    result = choreograph(running(full=[READY], int8=[STARTING], int4=[READY]), make_decision(SHED))
    assert result.draining == frozenset()


def test_the_origin_drains_once_the_first_new_replica_is_ready() -> None:
    result = choreograph(running(full=[READY], int8=[READY], int4=[READY]), make_decision(SHED))
    assert result.draining == {"full-new-0"}
    assert replicas_of(result)["full"] == 1
    assert result.step is SwapStep.DRAINING


def test_two_small_replicas_make_room_for_one_large() -> None:
    model = running(int8=[READY, READY, READY], int4=[READY])
    result = choreograph(model, make_decision({"full": 1, "int8": 0, "int4": 1}))
    assert result.draining == {"int8-new-2", "int8-new-1"}


@pytest.mark.parametrize("slow", ["int4", "int8"])
def test_of_replicas_of_the_same_size_the_one_that_serves_least_drains_first(slow: str) -> None:
    """Until the replica that comes is ready, what stays serves alone."""
    tiers = [make_tier("full", "fp32", 1, 1000), make_tier("int8", "int8", 1, 998), make_tier("int4", "int4", 1, 780)]
    for item in tiers[1:]:
        item["card"]["capacityMilliRequestsPerSecond"] = 300 if item["name"] == slow else 600
    model = make_model(make_spec(tiers))
    for name in ("int8", "int4"):
        model = with_set(model, name, [READY, READY], started=True)
    result = choreograph(model, make_decision({"full": 2, "int8": 1, "int4": 1}))
    assert result.draining == {f"{slow}-new-1"}


@pytest.mark.parametrize(("rate", "goes"), [(0.3, "int8"), (0.9, "int4"), (None, "int8")])
def test_a_tier_that_left_the_spec_drains_first_if_it_serves_least_or_nobody_knows_what(
    rate: float | None, goes: str
) -> None:
    tiers = [make_tier("full", "fp32", 1, 1000), make_tier("int8", "int8", 1, 998), make_tier("int4", "int4", 1, 780)]
    model, levels = make_model(make_spec(tiers)), (Level("", 998, rate),)
    model = with_set(model, "int8", [READY, READY], started=True, levels=levels if rate else None)
    model = with_set(model, "int4", [READY, READY], started=True)
    model = replace(model, spec=make_spec([tiers[0], tiers[2]]))
    result = choreograph(model, make_decision({"full": 3, "int4": 1}))
    assert result.draining == {f"{goes}-new-1"}


def test_surplus_goes_together_once_everything_wanted_is_ready() -> None:
    model = running(full=[READY], int8=[READY, READY])
    result = choreograph(model, make_decision({"full": 1, "int8": 0, "int4": 0}))
    assert result.draining == {"int8-new-0", "int8-new-1"}


def test_surplus_stays_while_a_wanted_replica_is_not_ready() -> None:
    model = running(full=[STARTING], int8=[READY, READY])
    assert choreograph(model, make_decision({"full": 1, "int8": 0, "int4": 0})).draining == frozenset()


@pytest.mark.parametrize("phase", [PENDING, FAILED])
def test_surplus_that_serves_nothing_goes_whatever_else_is_going_on(phase: object) -> None:
    model = running(full=[STARTING], int8=[phase])
    assert choreograph(model, make_decision({"full": 1, "int8": 0, "int4": 0})).draining == {"int8-new-0"}


def test_a_pod_that_only_lost_its_readiness_is_not_taken_for_an_idle_one() -> None:
    model = running(full=[STARTING], int8=[STARTING])
    assert choreograph(model, make_decision({"full": 1, "int8": 0, "int4": 0})).draining == frozenset()


def test_a_terminating_pod_holds_its_accelerators_until_it_is_gone() -> None:
    model = with_set(running(int4=[READY]), "full", [TERMINATING], replicas=0)
    result = choreograph(model, make_decision(SHED))
    assert replicas_of(result) == {"full": 0, "int8": 1, "int4": 1}


def test_the_place_of_a_terminating_pod_can_be_asked_for_again_at_no_cost() -> None:
    model = with_set(running(int4=[READY], int8=[READY]), "full", [TERMINATING], replicas=0)
    result = choreograph(model, make_decision({"full": 1, "int8": 1, "int4": 1}))
    assert replicas_of(result)["full"] == 1


def test_more_held_than_granted_starts_nothing_and_drains_no_more_than_the_excess() -> None:
    model = running(full=[READY], int8=[READY, STARTING], int4=[READY])
    result = choreograph(model, make_decision({"full": 0, "int8": 2, "int4": 1}, granted=4))
    assert replicas_of(result)["int8"] == 2
    assert result.draining == {"full-new-0"}


def test_the_last_ready_replica_stays_when_only_the_grant_shrank() -> None:
    model = running(full=[READY], int4=[STARTING])
    result = choreograph(model, make_decision({"full": 0, "int8": 0, "int4": 1}, granted=1))
    assert result.draining == frozenset()


def test_a_replica_that_is_asked_for_again_counts_as_ready_only_when_it_stayed() -> None:
    leaving = with_set(running(int4=[READY]), "full", [READY], replicas=0, draining={"full-new-0": NOW - 5})
    result = choreograph(leaving, make_decision({"full": 1, "int8": 0, "int4": 0}))
    assert replicas_of(result)["full"] == 1
    assert "int4-new-0" not in result.draining


def test_a_wanted_pod_loses_its_drain_stamp() -> None:
    model = with_set(running(int4=[READY]), "full", [READY], draining={"full-new-0": NOW - 5})
    result = choreograph(model, make_decision({"full": 1, "int8": 0, "int4": 1}))
    assert result.draining == frozenset()


def test_a_drain_that_began_is_gone_on_with_rather_than_another_one_begun() -> None:
    tiers = running(int4=[READY], int8=[READY, READY])
    model = with_set(tiers, "int8", [READY], revision="0ld", draining={"int8-0ld-0": NOW - 5})
    result = choreograph(model, make_decision({"full": 0, "int8": 2, "int4": 1}, granted=4))
    assert result.draining == {"int8-0ld-0"}
    stamps = [stamp for step in result.steps for stamp in step.draining.values()]
    assert stamps == [NOW - 5]


DRAINED = {"full-new-0": NOW - 10}


@pytest.mark.parametrize(
    ("written", "work", "stamps", "replicas"),
    [
        pytest.param({"full-new-0"}, Sample(0, 1), DRAINED, 0, id="idle-since-the-routers-let-go"),
        pytest.param({"full-new-0"}, Sample(2, 1), DRAINED, 1, id="requests-are-in-flight"),
        pytest.param({"full-new-0"}, Sample(0, 9), DRAINED, 1, id="the-zero-is-older-than-the-routers-knew"),
        pytest.param({"full-new-0"}, None, DRAINED, 1, id="unknown-is-never-zero"),
        pytest.param(set(), Sample(0, 1), DRAINED, 1, id="the-written-table-does-not-drain-it-yet"),
        pytest.param({"full-new-0"}, Sample(0, 1), {}, 1, id="the-stamp-is-not-written-yet"),
        pytest.param({"full-new-0"}, Sample(2, 1), {"full-new-0": NOW - 120}, 0, id="the-deadline-is-over"),
    ],
)
def test_a_replica_is_removed_when(
    written: set[str], work: Sample | None, stamps: dict[str, float], replicas: int
) -> None:
    model = with_set(running(int8=[READY], int4=[READY]), "full", [READY], draining=stamps)
    name = next(pod.name for pod in model.pods if pod.tier == "full")
    model = replace(model, metrics=replace(METRICS, pod_work={name: work} if work else {}))
    assert replicas_of(choreograph(model, make_decision(SHED), frozenset(written)))["full"] == replicas


def test_replicas_go_one_by_one_from_the_highest_ordinal_each_when_it_is_idle() -> None:
    stamps = {"int8-new-0": NOW - 10, "int8-new-1": NOW - 10, "int8-new-2": NOW - 10}
    model = with_set(running(full=[READY]), "int8", [READY, READY, READY], draining=stamps)
    pods = {pod.ordinal: pod.name for pod in model.pods if pod.tier == "int8"}
    decision = make_decision({"full": 1, "int8": 0, "int4": 0}, granted=5)
    for idle, replicas in (({2}, 2), ({1, 2}, 1), ({0, 1}, 3), ({0, 1, 2}, 0)):
        work = {pods[ordinal]: Sample(0 if ordinal in idle else 1, 1) for ordinal in pods}
        observed = replace(model, metrics=replace(METRICS, pod_work=work))
        result = choreograph(observed, decision, frozenset(stamps))
        assert replicas_of(result)["int8"] == replicas
        assert result.draining == set(stamps)


def test_what_comes_free_anyway_is_not_drained_for_twice() -> None:
    old = with_set(running(int8=[READY]), "int4", [STARTING], revision="0ld")  # never served: goes in any case
    result = choreograph(old, make_decision({"full": 1, "int8": 0, "int4": 0}, granted=2))
    assert result.draining == {"int4-0ld-0", "int8-new-0"}
    ending = with_set(running(int8=[READY, READY]), "full", [TERMINATING], revision="0ld", replicas=0)
    result = choreograph(ending, make_decision({"full": 1, "int8": 1, "int4": 0}))
    assert result.draining == frozenset()


def test_a_replica_whose_pod_was_never_made_is_removed_at_once() -> None:
    model = with_set(running(int4=[READY]), "full", [], replicas=1)
    result = choreograph(model, make_decision({"full": 0, "int8": 0, "int4": 1}))
    assert replicas_of(result)["full"] == 0
    assert result.step is SwapStep.RELEASING


def test_an_older_revision_is_deleted_only_when_it_asks_for_nothing_and_has_no_pods() -> None:
    decision = make_decision({"full": 0, "int8": 0, "int4": 1})
    empty = with_set(running(int4=[READY]), "full", [], revision="0ld")
    ending = with_set(running(int4=[READY]), "full", [TERMINATING], replicas=0, revision="0ld")
    for model, deleted in ((empty, ["assistant-full-0ld"]), (ending, [])):
        steps = choreograph(model, decision).steps
        assert [step.group.name for step in steps if step.delete] == deleted


def test_the_present_revision_stays_with_no_replicas() -> None:
    model = with_set(running(int4=[READY]), "full", [])
    assert not any(step.delete for step in choreograph(model, make_decision({"full": 0, "int4": 1})).steps)


def test_a_stateful_set_of_a_higher_epoch_is_left_alone() -> None:
    model = with_set(running(int4=[READY]), "full", [READY], epoch=9)
    result = choreograph(model, make_decision({"full": 0, "int8": 0, "int4": 1}), epoch=8)
    assert replicas_of(result)["full"] == 1
    assert result.draining == frozenset()


def test_a_roll_back_is_called_one() -> None:
    decision = make_decision({"full": 1, "int4": 1}, reason=Reason.SWAP_ROLLED_BACK)
    assert choreograph(running(full=[READY], int4=[READY]), decision).step is SwapStep.ROLLING_BACK
    record = make_swap({"int4": 1}, {"full": 1}, step=SwapStep.ROLLING_BACK.value)
    going_on = make_decision({"full": 1, "int4": 1}, swap=record)
    assert choreograph(running(full=[READY], int4=[READY]), going_on).step is SwapStep.ROLLING_BACK
