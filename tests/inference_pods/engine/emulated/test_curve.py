"""From chunks and curves to the seconds of a step, and the curve's form on the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_pods.engine.emulated.curve import (
    Curve,
    LevelCurve,
    gather_curves,
    parse_level_curve,
    step_seconds,
)
from inference_pods.kernels.batch import Chunk

FAST = Curve(4000, 20, 40)
CURVE = Curve(7000, 30, 50)


def chunk(tokens: int, start: int = 0, level: int = 0) -> Chunk:
    return Chunk([1] * tokens, start, [0] * 1000, 1, level)


@pytest.mark.parametrize(
    ("chunks", "milliseconds"),
    [
        pytest.param([], 0.0, id="nothing takes no time"),
        pytest.param([chunk(1, 9)], 7.03, id="one sequence decodes"),
        pytest.param([chunk(1, 9)] * 8, 7.24, id="eight sequences share the step"),
        pytest.param([chunk(100)], 12.0, id="a prompt alone"),
        pytest.param([chunk(100, 256)], 12.0, id="a later chunk of a prompt"),
        pytest.param([chunk(1)], 7.05, id="a prompt of one token is a prompt"),
        pytest.param([chunk(1, 9), chunk(1, 5), chunk(100)], 12.06, id="a prompt beside two that decode"),
        pytest.param([chunk(1, 9, 1)], 4.02, id="the lower level has a curve of its own"),
        pytest.param([chunk(1, 9), chunk(10, 0, 1)], 7.03 + 4.4, id="two levels run one after the other"),
    ],
)
def test_a_step_lasts_as_the_curves_say(chunks: list[Chunk], milliseconds: float) -> None:
    assert step_seconds(chunks, (CURVE, FAST)) == pytest.approx(milliseconds / 1000)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50), st.integers(0, 1)), min_size=1, max_size=9))
def test_a_chunk_more_never_makes_a_step_shorter(shapes: list[tuple[int, int, int]]) -> None:
    chunks = [chunk(*shape) for shape in shapes]
    assert step_seconds(chunks, (CURVE, FAST)) >= step_seconds(chunks[1:], (CURVE, FAST))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7000,30,50", LevelCurve("", CURVE)),
        ("int4-d28=4000,20,40", LevelCurve("int4-d28", FAST)),
        ("1,0,0", LevelCurve("", Curve(1, 0, 0))),
    ],
)
def test_a_curve_is_read(text: str, expected: LevelCurve) -> None:
    assert parse_level_curve(text) == expected


@pytest.mark.parametrize(
    "text", ["", "7000", "7000,30", "7000,30,50,1", "7.5,30,50", "-1,30,50", "0,30,50", "=7000,30,50", "7000,30,50\n"]
)
def test_what_is_no_curve_is_refused_with_an_example_or_the_least(text: str) -> None:
    with pytest.raises(ValueError, match=r"e\.g\. 7000,30,50|at least 1 microsecond"):
        parse_level_curve(text)


def test_a_level_without_a_curve_is_as_fast_as_the_tier() -> None:
    curves = gather_curves([LevelCurve("", CURVE), LevelCurve("int4", FAST)], ("int8", "int4"))
    assert [curves.of(level) for level in ("int8", "int4")] == [CURVE, FAST]


@pytest.mark.parametrize(
    ("given_curves", "words"),
    [
        ([LevelCurve("int4", FAST)], "0 curves without a level"),
        ([LevelCurve("", FAST)] * 2, "2 curves without a level"),
        ([LevelCurve("", CURVE), LevelCurve("int2", FAST)], "no level int2, only int8, int4"),
        ([LevelCurve("", CURVE), *[LevelCurve("int4", FAST)] * 2], "two curves of level int4"),
    ],
)
def test_curves_that_contradict_the_levels_are_refused(given_curves: list[LevelCurve], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gather_curves(given_curves, ("int8", "int4"))
