"""Capacities over several seeds."""

from __future__ import annotations

import pytest

from adaptive_operator.simulate.capacity import Capacity
from adaptive_operator.simulate.repeated_capacity import summarize_capacities
from adaptive_operator.simulate.report.capacities import build_repeated_capacity_rows


def seed(ours: float, hpa: float) -> list[Capacity]:
    return [Capacity("ours", ours, 2 * ours, {}), Capacity("hpa", hpa, 2 * hpa, {})]


def test_ratios_are_taken_within_each_seed():
    ours, hpa = summarize_capacities([seed(4.0, 2.0), seed(9.0, 3.0)], ["hpa", "full"])
    assert (ours.policy, ours.scales, ours.scale.mean, ours.requests_per_second.mean) == ("ours", (4.0, 9.0), 6.5, 13.0)
    assert ours.ratios["hpa"].mean == pytest.approx(2.5)  # of 2 and 3, not 6.5 / 2.5
    assert (hpa.ratios["hpa"].mean, hpa.ratios["hpa"].half) == (1.0, 0.0)
    assert set(ours.ratios) == {"hpa"}


def test_a_seed_in_which_the_reference_carries_nothing_has_no_ratio():
    ours, hpa = summarize_capacities([seed(4.0, 0.0), seed(9.0, 3.0)], ["hpa"])
    assert ours.ratios["hpa"].mean == 3.0
    rows = build_repeated_capacity_rows([ours, hpa])
    assert rows[0] == ["policy", "scale", "requests/s", "to hpa"]
    assert rows[1][-1] == "3.00"
    assert rows[2][1].startswith("1.50 ± ")
