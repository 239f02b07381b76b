"""The event parser: any cut of the bytes gives the same frames."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.load.frames import Frame, FrameError, FrameParser

STREAM = (
    b': hello\n\ndata: {"index":1,"token":{"id":1,"text":"\xc3\xa4"},"generated_text":null,"details":null}\n\n'
    b'data:{"index":2,"token":{"id":2,"text":"b"},"generated_text":"ab","details":{"generated_tokens":2}}\r\n\r\n'
)
FRAMES = [Frame(True, None, ""), Frame(True, 2, "")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_do_not_depend_on_how_the_network_cut_the_stream(cuts: list[int]) -> None:
    parser = FrameParser()
    edges = [0, *sorted(cuts), len(STREAM)]
    frames = [frame for a, b in itertools.pairwise(edges) for frame in parser.feed(STREAM[a:b])]
    assert frames == FRAMES


def test_an_error_frame_keeps_its_type_and_text() -> None:
    body = json.dumps({"error": "Model is overloaded", "error_type": "overloaded"}).encode()
    assert FrameParser().feed(b"data: " + body + b"\n\n") == [Frame(False, None, "overloaded: Model is overloaded")]


@pytest.mark.parametrize("data", [b"data: {nope\n", b"data: [1]\n", b"data: [DONE]\n"])
def test_what_tgi_does_not_send_is_an_error(data: bytes) -> None:
    with pytest.raises(FrameError):
        FrameParser().feed(data)


def test_a_line_without_end_is_refused_instead_of_kept() -> None:
    with pytest.raises(FrameError, match="longer than"):
        FrameParser().feed(b"data: " + b"x" * (2 << 20))
