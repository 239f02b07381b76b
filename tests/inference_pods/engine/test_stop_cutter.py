"""What of a stream may be shown while it may still become a stop string."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_pods.engine.stop_cutter import StopCutter

STOPS = st.lists(st.text("ab", min_size=1, max_size=7), max_size=3)
PIECES = st.lists(st.text("abx", max_size=9), max_size=12)


class PlainCutter:
    """The same by its definition: tries every beginning of every stop string against the end of the text."""

    def __init__(self, stops):
        self.stops, self.held, self.stopped = stops, "", False

    def push(self, text):
        if self.stopped:
            return ""
        self.held += text
        found = [self.held.index(stop) for stop in self.stops if stop in self.held]
        if found:
            self.stopped = True
            return self.held[: min(found)]
        beginnings = {stop[:length] for stop in self.stops for length in range(len(stop))}
        keep = max((len(one) for one in beginnings if self.held.endswith(one)), default=0)
        cut = len(self.held) - keep
        shown, self.held = self.held[:cut], self.held[cut:]
        return shown


@given(
    text=st.text("abx", max_size=30), stops=st.lists(st.text("abx", min_size=1, max_size=4), max_size=3), cuts=st.data()
)
@settings(max_examples=300, deadline=None)
def test_cutting_a_stream_equals_cutting_the_whole_text(text, stops, cuts):
    cutter, shown, rest = StopCutter(tuple(stops)), "", text
    while rest:
        size = cuts.draw(st.integers(1, len(rest)))
        shown += cutter.push(rest[:size])
        rest = rest[size:]
    shown += cutter.finish()
    assert not any(stop in shown for stop in stops)
    assert text.startswith(shown)
    if not any(stop in text for stop in stops):
        assert shown == text


@given(stops=STOPS, pieces=PIECES)
@settings(max_examples=1000, deadline=None)
def test_each_piece_shows_what_the_definition_says(stops, pieces):
    cutter, plain = StopCutter(tuple(stops)), PlainCutter(stops)
    assert [cutter.push(piece) for piece in pieces] == [plain.push(piece) for piece in pieces]


@pytest.mark.parametrize("stop", ["a" * 30_000 + "b", "ab" * 15_000 + "c", ("a" * 100 + "b") * 300])
def test_a_long_stop_string_costs_no_more_per_token_than_the_text_is_long(stop):
    """The second stop string never begins; trying each of its beginnings at every token takes minutes."""
    cutter = StopCutter((stop, "z" + stop))
    text = stop[:-1]
    started = time.process_time()
    shown = "".join(cutter.push(text[start : start + 6]) for start in range(0, len(text), 6))
    assert time.process_time() - started < 2.0
    assert shown + cutter.finish() == text
