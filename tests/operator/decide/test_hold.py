"""The hold window: longer after an upgrade that was undone soon, the spec's own again after a quiet time."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_operator.decide.hold import after_growth, after_quiet
from adaptive_operator.observe.observation import PolicyMemory
from stand_ins.plant import DEMO_SCALING, DEMO_SETTINGS, Model, Plant, decide_one, demo_spec, metrics
from stand_ins.plant import observe_one as observe

NOW = 10_000.0
OWN, LIFE, MOST = 300, 300.0, 3600

GROWTH = {
    # restored, added, window in memory -> window afterwards
    "an upgrade that lived shorter than the dwell doubles the window": (NOW - 270, None, None, 600),
    "an addition before the upgrade does not count": (NOW - 270, NOW - 900, None, 600),
    "an upgrade that lived long enough changes nothing": (NOW - 300, None, None, None),
    "no upgrade, nothing undone": (None, None, None, None),
    "what grows on after the first addition is counted once": (NOW - 270, NOW - 60, 600, 600),
    "it doubles again from what it is": (NOW - 10, NOW - 900, 1200, 2400),
    "it never passes the most": (NOW - 10, NOW - 900, 2400, 3600),
    "at the most it stays": (NOW - 10, NOW - 900, 3600, 3600),
}


@pytest.mark.parametrize("name", GROWTH)
def test_the_window_after_growth(name: str) -> None:
    restored, added, window, expected = GROWTH[name]
    memory = PolicyMemory(last_restore_at=restored, last_add_at=added, hold_seconds=window, hold_changed_at=NOW - 900)
    found = after_growth(memory, NOW, window or OWN, LIFE, MOST)
    assert found.hold_seconds == expected


def test_a_window_of_the_spec_that_is_longer_than_the_most_stays_as_it_is() -> None:
    memory = PolicyMemory(last_restore_at=NOW - 10)
    assert after_growth(memory, NOW, 7200, LIFE, MOST) == memory


QUIET = {
    # window, seconds since it changed, the spec's own -> window afterwards
    "it stays for twelve windows": (1200, 12 * 1200 - 1, 300, 1200),
    "then it is halved": (1200, 12 * 1200, 300, 600),
    "half of it may be the spec's own": (600, 12 * 600, 300, None),
    "it never becomes shorter than the spec's own": (600, 12 * 600, 500, None),
    "there is nothing to halve": (None, 1e6, 300, None),
}


@pytest.mark.parametrize("name", QUIET)
def test_the_window_after_a_quiet_time(name: str) -> None:
    window, quiet, own, expected = QUIET[name]
    memory = PolicyMemory(hold_seconds=window, hold_changed_at=None if window is None else NOW - quiet)
    assert after_quiet(memory, NOW, own, 12).hold_seconds == expected


@given(
    st.lists(st.tuples(st.floats(1, 5000), st.sampled_from(("restore", "grow", "wait"))), max_size=60),
    st.integers(1, 5000),
)
def test_whatever_happens_the_window_is_between_the_specs_own_and_the_most(
    events: list[tuple[float, str]], own: int
) -> None:
    memory, now = PolicyMemory(), NOW
    for seconds, what in events:
        now += seconds
        if what == "restore":
            memory = replace(memory, last_restore_at=now)
        elif what == "grow":
            window = max(own, memory.hold_seconds or 0)
            memory = replace(after_growth(memory, now, window, LIFE, MOST), last_add_at=now)
        memory = after_quiet(memory, now, own, 12)
        assert own <= max(own, memory.hold_seconds or 0) <= max(own, MOST)


def square(half_period: float) -> Callable[[float], float]:
    return lambda now: 0.4 if (now // half_period) % 2 else 1.8


def undone(model: Model, within: float) -> int:
    """Upgrades that were followed by another change within so many seconds."""
    changes = [
        (at, decision.reason.value)
        for (at, decision), (_, before) in zip(model.decisions[1:], model.decisions, strict=False)
        if decision.replicas != before.replicas
    ]
    return sum(
        reason == "RestoredTier" and after - at < within for (at, reason), (after, _) in itertools.pairwise(changes)
    )


@pytest.mark.slow
@pytest.mark.parametrize("half_period", [420.0, 600.0])
def test_a_load_that_comes_back_a_little_after_each_window_is_not_followed_in_every_wave(half_period: float) -> None:
    scaling = DEMO_SCALING | {"holdSeconds": 300, "dwellSeconds": 300, "plannerPeriodSeconds": 15}
    fixed, adaptive = (
        Plant(
            [Model("assistant", demo_spec(scaling=scaling), square(half_period))],
            settings=replace(DEMO_SETTINGS, most_hold_seconds=most),
            period=15.0,
        )
        for most in (0, 3600)
    )
    for plant in (fixed, adaptive):
        plant.run(12 * half_period)
    assert undone(fixed.models[0], 300) >= 4
    assert undone(adaptive.models[0], 300) <= 1


def test_a_longer_window_is_told_with_the_reason_and_outlives_a_restart_of_the_operator() -> None:
    memory = PolicyMemory(wanted={"int8": 3, "int4": 1}, generation=1, hold_seconds=40, hold_changed_at=NOW - 60)
    model = observe(demo_spec(), {"int8": 3, "int4": 1}, metrics(0.2, peak=1.8), memory=memory)
    decision = decide_one(model)
    assert decision.reason.value == "HeldByHoldWindow"
    longer = "longer than scaling.holdSeconds (20 s) because an upgrade or a smaller plan was undone soon"
    assert f"the last 40 s, {longer}, does not allow it yet" in decision.message
    assert decision.memory.hold_seconds == 40


def test_an_edit_of_the_spec_ends_the_longer_window() -> None:
    memory = PolicyMemory(wanted={"int8": 3, "int4": 1}, generation=0, hold_seconds=40, hold_changed_at=NOW - 60)
    model = observe(demo_spec(), {"int8": 3, "int4": 1}, metrics(0.2, peak=1.8), memory=memory)
    assert decide_one(model).memory.hold_seconds is None


def test_more_capacity_in_the_pass_of_an_edit_doubles_the_specs_own_window_not_the_one_that_the_edit_ended() -> None:
    memory = PolicyMemory(
        wanted={"full": 1, "int4": 1}, generation=0, last_restore_at=NOW - 10, hold_seconds=1200, hold_changed_at=NOW
    )
    model = observe(demo_spec(), {"full": 1, "int4": 1}, metrics(1.8), memory=memory)
    decision = decide_one(model)
    assert decision.reason.value == "SwappedToCheaperTier"
    assert decision.memory.hold_seconds == 40


def test_more_capacity_without_an_edit_doubles_the_window_as_it_is() -> None:
    memory = PolicyMemory(
        wanted={"full": 1, "int4": 1}, generation=1, last_restore_at=NOW - 10, hold_seconds=1200, hold_changed_at=NOW
    )
    model = observe(demo_spec(), {"full": 1, "int4": 1}, metrics(1.8), memory=memory)
    assert decide_one(model).memory.hold_seconds == 2400
