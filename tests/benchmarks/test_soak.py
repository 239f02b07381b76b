import dataclasses
import functools
import json
import random

import pytest

from benchmarks.engine_process import parse_metrics
from benchmarks.soak import (
    FLAGS,
    LEVELS,
    PRESSURE_FLAGS,
    WAYS,
    Plan,
    Tally,
    draw_plan,
    judge_last_frame,
    judge_status,
    render,
)
from benchmarks.soak_verdict import SoakRecord, find_faults
from inference_pods.engine.settings import parse_settings

MIB = 2**20
IDLE = {
    "adaptive_engine_running": 0.0,
    "adaptive_engine_waiting": 0.0,
    "adaptive_engine_kv_blocks_used": 0.0,
    "adaptive_engine_integrity_failures_total": 0.0,
    "adaptive_engine_verifications_total": 12.0,
}
OUTCOMES = {"completed": 30, "cancelled": 8, "disconnected": 7, "deadline passed": 5}
GOOD = SoakRecord(
    [300 * MIB] * 100, IDLE, 50, OUTCOMES, {"int8": 20, "int4": 10}, [], {"int8": "Paris"}, {"int8": "Paris"}, None,
    {"/generate": 18, "/v1/completions streamed": 12}, 4, 6
)  # fmt: skip
judge = functools.partial(find_faults, levels=("int8", "int4"), ways=("/generate", "/v1/completions streamed"))


def without(outcome):
    """Other outcomes took its place."""
    return {**OUTCOMES, outcome: 0, "overloaded": OUTCOMES[outcome]}


def test_a_run_that_leaves_everything_as_it_was_passes():
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"idle_metrics": {**IDLE, "adaptive_engine_kv_blocks_used": 3.0}}, "kv_blocks_used is 3.0"),
        ({"idle_metrics": {}}, "integrity_failures_total is None"),
        ({"started": 51}, "51 requests were started, 50 ended"),
        ({"started": 0, "outcomes": {}}, "0 requests were started"),
        ({"completed": {"int8": 20, "int4": 0}}, "nothing was completed at level int4"),
        ({"completed": {"int8": 20}}, "nothing was completed at level int4"),
        ({"outcomes": without("cancelled")}, "no request was cancelled"),
        ({"outcomes": without("disconnected")}, "no stream was left"),
        ({"outcomes": without("deadline passed")}, "no deadline passed"),
        ({"ways": {"/generate": 30}}, "nothing was completed on /v1/completions streamed"),
        ({"ways": {"/generate": 0, "/v1/completions streamed": 30}}, "nothing was completed on /generate"),
        ({"level_changes": 0}, "no request changed its level"),
        ({"undrafted": 0}, "nothing was completed at the top level without drafts"),
        ({"idle_metrics": {**IDLE, "adaptive_engine_verifications_total": 0.0}}, "no draft was verified"),
        ({"failures": ["status 500: x"]}, "1 requests failed, first: status 500: x"),
        ({"last_answers": {"int8": "Rome"}}, "answer at level int8 changed"),
        (
            {"first_answers": {"int8": "Paris", "int8 without drafts": "Rome"}},
            "answer at level int8 is another one without drafts",
        ),
        ({"last_answers": {}}, "answer at level int8 changed"),
        ({"rss_bytes": [300 * MIB] * 75 + [400 * MIB] * 25}, "grew from 300 MiB in the warm-up to 400 MiB"),
        ({"rss_bytes": [300 * MIB]}, "too short"),
        ({"exit_code": -9}, "exit code -9"),
    ],
)
def test_each_fault_fails_the_run(change, words):
    assert any(words in fault for fault in judge(dataclasses.replace(GOOD, **change)))


@pytest.mark.parametrize(("preemptions", "faults"), [(3.0, 0), (0.0, 1), (None, 1)])
def test_a_run_under_pressure_fails_unless_something_was_preempted(preemptions, faults):
    metrics = IDLE if preemptions is None else {**IDLE, "adaptive_engine_preemptions_total": preemptions}

    assert len(judge(dataclasses.replace(GOOD, idle_metrics=metrics), must_preempt=True)) == faults


def test_pressure_changes_only_the_room_to_wait_and_the_kv_cache():
    plain, pressed = (parse_settings(["--model-source", "file:///x", *flags]) for flags in (FLAGS, PRESSURE_FLAGS))

    assert pressed == dataclasses.replace(plain, max_waiting=64, kv_cache_tokens=512)


def test_memory_that_fills_during_the_warm_up_is_no_leak():
    growing = [(200 + i * 10) * MIB for i in range(20)]

    assert judge(dataclasses.replace(GOOD, rss_bytes=growing + [400 * MIB] * 80)) == []


