import pytest

from benchmarks import bench_drafting
from benchmarks.bench_drafting import Pair, measure_pair, render


def test_a_row_has_medians_the_paired_ratio_and_the_share_of_accepted_drafts():
    pairs = {1: [Pair(110.0, 100.0, 40.0, 30.0), Pair(120.0, 100.0, 40.0, 34.0), Pair(130.0, 100.0, 20.0, 16.0)]}
    assert render(pairs).splitlines()[2] == "| 1 | 120 | 100 | 1.20x | 1.10..1.30 | 1.09 | 80% of 100 |"


def test_a_batch_in_which_the_gate_let_nothing_be_drafted_says_so():
    assert render({8: [Pair(100.0, 100.0, 0.0, 0.0)] * 2}).splitlines()[2].endswith("| none drafted |")


def test_answers_that_drafts_changed_end_the_benchmark(monkeypatch):
    monkeypatch.setattr(bench_drafting, "read_metrics", lambda server: {})
    monkeypatch.setattr(bench_drafting, "time_batch", lambda server, prompts, headers: (1.0, [str(bool(headers))]))
    with pytest.raises(SystemExit, match="differs"):
        measure_pair(None, ["text"], drafts_first=True)
