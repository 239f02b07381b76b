"""The step schedule: counts, order, determinism, bounds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2e.load.arrivals import Pattern, Step, draw_arrivals, parse_steps

STEPS = st.lists(st.builds(Step, st.floats(0, 20, allow_subnormal=False), st.floats(0.1, 30)), min_size=1, max_size=5)


@given(STEPS, st.integers(0, 2**31), st.sampled_from(Pattern))
@settings(max_examples=80, deadline=None)
def test_arrivals_are_ordered_numbered_and_inside_their_step(steps: list[Step], seed: int, pattern: Pattern) -> None:
    arrivals = list(draw_arrivals(steps, pattern, seed))
    ends = list(itertools.accumulate(step.duration_seconds for step in steps))
    starts = [0.0, *ends]
    assert [a.index for a in arrivals] == list(range(len(arrivals)))
    assert all(a.offset_seconds <= b.offset_seconds for a, b in itertools.pairwise(arrivals))
    assert all(starts[a.step] - 1e-6 <= a.offset_seconds <= ends[a.step] + 1e-6 for a in arrivals)
    assert all(steps[a.step].rate_per_second > 0 for a in arrivals)


@given(STEPS, st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_same_seed_gives_the_same_arrivals(steps: list[Step], seed: int) -> None:
    assert list(draw_arrivals(steps, Pattern.POISSON, seed)) == list(draw_arrivals(steps, Pattern.POISSON, seed))


def test_another_seed_gives_other_arrivals() -> None:
    steps = [Step(2, 10)]
    assert list(draw_arrivals(steps, Pattern.POISSON, 1)) != list(draw_arrivals(steps, Pattern.POISSON, 2))


def test_a_constant_step_holds_rate_times_duration_requests_at_equal_distance() -> None:
    arrivals = list(draw_arrivals([Step(2, 5), Step(4, 5)], Pattern.CONSTANT, 0))
    assert [sum(a.step == step for a in arrivals) for step in (0, 1)] == [10, 20]
    gaps = [b.offset_seconds - a.offset_seconds for a, b in itertools.pairwise(arrivals)]
    assert gaps[:9] == pytest.approx([0.5] * 9)
    assert gaps[10:] == pytest.approx([0.25] * 19)


def test_poisson_counts_have_the_steps_mean_and_gaps_as_wide_as_long() -> None:
    arrivals = list(draw_arrivals([Step(10, 200), Step(20, 200)], Pattern.POISSON, 3))
    assert sum(a.step == 0 for a in arrivals) == pytest.approx(2000, abs=150)
    assert sum(a.step == 1 for a in arrivals) == pytest.approx(4000, abs=210)
    gaps = [b.offset_seconds - a.offset_seconds for a, b in itertools.pairwise(arrivals) if b.step == 0]
    mean = sum(gaps) / len(gaps)
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.1)


def test_a_run_is_bounded_in_count() -> None:
    assert len(list(draw_arrivals([Step(1000, 3600)], Pattern.CONSTANT, 0, max_requests=17))) == 17


def test_steps_are_read_from_text() -> None:
    assert parse_steps("0.5x30, 1x2.5") == (Step(0.5, 30), Step(1, 2.5))


@pytest.mark.parametrize("text", ["", "1", "x3", "1x0", "-1x3", "1xabc", "1x9999", "nanx3", "1xinf"])
def test_a_bad_step_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="step '"):
        parse_steps(text)
