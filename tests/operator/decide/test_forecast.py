"""The upper forecast: its parts by hand, and what holds for every history."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.forecast import Series, Source, deviations_at, forecast

NOW = 10_000.0
BIN = 15.0


def series(*bins, end=NOW, bin_seconds=BIN):
    return Series(tuple(bins), bin_seconds, end)


def steady(value=5.0, count=40):
    return (value,) * count


@pytest.mark.parametrize(
    ("bins", "upper", "source"),
    [
        pytest.param((), None, Source.NOTHING, id="no history says nothing"),
        pytest.param((None, None), None, Source.NOTHING, id="unknown bins are not zero"),
        pytest.param((1.0, 4.0, 2.0), 4.0, Source.MOST_SEEN, id="a short history says the most that was seen"),
        pytest.param(steady(0.0), 0.0, Source.TREND, id="a history of zeros says zero"),
        pytest.param(steady(), 5.25, Source.AVERAGE, id="a steady load gets the margin of the average"),
        pytest.param((*steady(), 20.0), 20.0, Source.BURST, id="a burst is taken at its rate"),
        pytest.param((*steady(), 20.0, 5.0, 5.0), 20.0, Source.BURST, id="a burst is held for a minute"),
        pytest.param((*steady(), None, None), 5.25, Source.AVERAGE, id="a gap changes nothing"),
    ],
)
def test_the_forecast_is_the_largest_of_its_parts(bins, upper, source):
    seen = forecast(series(*bins), NOW, 60.0)

    assert (seen.upper, seen.source) == (upper if upper is None else pytest.approx(upper), source)


def test_a_burst_is_over_after_a_minute_and_leaves_only_its_deviation():
    after = forecast(series(*steady(), 20.0, *steady(5.0, 4)), NOW, 60.0)

    assert after.source is not Source.BURST


def test_a_short_history_is_not_settled_and_a_long_one_is():
    assert not forecast(series(*steady(count=29)), NOW, 60.0).settled
    assert forecast(series(*steady(count=30)), NOW, 60.0).settled


def test_a_ramp_is_followed_and_damped():
    ramp = tuple(1.0 + 0.1 * i for i in range(60))
    near, far = (forecast(series(*ramp), NOW, horizon).upper for horizon in (15.0, 600.0))

    assert near is not None
    assert far is not None
    # The last bin is 6.9; undamped, 40 bins more of 0.1 would be 10.9.
    assert 6.9 < near < far < 9.0


def test_noise_is_covered_by_two_deviations():
    dice = random.Random(7)
    bins = tuple(10.0 + dice.gauss(0, 1.0) for _ in range(200))
    upper = forecast(series(*bins), NOW, 60.0).upper

    assert upper is not None
    assert 11.0 < upper < 13.5


@pytest.mark.parametrize(
    ("horizon", "expected"),
    [
        pytest.param(60.0, 2.0, id="near"),
        pytest.param(125.0, 2.5, id="between"),
        pytest.param(170.0, 3.0, id="far"),
        pytest.param(900.0, 3.0, id="very far"),
    ],
)
def test_more_deviations_are_added_the_longer_a_replica_loads(horizon, expected):
    assert deviations_at(horizon) == pytest.approx(expected)


def test_the_age_of_the_newest_bin_lengthens_the_horizon():
    ramp = (*steady(), 6.0, 7.0, 8.0, 9.0, 10.0, 11.0)
    fresh, old = (forecast(series(*ramp, end=NOW - age), NOW, 15.0).upper for age in (0.0, 60.0))

    assert fresh is not None
    assert old is not None
    assert old > fresh


def day(hour_of_peak=12, peak=40.0, base=4.0):
    """24 bins of an hour, one of them the peak."""
    return tuple(peak if hour == hour_of_peak else base for hour in range(24))


def test_the_season_sees_the_peak_coming_when_two_periods_were_seen():
    hours = (*day(), *day(), *day()[:11])
    history = Series(hours, 3600.0, NOW)
    early = forecast(series(*steady(4.0)), NOW, 3600.0, season=(history, 86_400.0))

    assert early.source is Source.SEASON
    assert early.upper is not None
    assert early.upper >= 40.0


def test_one_period_is_no_season():
    history = Series((*day(), *day()[:11]), 3600.0, NOW)

    assert forecast(series(*steady(4.0)), NOW, 3600.0, season=(history, 86_400.0)).source is Source.AVERAGE


def test_a_quieter_day_scales_the_season_but_not_below_half():
    hours = (*day(), *day(), *(value / 10 for value in day()[:11]))
    quiet = forecast(series(*steady(0.4)), NOW, 3600.0, season=(Series(hours, 3600.0, NOW), 86_400.0))

    assert quiet.upper is not None
    assert 20.0 <= quiet.upper < 40.0


histories = st.lists(st.one_of(st.none(), st.floats(0.0, 1e4)), min_size=1, max_size=90)


@given(bins=histories, horizon=st.floats(1.0, 900.0))
def test_a_forecast_is_finite_never_negative_and_never_below_the_average(bins, horizon):
    seen = forecast(series(*bins), NOW, horizon)
    known = [value for value in bins if value is not None]

    assert (seen.upper is None) == (not known)
    if seen.upper is not None:
        assert math.isfinite(seen.upper)
        assert seen.upper >= min(known) * 0.999


@given(bins=histories, horizon=st.floats(1.0, 900.0), factor=st.sampled_from([0.25, 2.0, 64.0]))
def test_twice_the_load_is_twice_the_forecast(bins, horizon, factor):
    one = forecast(series(*bins), NOW, horizon)
    other = forecast(series(*(None if v is None else v * factor for v in bins)), NOW, horizon)

    if one.upper is not None and other.upper is not None:
        assert other.upper == pytest.approx(one.upper * factor, rel=1e-6, abs=1e-6)


@given(bins=histories)
def test_a_longer_load_time_never_lowers_the_forecast(bins):
    near, far = (forecast(series(*bins), NOW, horizon).upper for horizon in (15.0, 300.0))

    if near is not None and far is not None:
        assert far >= near - 1e-9 * max(1.0, near)
