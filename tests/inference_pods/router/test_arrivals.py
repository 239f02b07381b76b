"""The arrival rate over the shortest window that holds enough of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.router.arrivals import ArrivalWindow


def window_of(times):
    window = ArrivalWindow()
    for time in times:
        window.record(time)
    return window


@pytest.mark.parametrize(
    ("name", "times", "now", "rate"),
    [
        ("nothing yet", [], 100.0, 0.0),
        ("few arrivals count over ten seconds", [92.0, 95.0, 99.0], 100.0, 0.3),
        ("older than ten seconds is forgotten", [80.0, 85.0, 99.0], 100.0, 0.1),
        ("twenty arrivals in four seconds", [96 + i * 0.2 for i in range(20)], 100.0, 19 / 4),
        ("a burst is averaged over half a second at least", [99.9 + i * 0.001 for i in range(30)], 100.0, 60.0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_rate_of(name, times, now, rate):
    assert window_of(times).rate(now) == pytest.approx(rate, rel=1e-6)


@given(st.floats(3, 400))
def test_an_even_stream_is_estimated_right(rate):
    times = [i / rate for i in range(int(rate * 12))]
    assert window_of(times).rate(times[-1]) == pytest.approx(rate, rel=0.08)


def test_a_doubled_rate_is_seen_within_two_seconds_and_silence_within_ten():
    times = [i / 20 for i in range(200)] + [10 + i / 40 for i in range(80)]
    assert window_of([time for time in times if time <= 11]).rate(11.0) > 36
    assert window_of(times).rate(12.0 + 10.0) == 0.0
