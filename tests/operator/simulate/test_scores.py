"""Figures of runs that were written by hand."""

from __future__ import annotations

import json
import math

import pytest

from adaptive_operator.simulate.plant import Ledger
from adaptive_operator.simulate.requests import Outcome, Request
from adaptive_operator.simulate.run import RunResult
from adaptive_operator.simulate.scores import as_record, combine, percentile, score, warm_up_seconds
from tests.operator.simulate.scenes import make_scenario


def answer(arrival, ttft=0.5, tpot=0.02, outcome=Outcome.FINISHED, quality=1.0):
    first = arrival + ttft
    finished = first + 10 * tpot if outcome is Outcome.FINISHED else math.nan
    return Request(arrival, 100, 11, outcome, "full", "", quality, first, finished)


def result_of(requests, seconds=60.0, **more):
    values = {
        "policy": "test",
        "scenario": make_scenario(),
        "seconds": seconds,
        "requests": tuple(requests),
        "ledger": Ledger(3, 7200.0, 360.0, 4),
        "samples": (),
        "changes": (),
        "plan_seconds": (0.001, 0.002, 0.003),
        "most_held_in_pool": 3,
    }
    return RunResult(**{**values, **more})


def test_every_kind_of_end_counts_where_it_belongs():
    requests = [
        answer(20.0),
        answer(21.0, quality=0.9),
        answer(22.0, ttft=1.5),  # too late
        answer(23.0, tpot=0.05),  # too slow
        answer(24.0, outcome=Outcome.REFUSED),
        answer(25.0, outcome=Outcome.CUT),
        answer(26.0, outcome=Outcome.TIMED_OUT),
        answer(27.0, quality=0.8),
    ]
    scores = score(result_of(requests))
    assert scores.attainment == pytest.approx(3 / 8)
    assert scores.violations == pytest.approx(5 / 8)
    assert (scores.ttft_attainment, scores.tpot_attainment) == (pytest.approx(4 / 8), pytest.approx(4 / 8))
    assert scores.unserved == pytest.approx(3 / 8)
    assert scores.effective_accuracy == pytest.approx(0.9)
    assert scores.system_accuracy == pytest.approx(2.7 / 8)


def test_what_arrives_in_the_warm_up_is_left_out_of_quality_but_not_of_what_was_held():
    scores = score(result_of([answer(5.0, ttft=9.0), answer(10.0)]))
    assert (scores.requests, scores.attainment) == (1, 1.0)
    assert scores.accelerator_hours == pytest.approx(2.0)
    assert scores.starts_per_hour == pytest.approx(240.0)


@pytest.mark.parametrize(("seconds", "left_out"), [(60.0, 10.0), (3600.0, 600.0), (86_400.0, 600.0)])
def test_the_warm_up_is_a_sixth_and_ten_minutes_at_most(seconds, left_out):
    assert warm_up_seconds(seconds) == pytest.approx(left_out)


def test_the_worst_window_and_the_fifth_percentile_need_twenty_requests():
    good = [answer(20.0 + i / 100, quality=1.0) for i in range(20)]
    bad = [answer(30.0 + i / 100, quality=0.9) for i in range(20)]
    few = [answer(40.0 + i / 100, quality=0.1) for i in range(19)]
    scores = score(result_of([*good, *bad, *few]))
    assert scores.worst_drop == pytest.approx(0.1)
    assert scores.quality_p5 == pytest.approx(0.9)


@pytest.mark.parametrize(("part", "expected"), [(0.5, 2), (0.95, 4), (0.0, 1), (1.0, 4)])
def test_a_percentile_is_one_of_the_values(part, expected):
    assert percentile([4, 1, 3, 2], part) == expected


def test_a_record_is_json_without_nan():
    text = json.dumps(as_record(score(result_of([]))), allow_nan=False)
    assert json.loads(text)["attainment"] is None


def test_models_of_a_pool_count_by_their_requests_and_hold_in_sum():
    busy = [answer(20.0 + i / 10) for i in range(30)]
    idle = [answer(20.0, quality=0.8), answer(21.0, ttft=2.0)]
    results = [result_of(requests, most_held_in_pool=5) for requests in (busy, idle)]
    together = combine([score(result) for result in results], results)
    assert together.requests == 32
    assert together.attainment == pytest.approx(31 / 32)
    assert together.effective_accuracy == pytest.approx(30.8 / 31)
    assert together.system_accuracy == pytest.approx(30.8 / 32)
    assert together.accelerator_hours == pytest.approx(4.0)
    assert together.accelerator_hours_per_1000 == pytest.approx(4000 / 31)
    assert together.most_held == 5


def test_a_model_alone_is_scored_as_it_is():
    result = result_of([answer(20.0)])
    own = score(result)
    assert combine([own], [result]) is own
