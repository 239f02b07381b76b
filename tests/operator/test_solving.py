"""Programs in a process of their own: the same plans, and an end to those that die, hang, or outlive the operator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from adaptive_operator.decide.optimize.fallback import keep
from adaptive_operator.decide.optimize.solve import Method, SolveSettings, solve
from adaptive_operator.solving import SMALL_MODELS, SolverError, SolverProcess, SolverTimeoutError
from tests.operator.decide.optimize.instances import small_problem

LARGE = small_problem(1, models=SMALL_MODELS + 1)
ROOT = Path(__file__).parents[2]
# An operator that has a worker, tells its number, and works or waits until it is killed.
OPERATOR = """
import sys, time
from adaptive_operator.solving import SolverProcess
from tests.operator.decide.optimize.instances import small_problem

if __name__ == "__main__":
    solver = SolverProcess(seconds=50.0)
    solver.prepare(21)
    while solver._worker is None:
        time.sleep(0.01)
    print(solver._worker.process.pid, flush=True)
    while sys.argv[1] == "works":
        solver.solve(small_problem(1, models=600))
    time.sleep(100.0)
"""


@pytest.fixture
def solver() -> Iterator[SolverProcess]:
    found = SolverProcess(seconds=50.0)
    yield found
    found.close()


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def is_running(pid: int) -> bool:
    """Is there such a process, and is it more than an entry that nobody has asked for yet?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def worker_of(solver: SolverProcess) -> int:
    assert wait_for(lambda: solver._worker is not None)
    assert solver._worker is not None
    pid = solver._worker.process.pid
    assert pid is not None
    return pid


def has_loaded_the_solver(pid: int) -> bool:
    return "highs" in Path(f"/proc/{pid}/maps").read_text()


def test_a_small_program_is_solved_where_it_is_asked_for(solver: SolverProcess) -> None:
    problem = small_problem(1)
    assert solver.solve(problem) == solve(problem)
    assert solver._worker is None


def test_a_large_program_has_the_same_plan_from_the_process(solver: SolverProcess) -> None:
    assert solver.solve(LARGE).counts == solve(LARGE).counts


@pytest.mark.slow
def test_the_process_is_told_what_changed(solver: SolverProcess) -> None:
    many = small_problem(5, models=SolveSettings().incremental_models + 1)
    kept = keep(many)
    columns = {
        m.key: tuple(replace(c, present=n) for c, n in zip(m.columns, kept[m.key], strict=True)) for m in many.models
    }
    running = replace(many, models=tuple(replace(m, columns=columns[m.key]) for m in many.models))
    assert solver.solve(running, {"demo/m7"}) == solve(running, {"demo/m7"})
    assert solver.solve(running, {"demo/m7"}).method in (Method.INCREMENTAL, Method.KEEP)


def test_a_process_that_dies_is_an_error_and_the_next_program_has_a_new_one(solver: SolverProcess) -> None:
    solver.solve(LARGE)
    worker = worker_of(solver)
    os.kill(worker, signal.SIGSTOP)  # so that the next program is there before the end is
    timer = threading.Timer(0.5, os.kill, (worker, signal.SIGKILL))
    timer.start()
    with pytest.raises(SolverError, match="the process ended") as failed:
        solver.solve(LARGE)
    timer.join()
    assert not isinstance(failed.value, SolverTimeoutError)
    assert solver.solve(LARGE).counts == solve(LARGE).counts


@pytest.mark.slow
@pytest.mark.parametrize("prepared", [True, False])
def test_a_process_that_died_between_two_programs_costs_no_program(solver: SolverProcess, prepared: bool) -> None:
    solver.solve(LARGE)
    worker = worker_of(solver)
    os.kill(worker, signal.SIGKILL)
    assert wait_for(lambda: not solver._runs())
    if prepared:
        solver.prepare(len(LARGE.models))
        assert wait_for(lambda: worker_of(solver) != worker)
    assert solver.solve(LARGE).counts == solve(LARGE).counts


