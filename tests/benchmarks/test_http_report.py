import pytest

from benchmarks.http_report import HttpResults, ServerFigures, quantile, render_http_report
from benchmarks.idle import IdleCheck

PAIRS = {"int8": "Q8_0", "nested int8": "Q8_0", "fp32": "F32"}


def figures(speed: float, first_token: float = 1.0, peak_mib: int = 200) -> ServerFigures:
    ttft = [0.001 * number for number in range(1, 101)]
    return ServerFigures(speed, ttft, [0.01] * 100, first_token, 0.9, peak_mib * 2**20)


def results(ours: float) -> HttpResults:
    measured = HttpResults(gates=[IdleCheck(0.99, passed=True), IdleCheck(0.5, passed=False)])
    for name in PAIRS:
        for first_token, peak_mib in ((2.0, 200), (1.5, 260), (3.0, 240)):
            measured.add(name, figures(ours, first_token, peak_mib))
    for name in ("Q8_0", "F32"):
        for _ in range(3):
            measured.add(name, figures(100.0))
    return measured


@pytest.mark.parametrize(("ours", "verdict"), [(180.0, "met"), (110.0, "**missed**")])
def test_the_tier_with_a_target_is_judged(ours, verdict):
    rows = render_http_report({"cpu": "some"}, results(ours), PAIRS).splitlines()

    (row,) = (row for row in rows if row.startswith("| int8 / Q8_0 "))
    assert row.endswith(f"| 1.2x | {verdict} |")


def test_a_tier_without_a_target_is_only_reported():
    text = render_http_report({"cpu": "some"}, results(90.0), PAIRS)

    assert "| fp32 / F32 | 90 ±0% | 100 ±0% | 0.90x | 0.90..0.90 | 0.90 |  |  |" in text
    assert "| nested int8 / Q8_0 | 90 ±0% |" in text


def test_latencies_are_quantiles_over_all_requests_and_memory_is_the_highest():
    text = render_http_report({"cpu": "some"}, results(100.0), PAIRS)

    assert "| int8 | 50 / 95 | 10.0 / 10.0 | 260 | 0.90 | 2.00 (1.50) |" in text


def test_a_peer_that_two_tiers_share_has_one_row():
    text = render_http_report({"cpu": "some"}, results(100.0), PAIRS)

    assert sum(row.startswith("| Q8_0 ") for row in text.splitlines()) == 1


def test_conditions_and_the_idle_gate_stand_above():
    text = render_http_report({"cpu": "some"}, results(100.0), PAIRS)

    assert text.startswith("cpu: some\nidle gate: 1 of 2 passed")


@pytest.mark.parametrize(("q", "value"), [(0.5, 2.0), (0.95, 3.0), (0.0, 1.0)])
def test_quantiles_are_values_that_were_measured(q, value):
    assert quantile([3.0, 1.0, 2.0], q) == value
