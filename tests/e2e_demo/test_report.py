"""View, summary and plot show what was measured, also when something did not happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from e2e.demo.plot import draw, smoothed_rate
from e2e.demo.sample import Explanation
from e2e.demo.summary import Run, as_json, describe, faults
from e2e.demo.timeline import Baseline, Timeline
from e2e.demo.view import LoadState, explain, line, render
from e2e.load.arrivals import Step

Build = Callable[..., Any]
LOAD = LoadState(1, 4, 1.0, 12, 2)


@pytest.fixture
def run(sample: Build, record: Build) -> Run:
    return Run(
        steps=[Step(0.4, 30), Step(1, 30), Step(2.1, 90), Step(0.4, 80)],
        step_starts=[0, 30, 60, 150],
        records=[record(float(at), "full" if at % 2 else "int4", step=min(3, at // 50)) for at in range(200)],
        samples=[sample(float(at), {"full": 1, "int4": 1}) for at in range(200)],
        baseline=Baseline("full", 1, 1000),
        timeline=Timeline(32.5, 64, 90, 170, 195),
        capacities={"full": 0.8, "int8": 0.65, "int4": 0.65},
        budget=4,
        ttft_objective_seconds=3,
        tpot_objective_seconds=0.3,
        stage_seconds={"Load": 230.0},
    )


def test_a_good_run_has_no_faults_and_its_spans_count_from_the_cause(run: Run) -> None:
    assert faults(run) == []
    text = describe(run)
    assert "sent 200 = ok 200 + failed 0" in text
    for span in ("2.5 s", "4.0 s", "30.0 s", "20.0 s", "45.0 s"):
        assert span in text
    assert as_json(run)["requests"] == {"sent": 200, "ok": 200, "failed": 0}


def test_each_fault_is_named(run: Run, record: Build, sample: Build) -> None:
    failed = replace(run, records=[*run.records, record(5.0, "int8", error="HTTP 503: no")])
    assert faults(failed) == ["1 requests failed"]
    assert "1 x HTTP 503: no" in describe(failed)
    over = replace(run, samples=[*run.samples, sample(1, {"full": 1}, held=5)])
    assert faults(over) == ["5 accelerators were held, the budget is 4"]
    lost = replace(run, timeline=Timeline(32.5, 64, 90, None, None))
    assert faults(lost) == ["quality was not restored"]
    assert "did not happen" in describe(lost)
    assert len(faults(replace(run, timeline=Timeline(None, None, None, None, None)))) == 3


def test_a_run_without_baseline_is_a_fault_not_a_crash(run: Run) -> None:
    empty = replace(run, baseline=None, timeline=None, records=[], samples=[])
    assert faults(empty) == ["the best tier did not serve before the overload"]
    assert "sent 0 = ok 0 + failed 0" in describe(empty)


def test_the_live_view_shows_tiers_load_and_reason(sample: Build, record: Build) -> None:
    console = Console(width=140, record=True, file=None, force_terminal=False)
    with console.capture() as shown:
        console.print(
            render(sample(10, {"full": 1, "int4": 1}, swap_step="Draining"), [record(9.0, ended_at=10.0)], LOAD, 10.0)
        )
    for text in ("full", "1/1", "50%", "GPUs 3/4", "95.0%", "Steady", "swap: Draining", "0.50 s"):
        assert text in shown.get()


SWAP = Explanation("full 1 · int4 1 → int8 3 · int4 1", ("the budget of 4 accelerators",), "int4 4: 780 instead of 940")


def test_a_decision_is_explained_by_its_reason_what_binds_and_the_best_other_mix(sample: Build) -> None:
    looked = sample(9.0, {"int8": 3}, reason="SwappedToCheaperTier", message="11 requests/s", explanation=SWAP)
    assert explain(looked) == [
        "SwappedToCheaperTier: full 1 · int4 1 → int8 3 · int4 1; 11 requests/s",
        "  binding  the budget of 4 accelerators",
        "  instead  int4 4: 780 instead of 940",
    ]


def test_what_the_planner_does_not_know_has_no_line(sample: Build) -> None:
    assert explain(sample(9.0, {"full": 1})) == ["Steady: what runs is what is wanted"]


def test_the_summary_explains_each_decision_that_changed_replicas_once(run: Run, sample: Build) -> None:
    steady = sample(1.0, {"full": 1}, decided_at="2026-01-01T00:00:01Z")
    swapped = [sample(at, {"int8": 3}, decided_at="2026-01-01T00:00:09Z", explanation=SWAP) for at in (9.4, 10.4)]
    text = describe(replace(run, samples=[steady, *swapped]))
    assert text.count("→ int8 3") == 1
    assert "     9 s  Steady: full 1 · int4 1 → int8 3 · int4 1; what" in text
    assert "            binding  the budget of 4" in text
    assert "no replicas were changed" in describe(replace(run, samples=[steady]))


def test_the_line_view_fits_in_one_line(sample: Build, record: Build) -> None:
    text = line(sample(10, {"full": 1, "int4": 1}), [record(9.0)], LOAD, 10.0)
    assert "\n" not in text
    for part in ("step 2 of 4", "full 1/1 50%", "GPUs 3/4", "quality 95.0%", "Steady"):
        assert part in text


def test_before_the_first_look_the_view_says_so() -> None:
    assert "waiting for the first look" in line(None, [], LOAD, 0.0)


def test_the_plot_is_a_small_png(run: Run, tmp_path: Path) -> None:
    draw(run, tmp_path / "plot.png")
    data = (tmp_path / "plot.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 200_000


def test_a_run_that_failed_early_can_be_drawn_too(run: Run, tmp_path: Path) -> None:
    draw(replace(run, records=[], samples=[], timeline=None), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_smoothed_rate_counts_events_around_each_moment() -> None:
    assert smoothed_rate([1, 2, 3, 4, 100], [2.0, 50.0]) == [0.4, 0.0]
