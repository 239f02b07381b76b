"""What the benchmark of the event loop makes of its beats."""

from __future__ import annotations

import asyncio
import time

import pytest

from adaptive_operator.observe.observation import Planning
from adaptive_operator.solving import SolverProcess
from benchmarks.bench_loop import Beats, Pauses, build_pass, describe

PAUSES = {
    "a beat in the stretch": (3.0, 7.0, 0.4),
    "a pause that begins in the stretch and ends after it": (9.0, 9.7, 0.5),
    "a pause that began before the stretch and ends in it": (9.8, 11.0, 0.5),
    "a stretch without a beat": (7.0, 8.0, 0.0),
}


@pytest.mark.parametrize("name", PAUSES)
def test_the_longest_pause_is_of_those_that_touch_the_stretch(name):
    start, end, worst = PAUSES[name]
    beats = Beats([(1.0, 0.9), (5.0, 0.4), (6.0, 0.1), (10.0, 0.5)])
    assert beats.worst(start, end) == worst


async def test_a_loop_that_is_held_up_is_seen():
    beats = Beats()
    beating = asyncio.create_task(beats.run())
    await asyncio.sleep(0.01)
    start = time.perf_counter()
    time.sleep(0.1)  # noqa: ASYNC251 this is what is to be seen
    await asyncio.sleep(0.01)
    beating.cancel()
    assert 0.09 < beats.worst(start, time.perf_counter()) < 0.5


@pytest.mark.parametrize("planning", [Planning.SOLVED, Planning.BY_NEED])
async def test_the_pass_that_is_measured_solves_a_program_or_none(planning):
    solver = SolverProcess(30.0)
    measured = build_pass(4, planning, solver)
    await measured.lease.step()
    for _ in range(2):
        await measured.run_pass()
    assert [planned for _, _, planned in measured.decided] == [planning is Planning.SOLVED] * 2


def test_a_line_has_milliseconds():
    found = [Pauses(0.01, 0.02, 0.1, solved=True), Pauses(0.03, 0.05, 0.2, solved=False)]
    assert describe("20 models", found) == "| 20 models | 2 | 1 | 150 | 20 / 30 | 35 / 50 |"
