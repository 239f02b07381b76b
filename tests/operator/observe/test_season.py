"""A season is two periods that were seen, in the bins that a forecast uses; all else is unknown, or no season."""

from __future__ import annotations

import math

import pytest

from adaptive_operator.observe.observation import Season
from adaptive_operator.observe.prometheus import Answer, Failed, Rows
from adaptive_operator.observe.queries import Windows
from adaptive_operator.observe.season import MOST_AHEAD_SECONDS, Past, bins_between, read_season

DAY = 86_400.0
NOW = 30 * DAY + 30.0
MODEL = ("demo", "assistant")
WINDOWS = Windows(15.0)


def rows(back: int, first: int = -20, last: int = 20, value: float = 5.0) -> Rows:
    """Bins of a minute of an earlier period, by their number from now on."""
    ends = (30 * DAY - back * DAY + 60.0 * index for index in range(first, last + 1))
    return Rows({}, series={MODEL: tuple((at, value + back) for at in ends)})


def season(*answers: Answer, horizon: float = 120.0) -> Season | None:
    return read_season(Past(answers, DAY), MODEL, NOW, horizon, WINDOWS, math.isfinite)


def test_a_season_has_the_bins_from_the_history_on_until_the_horizon_and_no_others() -> None:
    found = season(rows(1), rows(2))
    assert found == Season(((6.0,) * 13, (7.0,) * 13), DAY, 60.0, 30 * DAY + 180.0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(1000.0, (900.0, 1080.0), id="within bins"),
        pytest.param(960.0, (840.0, 1080.0), id="at the end of one"),
    ],
)
def test_bins_are_whole(now: float, expected: tuple[float, float]) -> None:
    assert bins_between(now, 100.0, 70.0, 60.0) == expected


def test_a_bin_that_is_missing_is_unknown_and_never_zero() -> None:
    found = season(rows(1, last=0), rows(2, first=1))
    assert found is not None
    assert found.periods == ((6.0,) * 10 + (None,) * 3, (None,) * 10 + (7.0,) * 3)


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((), id="nothing was asked"),
        pytest.param((rows(1),), id="one period was asked"),
        pytest.param((rows(1), Rows({})), id="samples are kept for a day"),
        pytest.param((Rows({}), Rows({})), id="a new model"),
        pytest.param((rows(1), Failed("timed out")), id="no answer"),
        pytest.param((rows(1), Rows({}, frozenset({MODEL}), rows(2).series)), id="more than one series"),
        pytest.param((rows(1), Rows({}, series={("demo", "other"): rows(2).series[MODEL]})), id="another model's"),
        pytest.param((rows(1), rows(1)), id="bins of another day"),
        pytest.param((rows(1), rows(2, value=math.nan)), id="no numbers"),
    ],
)
def test_without_two_periods_there_is_no_season(answers: tuple[Answer, ...]) -> None:
    assert season(*answers) is None


def test_a_rate_that_cannot_be_true_is_unknown() -> None:
    broken = Rows({}, series={MODEL: (*rows(2).series[MODEL][:-20], (30 * DAY - 2 * DAY + 120.0, math.inf))})
    found = season(rows(1), broken)
    assert found is not None
    assert found.periods[1][-3:] == (None, None, None)
    assert found.periods[1][9] == 7.0


def test_four_digits_of_a_rate_are_kept() -> None:
    found = season(rows(1, value=0.000123456), rows(2, value=1232.4567))
    assert found is not None
    assert (found.periods[0][0], found.periods[1][0]) == (1.0, 1234.0)


def test_the_longest_look_ahead_is_an_hour() -> None:
    found = season(rows(1, last=5000), rows(2, last=5000), horizon=1e9)
    assert found is not None
    assert found.end <= NOW + MOST_AHEAD_SECONDS + 60.0
