"""The upper forecast: its parts by hand, and what holds for every history."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.forecast import Season, Series, Source, deviations_at, forecast

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


DAY = 86_400.0
MINUTE = 60.0


def day_and_night(seconds, level=1.0):
    """Requests/s: 4 by night, from 8 to 20 o'clock up to 40 within a quarter of an hour and down as fast."""
    of_day = seconds % DAY
    ramp = min(of_day - 8 * 3600, 20 * 3600 - of_day) / 900
    return level * (4.0 + 36.0 * min(1.0, max(0.0, ramp)))


def season(now, horizon=600.0, rate=day_and_night, days=2, unknown=lambda at: False):
    """What one and two days ago had from ten minutes before until the horizon, in minutes; `unknown` by time."""
    end = math.ceil((now + horizon) / MINUTE) * MINUTE
    ends = [end - MINUTE * late for late in reversed(range(round(horizon / MINUTE) + 11))]
    periods = tuple(
        tuple(None if unknown(at - back * DAY) else rate(at - back * DAY) for at in ends) for back in range(1, days + 1)
    )
    return Season(periods, DAY, MINUTE, end)


def today(now, rate=day_and_night):
    return series(*(rate(now - BIN * late) for late in reversed(range(40))), end=now)


BEFORE_THE_RISE = 2 * DAY + 7.9 * 3600  # six minutes before, on the third day


def test_the_season_sees_the_rise_coming_when_two_periods_were_seen():
    now = BEFORE_THE_RISE
    without = forecast(today(now), now, 600.0)
    early = forecast(today(now), now, 600.0, season=season(now))

    assert without.upper == pytest.approx(4.2)
    assert early.source is Source.SEASON
    assert early.upper == pytest.approx(day_and_night(now + 600.0), rel=0.01)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param(None, id="no history"),
        pytest.param(season(BEFORE_THE_RISE, unknown=lambda at: at < DAY), id="one period"),
        pytest.param(season(BEFORE_THE_RISE, unknown=lambda at: at > DAY), id="only the period before the last"),
        pytest.param(season(BEFORE_THE_RISE, unknown=lambda at: True), id="two periods of which nothing is known"),
        pytest.param(
            season(BEFORE_THE_RISE, unknown=lambda at: at % DAY > BEFORE_THE_RISE % DAY), id="nothing of the horizon"
        ),
        pytest.param(
            season(BEFORE_THE_RISE, unknown=lambda at: at % DAY <= BEFORE_THE_RISE % DAY), id="nothing to compare with"
        ),
        pytest.param(
            season(BEFORE_THE_RISE, unknown=lambda at: at % DAY < BEFORE_THE_RISE % DAY - 200), id="too little of it"
        ),
    ],
)
def test_without_two_known_periods_the_forecast_is_what_it_is_without_a_season(history):
    now = BEFORE_THE_RISE

    assert forecast(today(now), now, 600.0, season=history) == forecast(today(now), now, 600.0)


def test_a_gap_in_one_of_the_periods_leaves_out_those_bins_and_does_not_count_as_zero():
    now = BEFORE_THE_RISE
    whole = forecast(today(now), now, 600.0, season=season(now))
    # The last minute of the horizon, the highest: what is left is a minute earlier on the ramp.
    holed = forecast(today(now), now, 600.0, season=season(now, unknown=lambda at: at == now + 600.0 - DAY))

    assert holed.source is Source.SEASON
    assert whole.upper is not None
    assert holed.upper == pytest.approx(whole.upper - 36.0 / 15, rel=0.01)


@pytest.mark.parametrize(
    ("level", "scale"),
    [
        pytest.param(0.8, 0.8, id="a quieter day"),
        pytest.param(0.1, 0.5, id="a day that is nothing like them, down to half"),
        pytest.param(1.5, 1.5, id="a busier day"),
        pytest.param(9.0, 2.0, id="a day that is nothing like them, up to twice"),
    ],
)
def test_the_season_is_scaled_to_how_today_compares(level, scale):
    now = BEFORE_THE_RISE
    seen = today(now, lambda at: day_and_night(at, level))
    upper = forecast(seen, now, 600.0, season=season(now)).upper

    assert upper == pytest.approx(max(scale * day_and_night(now + 600.0), 4.0 * level * 1.05), rel=0.01)


def test_on_the_third_day_the_rise_is_met_before_it_comes_with_a_season_and_after_without():
    """Three days of bins: when does the forecast first reach 20/s, which the load passes at 8:06:40?"""

    def first(with_season):
        for step in range(4 * 60 * 4):
            now = 2 * DAY + 6 * 3600 + step * BIN
            known = season(now) if with_season else None
            upper = forecast(today(now), now, 600.0, season=known).upper
            if upper is not None and upper >= 20.0:
                return now - 2 * DAY
        return math.inf

    passed = 8 * 3600 + 400.0
    assert first(with_season=True) == pytest.approx(passed - 600.0, abs=MINUTE)
    assert first(with_season=False) > passed - 300.0


def test_a_season_only_ever_raises_the_forecast():
    for hour in range(24):
        now = 2 * DAY + hour * 3600.0
        without = forecast(today(now), now, 600.0).upper
        with_it = forecast(today(now), now, 600.0, season=season(now)).upper
        assert with_it is not None
        assert without is not None
        assert with_it >= without


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
