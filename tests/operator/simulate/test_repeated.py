"""Means over seeds, and paired differences with their confidence intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from adaptive_operator.simulate.generators import generate, steady
from adaptive_operator.simulate.policies.static import StaticPolicy
from adaptive_operator.simulate.repeated import Estimate, estimate, summarize
from adaptive_operator.simulate.run import run
from adaptive_operator.simulate.scores import score
from tests.operator.simulate.scenes import make_scenario


def test_an_interval_is_students_over_the_values_that_are_known():
    found = estimate([1.0, 2.0, math.nan, 3.0])
    assert (found.mean, found.half) == (2.0, pytest.approx(2.484, abs=1e-3))
    assert (found.low, found.high) == (pytest.approx(-0.484, abs=1e-3), pytest.approx(4.484, abs=1e-3))


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert (estimate([2.0]).mean, estimate([2.0]).low, math.isnan(estimate([2.0]).half)) == (2.0, 2.0, True)
    assert math.isnan(estimate([math.nan]).mean)


def test_differences_are_taken_within_each_seed():
    figures = score(run(make_scenario(), generate(steady(1.0), 60.0, seed=1), StaticPolicy("p", {"full": 1})))
    noise = (0.2, 0.5, 0.9)  # what a seed does to both
    runs = [
        [
            ("a", replace(figures, system_accuracy=x, attainment=x)),
            ("b", replace(figures, system_accuracy=x + 0.05, attainment=x)),
        ]
        for x in noise
    ]
    first, second = summarize(runs)
    assert (first.name, second.name) == ("a", "b")
    assert first.differences["system_accuracy"] == Estimate(0.0, 0.0)
    assert second.differences["system_accuracy"].mean == pytest.approx(0.05)
    assert second.differences["system_accuracy"].half == pytest.approx(0.0, abs=1e-9)
    assert second.means["system_accuracy"].half > 0.5
    assert second.means["violations"].mean == pytest.approx(1 - sum(noise) / 3)
