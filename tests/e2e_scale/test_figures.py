"""Percentiles, the table and the JSON of a scale run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from e2e.scale.audit import ReplicaChanges
from e2e.scale.figures import Figures, Spread, format_figures, to_json


@pytest.mark.parametrize(
    ("values", "p50", "p95", "most"),
    [
        ([3.0], 3.0, 3.0, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 2.0, 4.0, 4.0),
        ([float(n) for n in range(1, 101)], 50.0, 95.0, 100.0),
    ],
)
def test_percentiles_are_values_that_were_seen(values: list[float], p50: float, p95: float, most: float) -> None:
    assert Spread.of(values) == Spread(len(values), p50, p95, most)


def test_nothing_seen_is_not_a_number_and_null_in_json() -> None:
    spread = Spread.of([])
    assert math.isnan(spread.p50)
    assert to_json(dataclasses.asdict(spread)) == {"count": 0, "p50": None, "p95": None, "most": None}


def test_writes_without_a_cause_are_counted_per_minute_and_named() -> None:
    figures = Figures(20, 200, 10, 5, quiet_seconds=120.0, writes_quiet={"patch adaptivemodels/status": 3})
    assert not figures.is_quiet()
    assert figures.writes_per_minute == pytest.approx(1.5)
    assert "| 1.5 {'patch adaptivemodels/status': 3} (+ 0 Lease renewals) |" in format_figures(figures)


def test_changes_without_an_answer_are_told_beside_the_times() -> None:
    figures = Figures(20, 200, 10, 5, quiet_seconds=1.0, change_to_write=Spread.of([1.0, 2.0]), unanswered_changes=1)
    assert "| 1.00 / 2.00 / 2.00 s (2), 1 without an answer |" in format_figures(figures)


def test_replica_changes_under_a_steady_load_are_told_with_those_that_came_back() -> None:
    figures = Figures(20, 200, 10, 5, quiet_seconds=1.0, changes_quiet=ReplicaChanges(5, 3, 2, 1))
    assert "| replica changes when quiet | 5 of 3 models, at most 2 of one; 1 back again |" in format_figures(figures)
    assert "program" not in format_figures(figures)


def test_a_run_of_the_program_tells_how_long_its_answers_took_and_by_which_method() -> None:
    figures = Figures(20, 200, 10, 5, quiet_seconds=1.0, program=True, solved_quiet=Spread.of([0.5]))
    figures.solved_after = Spread.of([0.25])
    figures.counts["end"] = {"adaptive_operator_solver_seconds_count": {"Incremental": 7, "Master": 2}}
    text = format_figures(figures)
    assert "| 0.50 / 0.50 / 0.50 s (1); 0.25 / 0.25 / 0.25 s (1) |" in text
    assert "| {'Incremental': 7, 'Master': 2} |" in text
    assert "| from the load step to the last write | it still writes |" in text
    figures.step_to_quiet = 84.6
    assert "| from the load step to the last write | 85 s |" in format_figures(figures)


def test_a_run_can_be_written_as_json() -> None:
    document = to_json(dataclasses.asdict(Figures(20, 200, 10, 5, passes_quiet=Spread.of([0.5]))))
    assert json.loads(json.dumps(document, allow_nan=False))["passes_quiet"]["p95"] == 0.5
