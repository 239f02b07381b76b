import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.engine.step_time import LevelStepTimes, StepTimeModel


def learned(steps):
    model = StepTimeModel()
    for rows, seconds in steps:
        model.observe(rows, seconds)
    return model


def linear(rows, fixed=0.010, slope=0.002):
    return rows, fixed + slope * rows


def test_nothing_is_said_before_enough_steps_ran():
    assert learned([linear(4)] * 7).rows_within(1.0) is None
    assert learned([linear(4)] * 8).rows_within(1.0) is not None


@pytest.mark.parametrize(
    ("name", "steps", "seconds", "rows"),
    [
        ("a line is found: 10 ms + 2 ms per row", [linear(n) for n in (1, 4, 16, 32) * 5], 0.050, 20),
        ("no more than twice the largest step seen", [linear(n) for n in (1, 4, 8) * 5], 9.0, 16),
        ("time below the fixed part leaves no rows", [linear(n) for n in (1, 4, 8) * 5], 0.005, 0),
        ("equal steps: all time is the rows' (8 rows, 26 ms)", [linear(8)] * 20, 0.013, 4),
        ("the slope found earlier is kept", [linear(n) for n in (1, 4, 16, 32) * 9] + [linear(8)] * 400, 0.050, 20),
        ("a machine that became twice as slow is followed",
         [linear(n) for n in (1, 16) * 20] + [linear(n, 0.020, 0.004) for n in (1, 16) * 200], 0.060, 10),
        ("falling times do not give a negative slope", [(1, 0.020), (9, 0.010)] * 10, 0.020, 18),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_rows_that_fit(name, steps, seconds, rows):
    assert learned(steps).rows_within(seconds) == pytest.approx(rows, abs=1)


def test_one_pause_of_the_machine_moves_the_model_little():
    model = learned([linear(n) for n in (1, 4, 16, 32) * 20])
    before = model.predict(16)
    model.observe(16, 30.0)
    assert model.predict(16) < 1.2 * before


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0, 10)), min_size=8, max_size=60), st.floats(0, 10))
def test_the_model_is_bounded_whatever_was_measured(steps, seconds):
    model = learned(steps)
    rows = model.rows_within(seconds)
    assert 0 <= rows <= 2 * max(rows for rows, _ in steps)
    assert model.predict(1) >= -1e-9
    assert model.predict(100) >= model.predict(1) - 1e-9


TOP, LOW = (0.010, 0.002), (0.004, 0.001)  # own part and part per row of two levels, seconds


def mixed(top, low):
    """Rows by level and the seconds that their passes take one after the other."""
    rows = {level: count for level, count in enumerate((top, low)) if count}
    return rows, sum(fixed + slope * rows[level] for level, (fixed, slope) in enumerate((TOP, LOW)) if level in rows)


def learned_levels(steps):
    times = LevelStepTimes()
    for rows, seconds in steps:
        times.observe(rows, seconds)
    return times


PURE_TOP, PURE_LOW = [mixed(n, 0) for n in (1, 4, 16, 32) * 5], [mixed(0, n) for n in (1, 4, 16, 32) * 5]
VARIED = [mixed(a, b) for a in (1, 2, 5, 9) for b in (1, 3, 8, 16)] * 4


@pytest.mark.parametrize(
    ("name", "steps", "asked", "tolerance"),
    [
        ("each level was seen alone: a mixed step is the sum", PURE_TOP + PURE_LOW, (4, 8), 0.02),
        ("and a pure one is its own", PURE_TOP + PURE_LOW, (0, 8), 0.02),
        ("a new level is what a mixed step takes beyond the known one", PURE_TOP + VARIED, (2, 8), 0.05),
        ("also alone", PURE_TOP + VARIED, (0, 16), 0.15),
        ("only ever mixed: the whole is right", VARIED, (5, 8), 0.10),
        ("a level that was never seen is as slow as the slowest", PURE_TOP, (16, 0), 0.02),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_step_takes_what_its_levels_take_in_turn(name, steps, asked, tolerance):
    rows, seconds = mixed(*asked)
    assert learned_levels(steps).predict(rows) == pytest.approx(seconds, rel=tolerance)


def test_a_level_that_was_never_seen_is_taken_for_the_slowest():
    times = learned_levels(PURE_LOW + PURE_TOP)
    assert times.predict({2: 8}) == times.predict({0: 8})


def test_rows_of_a_level_fit_beside_those_of_another():
    """50 ms, 6 rows of the lower level take 10 ms; the top one's own part is 10 ms: 15 rows of 2 ms."""
    times = learned_levels(PURE_TOP + PURE_LOW)
    assert times.rows_within(0.050, 0, {1: 6}) == pytest.approx(15, abs=1)
    assert times.rows_within(0.050, 0, {0: 99}) == pytest.approx(20, abs=1)
    assert times.rows_within(0.005, 0, {1: 6}) == 0


def test_nothing_is_said_of_any_level_before_one_is_learned():
    times = learned_levels([mixed(4, 4)] * 7)
    assert times.rows_within(1.0, 0, {}) is None
    times.observe(*mixed(4, 4))
    assert times.rows_within(1.0, 5, {}) is not None


LEVEL_ROWS = st.dictionaries(st.integers(0, 3), st.integers(1, 256), min_size=1)


@given(st.lists(st.tuples(LEVEL_ROWS, st.floats(0, 10)), min_size=1, max_size=60), LEVEL_ROWS, st.floats(0, 10))
def test_the_levels_are_bounded_whatever_was_measured(steps, asked, seconds):
    times = learned_levels(steps)
    assert times.predict(asked) >= -1e-9
    for level in asked:
        rows = times.rows_within(seconds, level, asked)
        assert rows is None or 0 <= rows <= 2 * max(max(one.values()) for one, _ in steps)
