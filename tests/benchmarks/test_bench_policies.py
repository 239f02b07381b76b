"""The acceptance table: cells are kept and not run twice, and verdicts follow from records written by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_operator.simulate.generators import generate, steady
from adaptive_operator.simulate.scrapes import Fault
from benchmarks import bench_planner, bench_policies, policy_rows, policy_scenes
from benchmarks.bench_policies import cells_of, judge, main, read_results, run_cells
from benchmarks.policy_rows import ROWS, Cell, Row, Verdict
from benchmarks.policy_scenes import TABLES, Setup, fault_at, fault_load, square_load, steady_load

SETUP = Setup(budget=4, trace=None, minutes=None)


@pytest.fixture
def counted(monkeypatch):
    """One row whose cells only note that they were run."""
    ran: list[str] = []

    def run(cell, _setup, _tell):
        ran.append(cell.key)
        return {"seed": cell.seed}

    def verdicts(case, records):
        worst = max(record["seed"] for record in records)
        return [Verdict(case, "< 3", str(worst), worst < 3)]

    monkeypatch.setitem(ROWS, "flaps", Row("flaps", lambda _tables: iter(("a", "b")), run, verdicts))
    return ran


def test_a_cell_that_is_there_is_not_run_again_and_a_line_that_was_cut_off_is(counted, tmp_path):
    path = tmp_path / "results.jsonl"
    cells = list(cells_of(["flaps"], TABLES, [1, 2]))
    run_cells(cells[:3], SETUP, path, {})
    path.write_text(path.read_text()[:-5])
    known = read_results(path, SETUP)
    assert list(known) == ["flaps/a/1", "flaps/b/1"]
    run_cells(cells, SETUP, path, known)
    assert counted == ["flaps/a/1", "flaps/b/1", "flaps/a/2", "flaps/a/2", "flaps/b/2"]
    assert len(read_results(path, SETUP)) == 4, "what follows a line that was cut off is kept"


def test_results_of_another_setup_do_not_count(counted, tmp_path):
    path = tmp_path / "results.jsonl"
    run_cells(cells_of(["flaps"], TABLES, [1]), SETUP, path, {})
    assert read_results(path, Setup(8, None, None)) == {}
    assert read_results(path, Setup(4, Path("conv.csv"), None)) == {}


def test_seeds_come_one_after_the_other_so_that_an_early_stop_leaves_whole_ones(counted):
    assert [cell.seed for cell in cells_of(["flaps", "sweep"], TABLES, [5, 6])] == [5] * 12 + [6] * 12


def test_the_command_prints_the_table_and_ends_with_1_when_something_was_missed(counted, tmp_path, capsys):
    arguments = ["--rows", "flaps", "--results", str(tmp_path / "r.jsonl")]
    assert main([*arguments, "--seeds", "2"]) == 0
    assert "| a | < 3 | 2 | met |" in capsys.readouterr().out
    assert main([*arguments, "--seeds", "4", "--report"]) == 0
    assert "4 of 8 cells were not run yet" in capsys.readouterr().out
    assert main([*arguments, "--first-seed", "3", "--seeds", "1"]) == 1
    assert "**missed**" in capsys.readouterr().out
    assert main([*arguments, "--fresh", "--report"]) == 0
    assert not (tmp_path / "r.jsonl").exists()


def test_the_planner_s_target_leads_here(counted, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(bench_policies, "main", lambda arguments: seen.append(arguments) or 0)
    assert bench_planner.main(["--simulate", "--rows", "flaps"]) == 0
    assert seen == [["--rows", "flaps"]]


def figures(violations, accuracy, starts=10.0):
    return {
        "violations": violations,
        "system_accuracy": accuracy,
        "starts_per_hour": starts,
        "accelerator_hours": 4.0,
    }


VERDICTS = {
    "capacity of both tables": (
        "capacity",
        [
            {"scales": {"ours": 8.1, "hpa": 3.0, "best-static": 9.0}},
            {"scales": {"ours": 8.7, "hpa": 3.0, "best-static": 9.0}},
        ],
        {"ours / hpa": True, "ours / best": True},
    ),
    "enough capacity by the mean, but not in most seeds": (
        "capacity",
        [{"scales": {"ours": ours, "hpa": 3.0, "best-static": 9.0}} for ours in (7.8, 7.8, 9.9)],
        {"ours / hpa": False, "ours / best": True},
    ),
    "too little capacity": (
        "capacity",
        [{"scales": {"ours": 6.0, "hpa": 3.0, "best-static": 9.0}}],
        {"ours / hpa": False, "ours / best": False},
    ),
    "fewer violations for sure": (
        "violations",
        [{"ours": figures(0.01, 0.98), "hpa": figures(v, 0.8)} for v in (0.2, 0.21, 0.22)],
        {"violations, ours - hpa": True, "violations, hpa / ours": True, "system accuracy": True},
    ),
    "fewer violations, but not ten times": (
        "violations",
        [{"ours": figures(0.05, 0.95), "hpa": figures(v, 0.8)} for v in (0.2, 0.21, 0.22)],
        {"violations, ours - hpa": True, "violations, hpa / ours": False},
    ),
    "fewer violations in one seed, which says nothing for sure": (
        "violations",
        [{"ours": figures(0.01, 0.98), "hpa": figures(0.2, 0.8)}],
        {"violations, ours - hpa": None, "violations, hpa / ours": True, "system accuracy": None},
    ),
    "no violation at all": (
        "violations",
        [{"ours": figures(0.0, 0.98), "hpa": figures(v, 0.8)} for v in (0.2, 0.21)],
        {"violations, hpa / ours": True},
    ),
    "fewer violations by chance": (
        "violations",
        [{"ours": figures(0.1, 0.9), "hpa": figures(v, 0.9)} for v in (0.05, 0.5)],
        {"violations, ours - hpa": False, "system accuracy": False},
    ),
    "better than proteus with fewer starts": (
        "proteus",
        [
            {
                "ours": figures(0.01, 0.98, 4.0),
                "proteus": figures(0.02, 0.97, 10.0),
                "oracle": figures(0.0, 0.99),
                "oracle:0": figures(0.0, 0.995),
            }
        ]
        * 2,
        {"system accuracy, diff": True, "violations, diff": True, "starts": True, "oracle - ours": True},
    ),
    "worse than proteus, and an oracle that is worse than ours": (
        "proteus",
        [
            {
                "ours": figures(0.03, 0.96, 6.0),
                "proteus": figures(0.02, 0.97, 10.0),
                "oracle": figures(0.0, 0.95),
                "oracle:0": figures(0.0, 0.95),
            }
        ]
        * 2,
        {"system accuracy, diff": False, "violations, diff": False, "starts": False, "oracle - ours": False},
    ),
    "no flap": ("flaps", [{"flaps": 0, "changes": 4, "violations": 0.0}] * 2, {"flaps": True}),
    "one flap in one seed": (
        "flaps",
        [{"flaps": n, "changes": 4, "violations": None} for n in (0, 1)],
        {"flaps": False},
    ),
    "two flaps in a sweep": ("sweep", [{"flaps": 2, "changes": 4, "violations": 0.0}], {"flaps": True}),
    "blind changes": (
        "metrics",
        [{"blind_changes": n, "early_shrinks": 0, "changes_after": 1} for n in (0, 1)],
        {"changes of replicas": False, "shrinks": True},
    ),
}
CASES = {"capacity": "uniform", "violations": "uniform", "proteus": "uniform", "metrics": "stale"}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts_of(name):
    row, records, expected = VERDICTS[name]
    found = ROWS[row].judge(CASES.get(row, "square 120"), records)
    for words, met in expected.items():
        assert next(verdict.met for verdict in found if words in verdict.what) is met, words


def test_the_decode_only_table_is_told_without_the_goal_of_2_7():
    records = [{"scales": {"ours": 3.0, "hpa": 3.0, "best-static": 3.0}}]
    ratio = ROWS["capacity"].judge("decode-only", records)[0]
    assert (ratio.must, ratio.met) == ("–", None)


def test_faults_of_one_kind_are_judged_together():
    cells = [Cell("metrics", f"nan rising {at}", seed) for at in (330, 400) for seed in (1, 2)]
    record = {"blind_changes": 0, "early_shrinks": 0, "changes_after": 0}
    (verdict,), missing = judge(cells, {cell.key: record for cell in cells[:3]})
    assert (verdict.met, missing) == (True, 1)
    assert "in 3 runs" in verdict.found


@pytest.mark.slow
def test_loads_are_what_they_are_called(monkeypatch):
    monkeypatch.setattr(policy_scenes, "full_rate", lambda setup: 20.0)
    square = square_load(SETUP, 120.0, 1)
    low, high = (sum(start <= row.arrival < start + 120 for row in square) / 120 for start in (0, 120))
    assert (low, high) == (pytest.approx(9, rel=0.3), pytest.approx(27, rel=0.3))
    flat = steady_load(SETUP, 0.5, 1)
    assert len(flat) / 7200 == pytest.approx(10.0, rel=0.03)
    falling = fault_load(SETUP, "falling", 300.0, 1)
    assert sum(row.arrival < 300 for row in falling) / 300 > 2 * sum(row.arrival > 400 for row in falling) / 1100
    fault = fault_at(Fault.NAN, 300.0)
    assert [fault(at) for at in (299.0, 300.0, 599.0, 600.0)] == [None, Fault.NAN, Fault.NAN, None]


@pytest.mark.slow
def test_a_metrics_cell_counts_what_changed_while_it_was_blind(monkeypatch):
    monkeypatch.setattr(policy_rows, "fault_load", lambda *_: generate(steady(8.0), 700.0, seed=1))
    small = Setup(budget=2, trace=None, minutes=6.0)
    record = ROWS["metrics"].run(Cell("metrics", "gone rising 330", 1), small, lambda label: lambda part: None)
    assert record["blind_changes"] == 0


def test_ten_times_fewer_violations_are_asked_for_only_where_some_mix_carries_the_load():
    records = [{"ours": figures(0.2, 0.77), "hpa": figures(v, 0.69)} for v in (0.31, 0.32)]
    met = {v.what.rsplit(": ", 1)[1]: v.met for v in ROWS["violations"].judge("decode-only", records)}
    assert met["violations, hpa / ours"] is None
    assert met["violations, ours - hpa"] is True
