import argparse
from pathlib import Path

import pytest

from benchmarks import bench_http
from benchmarks.bench_http import HttpBench, choose_tiers
from benchmarks.http_load import LoadShape
from benchmarks.http_report import HttpResults, ServerFigures
from benchmarks.idle import IdleCheck

FIGURES = ServerFigures(1.0, [1.0], [1.0], 1.0, 1.0, 1)


@pytest.fixture
def measured(monkeypatch):
    """Names in the order in which they are measured, without any server."""
    order = []
    monkeypatch.setattr(bench_http, "wait_until_idle", lambda _seconds: IdleCheck(1.0, passed=True))
    monkeypatch.setattr(HttpBench, "_measure_ours", lambda _self, tier, _seed: order.append(tier.name) or FIGURES)
    monkeypatch.setattr(HttpBench, "_measure_peer", lambda _self, name, _seed: order.append(name) or FIGURES)
    return order


@pytest.mark.parametrize(
    ("index", "order"),
    [
        (0, ["int8", "nested int8", "Q8_0", "int4", "Q4_0"]),
        (1, ["Q4_0", "int4", "Q8_0", "int8", "nested int8"]),
        (2, ["int8", "nested int8", "Q8_0", "int4", "Q4_0"]),
    ],
)
def test_tiers_and_sides_take_turns_in_going_first(measured, index, order):
    bench = HttpBench(Path(), choose_tiers("int8,nested int8,int4"), LoadShape(8, 1, 1, 1), 1, 0.0)
    results = HttpResults()

    bench.run_round(index, results)

    assert measured == order
    assert set(results.servers) == set(order)
    assert len(results.gates) == 2


def test_tiers_are_chosen_by_name():
    assert [tier.peer for tier in choose_tiers("bf16,nested int4")] == ["F16", "Q4_0"]


def test_an_unknown_tier_is_refused_naming_those_that_there_are():
    with pytest.raises(argparse.ArgumentTypeError, match=r"no tier 'int2'; there are fp32, .*, nested int4"):
        choose_tiers("int8,int2")
