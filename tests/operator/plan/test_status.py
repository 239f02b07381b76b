"""Status, conditions and Events: written on a change of meaning, in words that name cause and remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adaptive_operator.api.status import AdaptiveModelStatus, Condition
from adaptive_operator.decide.decision import Decision, Finding
from adaptive_operator.observe.observation import Correction, ModelObservation, PolicyMemory, Sample, Unknown
from adaptive_operator.observe.remembered import recall_memory
from adaptive_operator.plan import plan_model
from adaptive_operator.plan.plan import EmitEvent, WriteStatus
from adaptive_operator.reasons import ConditionReason, Reason
from tests.operator.plan.situations import (
    FAILED,
    METRICS,
    NOW,
    PENDING,
    READY,
    SETTINGS,
    TERMINATING,
    demo_tiers,
    make_decision,
    make_model,
    make_spec,
    make_swap,
    with_set,
)

DECISION = make_decision({"full": 1, "int8": 0, "int4": 1}, {"full": 0.7, "int4": 0.3})
BOTH = with_set(with_set(make_model(), "full", [READY]), "int4", [READY])
OTHER_DIGEST = (
    f"ModelCorrupt: model.gguf: sha256 is {'b' * 64}, expected {'a' * 64};"
    " download the weights again, or correct model.sha256"
)


def write(model: ModelObservation, decision: Decision = DECISION, now: float = NOW) -> AdaptiveModelStatus:
    """The status after one pass: what the plan writes, else what was there."""
    steps = plan_model(model, decision, SETTINGS, now, 1).steps
    written = [step for step in steps if isinstance(step, WriteStatus)]
    if not written:
        assert model.status is not None
        return model.status
    return AdaptiveModelStatus.model_validate(written[0].status["status"])


def seen(model: ModelObservation, decision: Decision = DECISION) -> ModelObservation:
    """The model after its first status."""
    return replace(model, status=write(model, decision))


def condition(model: ModelObservation, kind: str, decision: Decision = DECISION) -> Condition:
    return next(item for item in write(seen(model), decision).conditions if item.type == kind)


def events(model: ModelObservation, decision: Decision = DECISION) -> list[EmitEvent]:
    return [step for step in plan_model(model, decision, SETTINGS, NOW, 1).steps if isinstance(step, EmitEvent)]


def test_at_first_sight_ready_is_unknown_and_every_condition_is_there() -> None:
    status = write(make_model())
    assert [item.type for item in status.conditions] == [
        "Ready",
        "TiersReady",
        "MetricsAvailable",
        "ModelLoaded",
        "CapacityLimited",
        "Degraded",
    ]
    assert (status.conditions[0].status, status.conditions[0].reason) == ("Unknown", "FirstSeen")
    assert {item.observed_generation for item in status.conditions} == {3}
    assert status.observed_generation == 3


@pytest.mark.parametrize(
    ("model", "kind", "status", "reason", "words"),
    [
        pytest.param(BOTH, "Ready", "True", "Serving", "answers", id="ready"),
        pytest.param(
            replace(BOTH, routers_ready=0), "Ready", "False", "RouterNotReady", "assistant-router", id="no-router"
        ),
        pytest.param(
            with_set(
                make_model(), "full", [PENDING], trouble="0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
            ),
            "Ready",
            "False",
            "NoReadyReplica",
            "Insufficient nvidia.com/gpu",
            id="no-replica-says-why-in-the-schedulers-words",
        ),
        pytest.param(BOTH, "TiersReady", "True", "ReplicasReady", "every", id="all-tiers-ready"),
        pytest.param(
            with_set(make_model(), "full", [READY]),
            "TiersReady",
            "False",
            "ReplicasNotReady",
            "int4 0/1",
            id="a-tier-is-missing",
        ),
        pytest.param(
            with_set(BOTH, "int8", [TERMINATING], replicas=0),
            "TiersReady",
            "False",
            "Swapping",
            "int8",
            id="a-replica-still-ends",
        ),
        pytest.param(BOTH, "MetricsAvailable", "True", "SamplesFresh", "fresh", id="fresh-samples"),
        pytest.param(
            replace(BOTH, metrics=replace(METRICS, arrivals=Unknown("sum(rate(x[15s]))", "connection refused"))),
            "MetricsAvailable",
            "False",
            "SamplesUnknown",
            "sum(rate(x[15s])): connection refused",
            id="no-prometheus-names-the-query",
        ),
        pytest.param(
            replace(BOTH, routers_ready=0, metrics=replace(METRICS, arrivals=Unknown("q", "no samples yet"))),
            "MetricsAvailable",
            "Unknown",
            "SamplesUnknown",
            "no samples yet",
            id="nothing-to-scrape-yet-is-no-fault",
        ),
        pytest.param(
            replace(BOTH, metrics=replace(METRICS, queue=Sample(0, 31))),
            "MetricsAvailable",
            "False",
            "SamplesStale",
            "queue: the last sample is older than 30 s",
            id="stale-samples",
        ),
        pytest.param(
            with_set(BOTH, "int8", [FAILED], load_failure_reason="ModelCorrupt", trouble="ModelCorrupt: bad magic"),
            "ModelLoaded",
            "False",
            "ModelCorrupt",
            "tier int8 cannot load: ModelCorrupt: bad magic",
            id="a-corrupt-file",
        ),
        pytest.param(
            with_set(BOTH, "int8", [FAILED], load_failure_reason="x; rm -rf", trouble="made up"),
            "ModelLoaded",
            "False",
            "EngineFailed",
            "made up",
            id="a-containers-own-reason-is-not-taken-over",
        ),
        pytest.param(
            with_set(BOTH, "int8", [FAILED], trouble="ImagePullBackOff: not found"),
            "ModelLoaded",
            "False",
            "EngineFailed",
            "ImagePullBackOff",
            id="a-missing-image",
        ),
        pytest.param(BOTH, "ModelLoaded", "True", "Loaded", "loaded", id="loaded"),
        pytest.param(make_model(), "ModelLoaded", "Unknown", "Loading", "yet", id="not-loaded-yet"),
        pytest.param(BOTH, "CapacityLimited", "False", "WithinBudget", "carries", id="enough-capacity"),
        pytest.param(BOTH, "Degraded", "False", "AsWanted", "nothing", id="not-degraded"),
        pytest.param(
            with_set(BOTH, "int8", [FAILED], load_failure_reason="ModelCorrupt", trouble=OTHER_DIGEST),
            "Degraded",
            "True",
            "EngineFailed",
            f"-0: {OTHER_DIGEST}",
            id="weights-with-another-digest",
        ),
    ],
)
def test_conditions(model: ModelObservation, kind: str, status: str, reason: str, words: str) -> None:
    found = condition(model, kind)
    assert (found.status, found.reason) == (status, reason)
    assert words in found.message


def test_a_failing_tier_does_not_make_a_serving_model_unready() -> None:
    assert condition(with_set(BOTH, "int8", [FAILED], trouble="x"), "Ready").status == "True"


def test_capacity_limited_tells_who_got_what() -> None:
    finding = Finding(Reason.BUDGET_SHARED, "demo/a holds 3, demo/b holds 1 of 4")
    found = condition(BOTH, "CapacityLimited", replace(DECISION, findings=(finding,)))
    assert (found.status, found.reason, found.message) == ("True", "BudgetShared", finding.message)


@pytest.mark.parametrize(
    ("reason", "told"),
    [(Reason.HELD_FOR_MISSING_METRICS, "SamplesUnknown"), (Reason.HELD_FOR_STALE_METRICS, "SamplesStale")],
)
def test_nothing_is_claimed_of_the_capacity_while_demand_is_unknown(reason: Reason, told: str) -> None:
    decision = replace(DECISION, findings=(Finding(reason, "sum(rate(x[15s])): connection refused"),))
    found = condition(BOTH, "CapacityLimited", decision)
    assert (found.status, found.reason) == ("Unknown", told)
    assert found.message == "demand is unknown: sum(rate(x[15s])): connection refused"


def test_a_limit_that_binds_is_told_even_while_demand_is_unknown() -> None:
    unknown = Finding(Reason.HELD_FOR_MISSING_METRICS, "q: gone")
    decision = replace(DECISION, findings=(unknown, Finding(Reason.BUDGET_EXCEEDED, "5 are held, the budget is 4")))
    found = condition(BOTH, "CapacityLimited", decision)
    assert (found.status, found.reason) == ("True", "BudgetExceeded")


def test_a_tier_in_quarantine_keeps_the_model_degraded_with_the_pods_words() -> None:
    memory = PolicyMemory(
        quarantined_until={"int8": NOW + 900}, quarantine_causes={"int8": "1 Insufficient nvidia.com/gpu"}
    )
    found = condition(BOTH, "Degraded", replace(DECISION, memory=memory))
    assert (found.status, found.reason) == ("True", "SwapRolledBack")
    assert "int8" in found.message
    assert "Insufficient nvidia.com/gpu" in found.message


def test_a_replica_stuck_on_a_lost_node_keeps_tiers_from_being_ready_in_its_own_words() -> None:
    words = "its node node-7 does not answer or was tainted"
    model = with_set(with_set(make_model(), "int4", [READY]), "full", [TERMINATING], replicas=1, trouble=words)
    found = condition(model, "TiersReady")
    assert (found.status, found.reason) == ("False", "ReplicasNotReady")
    assert "full 0/1" in found.message
    assert words in found.message
    assert write(model).accelerators_held == 3


def test_an_empty_map_of_the_memory_is_left_out_for_the_api_server_would_make_it_null() -> None:
    memory = PolicyMemory(quarantined_until={"int8": NOW + 900}, quarantine_causes={"int8": "no node"})
    before = replace(BOTH, status=write(BOTH, replace(DECISION, memory=memory)))
    steps = plan_model(before, DECISION, SETTINGS, NOW, 1).steps
    written = next(step.status for step in steps if isinstance(step, WriteStatus))
    assert not [key for key, value in written["status"].get("memory", {}).items() if value == {}]


def test_a_load_failure_stays_told_while_its_tier_is_in_quarantine() -> None:
    failing = seen(seen(with_set(BOTH, "int8", [FAILED], load_failure_reason="ModelNotFound", trouble="no such file")))
    memory = PolicyMemory(quarantined_until={"int8": NOW + 900})
    after = replace(BOTH, status=failing.status)
    told = next(i for i in write(after, replace(DECISION, memory=memory)).conditions if i.type == "ModelLoaded")
    assert (told.status, told.reason) == ("False", "ModelNotFound")
    assert next(item for item in write(after).conditions if item.type == "ModelLoaded").status == "True"


def test_a_transition_time_moves_only_with_the_status() -> None:
    first = write(seen(BOTH), now=NOW)
    limited = replace(DECISION, findings=(Finding(Reason.CAPACITY_LIMITED, "a"),))
    second = write(replace(BOTH, status=first), limited, now=NOW + 60)
    third = write(
        replace(BOTH, status=second), replace(limited, findings=(Finding(Reason.BUDGET_SHARED, "b"),)), NOW + 90
    )
    times = [{item.type: item.last_transition_time for item in status.conditions} for status in (first, second, third)]
    changed = {kind for kind in times[0] if times[0][kind] != times[1][kind]}
    assert changed == {"CapacityLimited"}
    assert times[2] == times[1]


@pytest.mark.parametrize(
    ("readings", "told"),
    [
        ([998.0], [990]),
        ([1000.0], [1000]),
        ([999.99], [1000]),
        ([1000.0, 995.0], [1000, 1000]),
        ([1000.0, 985.0], [1000, 980]),
        ([998.0, 992.0, 989.0, 981.0, 1000.0], [990, 990, 990, 990, 990]),
        ([998.0, 979.0], [990, 970]),
        ([880.0, None, 885.0], [880, 880, 880]),
        ([None], [None]),
    ],
    ids=str,
)
def test_served_quality_is_rounded_with_hysteresis_and_a_missing_reading_keeps_it(
    readings: list[float | None], told: list[int | None]
) -> None:
    model, values = BOTH, []
    for reading in readings:
        quality = Unknown("q", "no requests") if reading is None else Sample(reading, 1)
        model = replace(model, metrics=replace(METRICS, served_quality_permille=quality))
        model = replace(model, status=write(model))
        assert model.status is not None
        values.append(model.status.served_quality_permille)
    assert values == told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({}, "88%", id="a-short-pause-keeps-it"),
        pytest.param({"peak_arrivals": Sample(0.0, 1.0)}, None, id="nothing-was-asked-for-in-the-hold-window"),
        pytest.param({"arrivals": Unknown("q", "connection refused")}, None, id="prometheus-is-gone"),
    ],
)
def test_served_quality_goes_when_it_tells_of_nothing_any_more(changes: dict[str, Any], told: str | None) -> None:
    model = seen(replace(BOTH, metrics=replace(METRICS, served_quality_permille=Sample(885.0, 1.0))))
    unread = replace(METRICS, served_quality_permille=Unknown("quality", "not a number"), **changes)
    assert write(replace(model, metrics=unread)).served_quality_summary == told


def test_the_summaries_say_what_runs_what_is_wanted_and_what_it_costs() -> None:
    status = write(with_set(BOTH, "int8", [PENDING]), make_decision({"full": 1, "int8": 2, "int4": 1}))
    assert status.tiers_summary == "full 1/1 · int8 0/2 · int4 1/1"
    assert (status.accelerators_summary, status.served_quality_summary) == ("4/4", "100%")


def test_it_is_told_whether_a_rate_was_declared_or_is_that_of_a_curve() -> None:
    status = write(replace(BOTH, rates_from_curves=("int4",)))
    assert {tier.name: tier.card_source for tier in status.tiers} == {
        "full": "Declared",
        "int8": "Declared",
        "int4": "Curve",
    }


def test_the_operators_budget_counts_when_it_is_the_smaller_one() -> None:
    settings = replace(SETTINGS, accelerator_budgets={"nvidia.com/gpu": 3})
    step = plan_model(BOTH, DECISION, settings, NOW, 1).steps[0]
    assert isinstance(step, WriteStatus)
    assert step.status["status"]["acceleratorsSummary"] == "3/3"


def test_history_gets_an_entry_only_for_another_reason_or_other_replicas() -> None:
    model = seen(seen(BOTH))
    again = replace(DECISION, message="demand 1.01/s", inputs="demand 1.01/s (age 2 s)")
    assert write(model, again) == model.status
    other = write(model, replace(DECISION, reason=Reason.HELD_BY_DWELL))
    assert [entry.reason for entry in other.history] == ["Steady", "HeldByDwell"]
    assert other.last_decision == other.history[-1]


ANEW: dict[str, dict[str, Any]] = {
    "another budget": {"budget": 5},
    "other shares": {"shares": "after"},
    "no share": {"shares": ""},
    "another demand": {"demand_milli": 700},
    "others hold a part of the budget": {"limit": 3},
}


@pytest.mark.parametrize("name", ANEW)
def test_a_decision_that_is_explained_anew_is_no_news(name: str) -> None:
    told = replace(DECISION, reason=Reason.CAPACITY_LIMITED, binding=("the budget of 4 accelerators",), budget=4)
    told = replace(told, shares="before", pool="2 accelerators", demand_milli=345, limit=4)
    model = seen(BOTH, told)
    later = replace(told, binding=("of later",), alternative="full 2", pool="3 of them", **ANEW[name])
    status = write(model, later, NOW + 60)
    assert model.status is not None
    before, after = model.status.last_decision, status.last_decision
    assert before is not None
    assert after is not None
    assert (after.binding, after.alternative, after.pool) == (later.binding, "full 2", "3 of them")
    assert (after.budget, after.shares or "") == (later.budget, later.shares)
    assert (after.demand_milli, after.limit) == (later.demand_milli, later.limit)
    assert after.time == before.time
    assert status.history == (after,)
    assert not [event for event in events(model, later) if event.reason is Reason.CAPACITY_LIMITED]


def test_history_keeps_the_last_ten() -> None:
    model = BOTH
    for turn in range(12):
        reason = Reason.HELD_BY_DWELL if turn % 2 else Reason.STEADY
        model = replace(model, status=write(model, replace(DECISION, reason=reason), NOW + turn))
    assert model.status is not None
    assert len(model.status.history) == 10
    assert model.status.history[-1].reason == "HeldByDwell"


def test_while_a_swap_runs_from_and_to_stay_what_it_leads_from_and_to() -> None:
    target = {"full": 0, "int8": 3, "int4": 1}
    swap = make_swap({"full": 1, "int4": 1}, target)
    decision = make_decision(target, reason=Reason.SWAPPED_TO_CHEAPER_TIER, swap=swap)
    for model in (BOTH, with_set(BOTH, "int8", [PENDING])):
        entry = write(model, decision).last_decision
        assert entry is not None
        assert (entry.from_, entry.to) == ("full 1 · int4 1", "int8 3 · int4 1")


def test_agreement_that_only_waits_for_the_dwell_is_not_written_again() -> None:
    enough = PolicyMemory(agreed_plan="p", agreed_count=3, agreed_at=NOW)
    model = seen(seen(BOTH, replace(DECISION, memory=enough)), replace(DECISION, memory=enough))
    later = replace(DECISION, memory=replace(enough, agreed_count=9, agreed_at=NOW + 15))
    assert write(model, later) == model.status


@pytest.mark.parametrize(
    ("plan", "count", "written"),
    [
        pytest.param("full=2,int4=1", 1, None, id="what one plan saw is not written: the next may not see it"),
        pytest.param("full=2,int4=1", 2, "full=2,int4=1", id="what two saw is"),
        pytest.param("more than full=1,int4=1", 1, "more than full=1,int4=1", id="what lacks is at once"),
    ],
)
def test_an_agreement_is_written_when_it_has_more_than_begun(plan: str, count: int, written: str | None) -> None:
    memory = replace(DECISION.memory, agreed_plan=plan, agreed_count=count, agreed_at=NOW)
    model = seen(seen(BOTH))
    status = write(model, replace(DECISION, memory=memory))
    told = recall_memory(status)
    assert (told.agreed_plan, told.agreed_count) == (written, count if written else 0)
    assert (status == model.status) is (written is None)


def test_whatever_is_too_long_is_cut_and_the_status_stays_valid() -> None:
    tiers = [{**demo_tiers()[2], "name": f"tier-with-a-very-long-name-{n:02}"} for n in range(16)]
    replicas = {tier["name"]: 1 for tier in tiers}
    swap = make_swap({**replicas, "gone": 1, "gone-too": 0}, replicas, id="x" * 100)
    decision = make_decision(
        replicas, message="m" * 5000, swap=swap, findings=(Finding(Reason.CAPACITY_LIMITED, "c" * 5000),)
    )
    status = write(make_model(make_spec(tiers)), decision)
    assert status.last_decision is not None
    assert len(status.last_decision.message) == 1024
    assert status.swap is not None
    assert len(status.swap.from_) == 16


SEEN = ("seen: demand 1.00/s (age 1 s)",)


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        pytest.param(DECISION, [], id="nothing-new"),
        pytest.param(replace(DECISION, reason=Reason.HELD_BY_DWELL), [], id="a-hold-is-no-event"),
        pytest.param(
            make_decision({"full": 0, "int8": 3, "int4": 1}, reason=Reason.SWAPPED_TO_CHEAPER_TIER, message="too much"),
            [EmitEvent(Reason.SWAPPED_TO_CHEAPER_TIER, "full 1 · int4 1 → int8 3 · int4 1: too much", details=SEEN)],
            id="a-change-tells-old-and-new",
        ),
        pytest.param(
            replace(DECISION, findings=(Finding(Reason.QUALITY_FLOOR_INFEASIBLE, "floor 990"),)),
            [EmitEvent(Reason.QUALITY_FLOOR_INFEASIBLE, "floor 990", warning=True)],
            id="a-condition-that-turns-bad",
        ),
        pytest.param(
            replace(DECISION, reason=Reason.CAPACITY_LIMITED, message="full"),
            [EmitEvent(Reason.CAPACITY_LIMITED, "full", warning=True, details=SEEN)],
            id="one-event-for-reason-and-condition",
        ),
    ],
)
def test_events(decision: Decision, expected: list[Any]) -> None:
    model = seen(seen(BOTH))
    assert events(model, decision) == expected


def test_an_event_tells_all_of_the_explanation_the_readings_first() -> None:
    explained = replace(
        make_decision({"full": 0, "int8": 3, "int4": 1}, reason=Reason.ADDED_REPLICA),
        binding=("the budget of 4 accelerators", "quality.floorPermille 900"),
        alternative="int8 2 · int4 2: 900 instead of 950 permille",
        pool="2 accelerators (weight 1): has all that it wants",
    )
    [event] = events(seen(seen(BOTH)), explained)
    assert event.details == (
        *SEEN,
        "binding: the budget of 4 accelerators; quality.floorPermille 900",
        "instead: int8 2 · int4 2: 900 instead of 950 permille",
        "pool: 2 accelerators (weight 1): has all that it wants",
    )


def test_a_normal_start_is_no_warning_and_losing_the_last_replica_is_one() -> None:
    starting = seen(make_model())
    assert [(event.reason, event.warning) for event in events(starting)] == [(ConditionReason.NO_READY_REPLICA, False)]
    serving = seen(seen(BOTH))
    lost = replace(serving, pods=(), stateful_sets=())
    assert (ConditionReason.NO_READY_REPLICA, True) in [(event.reason, event.warning) for event in events(lost)]


NOT_SCRAPED = replace(METRICS, arrivals=Unknown("arrivals", "no samples yet"))
STARTS = {
    # routers ready, for how many seconds, what is written before -> (reason, warning)
    "the router is not ready yet": (0, None, "starting", (ConditionReason.ROUTER_NOT_READY, False)),
    "the router of a model that served is gone": (0, None, "serving", (ConditionReason.ROUTER_NOT_READY, True)),
    "nothing was scraped, and could not have been": (1, 20.0, "starting", None),
    "nothing was scraped, though it should have been": (1, 61.0, "starting", (ConditionReason.SAMPLES_UNKNOWN, True)),
    "nothing can be scraped any more": (1, 5000.0, "serving", (ConditionReason.SAMPLES_UNKNOWN, True)),
}


@pytest.mark.parametrize("name", STARTS)
def test_what_belongs_to_a_start_is_no_warning_and_later_it_is_one_when(name: str) -> None:
    routers, ready_for, before, expected = STARTS[name]
    since = None if ready_for is None else NOW - ready_for
    now = replace(BOTH, routers_ready=routers, routers_ready_since=since, metrics=NOT_SCRAPED)
    written = seen(replace(make_model(), metrics=NOT_SCRAPED, routers_ready=0)) if before == "starting" else BOTH
    model = replace(now, status=seen(seen(written)).status)
    starts = {ConditionReason.ROUTER_NOT_READY, ConditionReason.SAMPLES_UNKNOWN}
    told = [(event.reason, event.warning) for event in events(model) if event.reason in starts]
    assert told == ([] if expected is None else [expected])


@pytest.mark.parametrize(("ready_for", "warning"), [(20.0, False), (61.0, True)])
def test_a_hold_for_missing_metrics_is_no_warning_while_there_is_nothing_to_read_yet(
    ready_for: float, warning: bool
) -> None:
    model = replace(seen(seen(BOTH)), metrics=NOT_SCRAPED, routers_ready_since=NOW - ready_for)
    held = replace(DECISION, reason=Reason.HELD_FOR_MISSING_METRICS, message="no samples yet")
    assert (Reason.HELD_FOR_MISSING_METRICS, warning) in [(e.reason, e.warning) for e in events(model, held)]


@pytest.mark.parametrize(("mode", "ready"), [("Active", "True"), ("Paused", "False"), ("DryRun", "False")])
def test_without_its_service_a_model_is_ready_only_where_the_operator_makes_it_again(mode: str, ready: str) -> None:
    model = with_set(with_set(make_model(make_spec(mode=mode)), "full", [READY]), "int4", [READY])
    found = condition(model, "Ready")
    assert found.status == ready
    assert ready == "True" or "Service assistant is gone" in found.message


def test_getting_ready_is_told_once() -> None:
    model = seen(BOTH)
    assert [event.reason for event in events(model)] == [ConditionReason.SERVING]
    assert events(seen(model)) == []


def test_the_decision_tells_what_the_pool_gives_and_nothing_where_there_is_none_to_share() -> None:
    assert write(BOTH).last_decision is not None
    shared = write(BOTH, replace(DECISION, pool="the pool's plan is full 1"))
    assert shared.last_decision is not None
    assert shared.last_decision.pool == "the pool's plan is full 1"
    alone = write(BOTH).last_decision
    assert alone is not None
    assert alone.pool is None


def test_a_pool_that_was_not_solved_needs_a_persons_eye() -> None:
    told = Finding(Reason.POOL_NOT_SOLVED, "the pool's program was not solved")
    degraded = next(c for c in write(BOTH, replace(DECISION, findings=(told,))).conditions if c.type == "Degraded")
    assert (degraded.status, degraded.reason) == ("True", "PoolNotSolved")


def test_a_card_that_is_far_from_what_was_measured_needs_a_persons_eye() -> None:
    told = Finding(Reason.CARD_STALE, "full card 0.80/s, measured 0.60 of it: measure the tier again")
    stale = replace(DECISION, findings=(told,))
    degraded = next(c for c in write(BOTH, stale).conditions if c.type == "Degraded")
    assert (degraded.status, degraded.reason, degraded.message) == ("True", "CardStale", told.message)
    assert [(event.reason, event.warning) for event in events(seen(seen(BOTH)), stale)] == [(Reason.CARD_STALE, True)]
    assert events(seen(seen(seen(BOTH)), stale), stale) == []


def test_what_was_measured_of_a_tier_is_written_and_recalled_as_it_was() -> None:
    memory = PolicyMemory(
        corrections={
            "full": Correction(800, 700, NOW - 60, "0a1b2c3d", probes=1, failed_probes=2),
            "int4": Correction(650, 1050, NOW - 3600),
        }
    )
    status = write(BOTH, replace(DECISION, memory=memory))
    assert recall_memory(status).corrections == memory.corrections
    assert recall_memory(write(BOTH)).corrections == {}


def test_a_factor_that_stands_still_writes_nothing() -> None:
    memory = PolicyMemory(corrections={"full": Correction(800, 700, NOW - 60)})
    decision = replace(DECISION, memory=memory, factors={"full": 0.7})
    model = seen(seen(BOTH, decision), decision)
    statuses = [s for s in plan_model(model, decision, SETTINGS, NOW + 15, 1).steps if isinstance(s, WriteStatus)]
    assert statuses == []
    moved = replace(decision, memory=PolicyMemory(corrections={"full": Correction(800, 650, NOW)}))
    assert write(model, moved) != model.status


def test_the_short_view_tells_the_last_decision() -> None:
    status = write(BOTH, replace(DECISION, reason=Reason.HELD_BY_DWELL, message="5 minutes are not over"))
    assert (status.reason_summary, status.message_summary) == ("HeldByDwell", "5 minutes are not over")


def test_a_swap_under_way_keeps_the_cause_that_it_began_for() -> None:
    """However often it is explained anew, and whatever else was decided meanwhile."""
    target = {"full": 0, "int8": 3, "int4": 1}
    swap = make_swap({"full": 1, "int4": 1}, target)
    begun = make_decision(target, reason=Reason.SWAPPED_TO_CHEAPER_TIER, message="demand passes 1.31/s", swap=swap)
    model = replace(BOTH, status=write(BOTH, begun), swap=swap)
    going = replace(begun, message="full 1 · int4 1 to int8 3 · int4 1 under way", demand_milli=900)
    anew = write(model, going, NOW + 15)
    assert [entry.message for entry in anew.history] == ["demand passes 1.31/s"]
    held = write(replace(model, status=anew), replace(going, reason=Reason.HELD_WHILE_SWAPPING), NOW + 30)
    again = write(replace(model, status=held), going, NOW + 45)
    assert again.last_decision is not None
    assert (again.last_decision.message, len(again.history)) == ("demand passes 1.31/s", 3)


def test_a_swap_that_begins_anew_tells_its_own_cause() -> None:
    target = {"full": 0, "int8": 3, "int4": 1}
    first = make_swap({"full": 1, "int4": 1}, target)
    begun = make_decision(target, reason=Reason.SWAPPED_TO_CHEAPER_TIER, message="demand passes 1.31/s", swap=first)
    model = replace(BOTH, status=write(BOTH, begun), swap=None)
    later = replace(begun, message="demand passes 2.00/s", demand_milli=900, swap=replace(first, id="swap-2"))
    entry = write(model, later, NOW + 600).last_decision
    assert entry is not None
    assert entry.message == "demand passes 2.00/s"


OUT_OF_REACH = Finding(Reason.QUALITY_FLOOR_INFEASIBLE, "quality.floorPermille 999 is out of reach: lower it to 780")


def above(floor: int, *, tiers: tuple[str, ...] = ("int4",)) -> ModelObservation:
    """A model with this floor whose tiers are ready."""
    model = make_model(make_spec(quality={"floorPermille": floor}))
    for name in tiers:
        model = with_set(model, name, [READY])
    return model


def test_a_model_that_refuses_every_request_at_its_floor_is_neither_ready_nor_well() -> None:
    decision = replace(make_decision({"full": 0, "int8": 0, "int4": 1}), findings=(OUT_OF_REACH,))
    ready, degraded = (condition(above(999), kind, decision) for kind in ("Ready", "Degraded"))
    assert (ready.status, ready.reason) == ("False", "QualityFloorInfeasible")
    assert ready.message == f"requests are refused: {OUT_OF_REACH.message}"
    assert (degraded.status, degraded.reason, degraded.message) == (
        "True",
        "QualityFloorInfeasible",
        OUT_OF_REACH.message,
    )


def test_a_floor_that_only_the_load_passes_leaves_a_model_ready_and_well() -> None:
    decision = replace(make_decision({"full": 1, "int8": 0, "int4": 1}), findings=(OUT_OF_REACH,))
    for kind in ("Ready", "Degraded"):
        told = condition(above(999, tiers=("full", "int4")), kind, decision)
        assert told.reason in ("Serving", "AsWanted")