@pytest.mark.parametrize(
    ("headers", "refused", "status", "right"),
    [
        ({}, None, 200, True),
        ({}, None, 429, True),
        ({}, None, 424, False),
        ({"x-deadline-ms": "5"}, None, 424, True),
        ({}, None, 500, False),
        ({}, 422, 422, True),
        ({}, 422, 200, False),
        ({}, 400, 422, False),
    ],
)
def test_each_request_must_end_as_its_plan_says(headers, refused, status, right):
    plan = Plan("/generate", {}, headers, None, None, refused)

    assert judge_status(plan, status, {"generated_text": "x"})[1] is right


@pytest.mark.parametrize(
    ("body", "headers", "status", "right"),
    [
        pytest.param({"choices": [{"finish_reason": "stop"}]}, {}, 200, True, id="complete"),
        pytest.param({"choices": [{"finish_reason": None}]}, {}, 200, False, id="not to the end"),
        pytest.param({"choices": []}, {}, 200, False, id="without a text"),
        pytest.param({"error": {}}, {"x-deadline-ms": "5"}, 504, True, id="a deadline has its own status"),
        pytest.param({"error": {}}, {"x-deadline-ms": "5"}, 424, False, id="which is not that of the other family"),
    ],
)
def test_requests_of_openais_routes_are_judged_in_their_family(body, headers, status, right):
    plan = Plan("/v1/completions", {}, headers, None, None, None)

    assert judge_status(plan, status, body)[1] is right


@pytest.mark.parametrize(
    ("path", "frame", "outcome"),
    [
        ("/generate_stream", {"generated_text": "x", "details": {}}, "completed"),
        ("/generate_stream", {"error": "late", "error_type": "generation"}, "deadline passed"),
        ("/generate_stream", {"token": {}, "generated_text": None}, "a stream ended without its last frame"),
        ("/v1/completions", {"choices": [{"finish_reason": "length"}]}, "completed"),
        ("/v1/completions", {"error": {"code": "deadline_exceeded"}}, "deadline passed"),
        ("/v1/completions", {"choices": [{"finish_reason": None}]}, "a stream ended without its last frame"),
        ("/v1/completions", None, "a stream ended without its last frame"),
    ],
)
def test_a_stream_is_judged_by_its_last_frame(path, frame, outcome):
    plan = Plan(path, {"stream": True}, {"x-deadline-ms": "5"}, None, None, None)

    assert judge_last_frame(plan, frame)[0] == outcome


def test_only_what_was_completed_at_the_top_level_with_drafts_off_counts_as_undrafted():
    tally = Tally()
    for headers, outcome in [
        ({"x-level": "int8", "x-speculate": "off"}, "completed"),
        ({"x-level": "int8", "x-speculate": "off"}, "overloaded"),
        ({"x-level": "int4", "x-speculate": "off"}, "completed"),
        ({"x-level": "int8"}, "completed"),
    ]:
        tally.end(Plan("/v1/completions", {"stream": True}, headers, None, None, None), outcome, True)

    assert tally.undrafted == 1
    assert tally.ways == {"/v1/completions streamed": 3}


def test_only_completed_requests_count_as_work_at_their_level():
    tally, plan = Tally(), Plan("/generate", {}, {"x-level": "int4"}, None, None, None)

    tally.end(plan, "completed", True)
    tally.end(plan, "overloaded", True)
    tally.end(plan, "status 500: x", False)

    assert tally.completed == {"int4": 1}
    assert tally.failures == ["status 500: x"]


def test_what_a_run_counted_can_be_written_as_json():
    tally, plan = Tally(), Plan("/generate", {}, {"x-level": "int8"}, None, None, None)
    tally.end(plan, "completed", True)

    record = dataclasses.replace(GOOD, outcomes=tally.outcomes, completed=tally.completed)

    assert json.loads(render(record, ["a fault"]))["completed"] == {"int8": 1}


def test_plans_cover_levels_leaving_deadlines_and_refusals():
    draw = random.Random(3)
    plans = [draw_plan(draw) for _ in range(500)]

    assert {plan.headers["x-level"] for plan in plans} == {*LEVELS, "int2"}
    assert {plan.refused_status for plan in plans} == {None, 400, 422}
    assert any(plan.leave_after_frames is not None for plan in plans)
    assert any(plan.leave_after_seconds is not None for plan in plans)
    assert any("x-deadline-ms" in plan.headers for plan in plans)
    assert {plan.way for plan in plans} == set(WAYS)
    assert {plan.change.level for plan in plans if plan.change is not None} == set(LEVELS)
    assert {plan.headers.get("x-speculate") for plan in plans} == {None, "off"}
    assert all(("x-request-id" in plan.headers) == (plan.change is not None) for plan in plans)


def test_metrics_are_read_without_their_labels():
    text = '# HELP x y\n# TYPE x gauge\nadaptive_engine_running{model="m",tier="t"} 2.0\n'

    assert parse_metrics(text) == {"adaptive_engine_running": 2.0}
