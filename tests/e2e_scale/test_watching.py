"""What is read of the operator's process and metrics."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from e2e.scale.watching import (
    OperatorEndedError,
    PassTimes,
    Usage,
    Watcher,
    cpu_cores,
    parse_counts,
    parse_cpu_seconds,
    parse_rss_bytes,
    parse_times,
    read_usage,
)

TICKS = os.sysconf("SC_CLK_TCK")


def test_each_pass_is_one_step_of_the_sum_and_the_count() -> None:
    passes = PassTimes()
    for at, total, count in [(1.0, 2.0, 1), (2.0, 2.0, 1), (3.0, 2.5, 2), (4.0, 4.5, 4)]:
        passes.note(at, total, count)
    assert [(p.at, p.seconds) for p in passes.times] == [(1.0, 2.0), (3.0, 0.5), (4.0, 1.0), (4.0, 1.0)]


def test_sum_and_count_are_found_in_the_exposition() -> None:
    text = (
        "# TYPE adaptive_operator_pass_seconds histogram\n"
        'adaptive_operator_pass_seconds_bucket{le="+Inf"} 3.0\n'
        "adaptive_operator_pass_seconds_count 3.0\n"
        "adaptive_operator_pass_seconds_sum 1.25\n"
        "# TYPE adaptive_operator_leader gauge\n"
        "adaptive_operator_leader 1.0\n"
    )
    assert parse_times(text) == (1.25, 3)
    assert parse_times("") == (0.0, 0)


def test_a_histogram_by_method_is_one_sum_and_one_count() -> None:
    text = "\n".join(
        f'adaptive_operator_solver_seconds_{what}{{method="{method}"}} {value}'
        for method, what, value in [
            ("Master", "count", 2.0),
            ("Master", "sum", 1.5),
            ("Incremental", "count", 3.0),
            ("Incremental", "sum", 0.5),
        ]
    )
    assert parse_times(text, "adaptive_operator_solver_seconds") == (2.0, 5)
    assert parse_counts(text)["adaptive_operator_solver_seconds_count"] == {"Incremental": 3, "Master": 2}


def test_decisions_are_counted_by_reason_over_all_models() -> None:
    text = (
        'adaptive_operator_decision_total{model="a",namespace="x",reason="Steady"} 2.0\n'
        'adaptive_operator_decision_total{model="b",namespace="x",reason="Steady"} 3.0\n'
        'adaptive_operator_decision_total{model="b",namespace="x",reason="AddedReplica"} 1.0\n'
        'adaptive_operator_solver_failures_total{cause="Failed"} 0.0\n'
    )
    counts = parse_counts(text)
    assert counts["adaptive_operator_decision_total"] == {"AddedReplica": 1, "Steady": 5}
    assert counts["adaptive_operator_solver_failures_total"] == {}


def test_cpu_seconds_count_children_that_ended_and_names_may_hold_brackets() -> None:
    fields = ["S", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "100", "50", "25", "25", "20"]
    assert parse_cpu_seconds(f"42 (a) b) {' '.join(fields)}") == pytest.approx(200 / TICKS)


def test_memory_of_a_process_that_has_ended_is_none() -> None:
    assert parse_rss_bytes("Name:\tx\nVmRSS:\t  2048 kB\n") == 2 << 20
    assert parse_rss_bytes("Name:\tx\nState:\tZ (zombie)\n") == 0


def test_this_very_process_has_used_cpu_and_holds_memory() -> None:
    usage = read_usage(os.getpid())
    assert usage.cpu_seconds > 0
    assert usage.rss_bytes > 1 << 20


def test_a_process_that_has_ended_ends_the_watch_though_nobody_waited_for_it() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(OperatorEndedError):
        asyncio.run(Watcher(process.pid).run())
    process.wait()


def test_cores_are_cpu_seconds_per_second_of_the_interval() -> None:
    usages = [Usage(float(at), cpu, 0) for at, cpu in [(0, 0.0), (1, 1.0), (2, 1.5), (3, 2.0), (4, 9.0)]]
    assert cpu_cores(usages, 1, 4) == pytest.approx(0.5)
    assert cpu_cores(usages, 3, 4) == 0
