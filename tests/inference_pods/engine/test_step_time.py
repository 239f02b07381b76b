import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.engine.step_time import StepTimeModel


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
