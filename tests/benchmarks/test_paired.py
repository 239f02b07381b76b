import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.paired import paired_ratio, relative_spread

POSITIVE = st.floats(0.01, 1000.0)
PAIRS = st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=30)


def test_the_worked_example_of_the_docstring_holds():
    ratio = paired_ratio([1.0, 1.1, 1.21], [1.0, 1.0, 1.0])

    assert ratio.median == pytest.approx(1.1)
    assert ratio.lower_bound == pytest.approx(0.992, abs=0.001)


def test_equal_ratios_have_a_bound_equal_to_them():
    assert paired_ratio([3.0, 6.0, 1.5], [2.0, 4.0, 1.0]).lower_bound == pytest.approx(1.5)


def test_one_pair_has_no_bound_and_meets_nothing():
    ratio = paired_ratio([5.0], [1.0])

    assert math.isnan(ratio.lower_bound)
    assert not ratio.meets(1.0)


def test_series_of_different_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("target", "met"), [(1.3, True), (1.3 / 0.95, True), (1.3 / 0.94, False)])
def test_a_target_is_met_from_95_percent_of_it_on(target, met):
    assert paired_ratio([1.3 * 1.000001] * 3, [1.0] * 3).meets(target) is met


def test_a_noisy_gain_does_not_meet_what_a_steady_one_meets():
    assert paired_ratio([1.4, 1.4, 1.4], [1.0] * 3).meets(1.3)
    assert not paired_ratio([0.7, 1.4, 2.8], [1.0] * 3).meets(1.3)


@settings(deadline=None)
@given(PAIRS)
def test_the_bound_is_not_above_the_mean_ratio_and_the_median_is_between_the_extremes(pairs):
    ratio = paired_ratio(*zip(*pairs, strict=True))

    geometric = math.exp(sum(math.log(a / b) for a, b in pairs) / len(pairs))
    assert ratio.lower_bound <= geometric * (1 + 1e-9)
    assert ratio.lowest <= ratio.median <= ratio.highest


@settings(deadline=None)
@given(PAIRS, POSITIVE)
def test_a_slower_machine_changes_no_ratio(pairs, factor):
    ours, peer = zip(*pairs, strict=True)

    slowed = paired_ratio([a * factor for a in ours], [b * factor for b in peer])

    assert slowed.lower_bound == pytest.approx(paired_ratio(ours, peer).lower_bound, rel=1e-6)


def test_the_bound_covers_the_true_ratio_about_nine_times_in_ten():
    draw = random.Random(5)
    covered = 0
    for _ in range(2000):
        logs = [draw.gauss(math.log(1.3), 0.2) for _ in range(5)]
        covered += paired_ratio([math.exp(x) for x in logs], [1.0] * 5).lower_bound <= 1.3

    assert 0.88 <= covered / 2000 <= 0.92


def test_the_spread_is_relative_to_the_median():
    assert relative_spread([90.0, 100.0, 110.0]) == pytest.approx(0.2)
