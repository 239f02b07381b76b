"""Programs in a process of their own: the same plans, and an end to those that die or hang."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from adaptive_operator.decide.optimize.solve import solve
from adaptive_operator.solving import SMALL_MODELS, SolverError, SolverProcess
from tests.operator.decide.optimize.instances import small_problem


@pytest.fixture
def solver() -> Iterator[SolverProcess]:
    found = SolverProcess(seconds=50.0)
    yield found
    found.close()


def test_a_small_program_is_solved_where_it_is_asked_for(solver: SolverProcess) -> None:
    problem = small_problem(1)
    assert solver.solve(problem) == solve(problem)
    assert solver._executor is None


def test_a_large_program_has_the_same_plan_from_the_process(solver: SolverProcess) -> None:
    problem = small_problem(1, models=SMALL_MODELS + 1)
    assert solver.solve(problem).counts == solve(problem).counts


def test_a_process_that_dies_is_an_error_and_the_next_program_has_a_new_one(solver: SolverProcess) -> None:
    problem = small_problem(1, models=SMALL_MODELS + 1)
    solver.solve(problem)
    assert solver._executor is not None
    [worker] = solver._executor._processes
    os.kill(worker, signal.SIGSTOP)  # so that the next program is there before the end is
    timer = threading.Timer(0.5, os.kill, (worker, signal.SIGKILL))
    timer.start()
    with pytest.raises(SolverError, match="the process ended"):
        solver.solve(problem)
    timer.join()
    assert solver.solve(problem).counts == solve(problem).counts


def test_an_answer_that_takes_too_long_is_an_error() -> None:
    impatient = SolverProcess(seconds=0.001)
    with pytest.raises(SolverError, match="no answer within"):
        impatient.solve(small_problem(1, models=SMALL_MODELS + 1))
    impatient.close()


def test_a_large_program_costs_this_process_next_to_nothing(solver: SolverProcess) -> None:
    problem = small_problem(2, models=60)
    solver.solve(problem)
    before = time.process_time()
    solver.solve(problem)
    assert time.process_time() - before < 0.05