def test_a_defect_of_the_solver_is_told_and_the_process_stays(solver: SolverProcess) -> None:
    solver.solve(LARGE)
    worker = worker_of(solver)
    with pytest.raises(SolverError, match="AttributeError: "):
        solver.solve(replace(LARGE, models=(None,) * (SMALL_MODELS + 1)))
    assert solver.solve(LARGE).counts == solve(LARGE).counts
    assert worker_of(solver) == worker


def test_an_answer_that_takes_too_long_is_an_error_and_its_process_is_ended() -> None:
    impatient = SolverProcess(seconds=0.3)
    impatient.prepare(len(LARGE.models))
    worker = worker_of(impatient)
    os.kill(worker, signal.SIGSTOP)
    with pytest.raises(SolverTimeoutError, match="no answer within"):
        impatient.solve(small_problem(1, models=400))  # more than a pipe holds: not even the question gets through
    assert wait_for(lambda: not is_running(worker))
    impatient.close()


def test_a_program_that_gets_no_turn_is_an_error(solver: SolverProcess) -> None:
    solver.solve(LARGE)
    worker = worker_of(solver)
    os.kill(worker, signal.SIGSTOP)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(solver.solve, LARGE)
        assert wait_for(lambda: not first.done() and solver._turn.locked())
        solver.seconds = 0.1
        with pytest.raises(SolverTimeoutError, match="no answer within"):
            solver.solve(LARGE)
        os.kill(worker, signal.SIGCONT)
        assert first.result(50.0).counts == solve(LARGE).counts


def test_a_large_program_costs_this_process_next_to_nothing(solver: SolverProcess) -> None:
    problem = small_problem(2, models=60)
    solver.solve(problem)
    start = time.process_time()
    solver.solve(problem)
    elsewhere = time.process_time() - start
    solve(problem)
    here = time.process_time() - start - elsewhere
    assert elsewhere < here / 4


def test_a_closed_solver_starts_no_process_any_more(solver: SolverProcess) -> None:
    solver.close()
    solver.prepare(len(LARGE.models))
    with pytest.raises(SolverError, match="closed"):
        solver.solve(LARGE)
    time.sleep(0.2)
    assert solver._worker is None


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.3], ids=lambda seconds: f"{seconds:g} s after the question")
def test_closing_while_the_process_starts_ends_it_and_whoever_waits_for_it(
    solver: SolverProcess, moment: float
) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(solver.solve, LARGE)
        time.sleep(moment)
        began = time.monotonic()
        solver.close()
        with pytest.raises(SolverError, match="closed"):
            waiting.result(5.0)
    assert time.monotonic() - began < 2.0
    assert solver._worker is None


def test_a_process_is_made_ready_beforehand_where_a_pool_is_large(solver: SolverProcess) -> None:
    solver.prepare(SMALL_MODELS)
    assert solver._worker is None
    began = time.perf_counter()
    solver.prepare(len(LARGE.models))
    asked = time.perf_counter()
    worker = worker_of(solver)
    assert wait_for(lambda: has_loaded_the_solver(worker))
    assert asked - began < (time.perf_counter() - asked) / 2, "nobody waits for it"
    solver.prepare(len(LARGE.models))
    solver.solve(LARGE)
    assert worker_of(solver) == worker


@pytest.mark.slow
@pytest.mark.parametrize("doing", ["starts", "works", "waits"])
def test_a_process_ends_by_itself_when_its_operator_is_killed(doing: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT)])}
    command = [sys.executable, "-c", OPERATOR, doing]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as operator:
        assert operator.stdout is not None
        worker = int(operator.stdout.readline())
        if doing != "starts":
            assert wait_for(lambda: has_loaded_the_solver(worker))
            time.sleep(0.5)
        assert is_running(worker)
        operator.kill()
    assert wait_for(lambda: not is_running(worker))
