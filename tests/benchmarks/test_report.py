import pytest

from benchmarks.bench_engine import Results
from benchmarks.idle import IdleCheck
from benchmarks.report import PAIRS, render_report
from benchmarks.workload import MEASURES


def results(ours: float, nested: float) -> Results:
    measured = Results(gates=[IdleCheck(0.99, passed=True), IdleCheck(0.5, passed=False)])
    for _ in range(3):
        for tier, peer in PAIRS.items():
            measured.add(tier, dict.fromkeys(MEASURES, ours))
            measured.add(peer, dict.fromkeys(MEASURES, 100.0))
        measured.add("nested int4", dict.fromkeys(MEASURES, nested))
    return measured


@pytest.mark.parametrize(("ours", "missed"), [(160.0, 0), (130.0, 4), (50.0, 12)])
def test_each_target_is_judged_and_misses_are_shown(ours, missed):
    text = render_report({"cpu": "some"}, results(ours, ours))

    assert text.count("**missed**") == missed
    assert text.count("| met |") == 12 + 4 - missed


def test_a_nested_level_is_compared_with_its_own_tier():
    text = render_report({"cpu": "some"}, results(160.0, 120.0))

    assert text.count("**missed**") == 4
    assert "| nested int4 / int4 | decode 1 | 120 ±0% | 160 ±0% | 0.75x |" in text


def test_conditions_tell_how_often_the_machine_was_idle():
    assert "idle gate: 1 of 2 passed" in render_report({"cpu": "some"}, results(1.0, 1.0))


def test_tiers_that_were_not_measured_have_no_rows():
    measured = results(160.0, 160.0)
    del measured.speeds["fp32"], measured.speeds["nested int4"]

    text = render_report({"cpu": "some"}, measured)

    assert "| fp32 /" not in text
    assert "nested" not in text
    assert text.count("| bf16 / F16 |") == len(MEASURES)
