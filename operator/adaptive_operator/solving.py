"""Solves pools' programs at the edge: small ones where they are asked for, large ones in a warm process of their own.

A search releases Python's lock, but listing the configurations of a large pool does not: in the same process it would
hold up the event loop, which has a Lease to renew. A process that dies or hangs is replaced; one whose operator is gone
ends by itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

from adaptive_operator.decide.optimize.problem import (
    Column,
    Limit,
    PlannedModel,
    PlannedTier,
    Problem,
    RequestClass,
    Route,
)
from adaptive_operator.decide.optimize.solve import PoolPlan, solve

_Question = tuple[Problem, Collection[str] | None]  # what `solve` is asked with
SMALL_MODELS: Final = 20  # plain programs: milliseconds, most of them without Python's lock


class SolverError(Exception):
    """The program has no answer: the process died, or took too long."""


class SolverTimeoutError(SolverError):
    """It took too long."""


@dataclass(slots=True)
class SolverProcess:
    """A solver for `decide_pool`. Called from any thread, one program at a time in the process.

    `seconds`: how long one answer may take, the start of the process and the programs before it included.
    """

    seconds: float
    _turn: threading.Lock = field(default_factory=threading.Lock)  # held from a question to its answer
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of the two fields below, never held for long
    _worker: _Worker | None = None
    _closed: bool = False

    def prepare(self, models: int) -> None:
        """Start the process for a pool of so many models, if it will need one. Waits for nothing."""
        if models > SMALL_MODELS and not self._closed and not self._runs():
            threading.Thread(target=self._start_early, name="solver-start", daemon=True).start()

    def solve(self, problem: Problem, changed: Collection[str] | None = None) -> PoolPlan:
        """The plan; `changed` as for `solve`.

        Raises SolverError, SolverTimeoutError where it is for want of time; a small program also raises what the
        solver itself fails with.
        """
        if len(problem.models) <= SMALL_MODELS:
            return solve(problem, changed)
        end = time.monotonic() + self.seconds
        if not self._turn.acquire(timeout=self.seconds):
            raise SolverTimeoutError(f"no answer within {self.seconds:g} s: another pool's program takes as long")
        try:
            return self._ask((problem, changed), end)
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the process, whatever it does, and start none any more: who waits for an answer has a SolverError."""
        with self._lock:
            self._closed, worker, self._worker = True, self._worker, None
        if worker is not None:
            worker.kill()

    def _ask(self, question: _Question, end: float) -> PoolPlan:
        worker = self._get_worker()
        try:
            with worker.killed_at(end):
                found = worker.ask(question)
        except (EOFError, OSError) as error:  # its end of the pipe is closed: it is gone
            late = time.monotonic() >= end
            self._drop(worker)
            if self._closed:
                raise SolverError(_CLOSED) from error
            if late:
                raise SolverTimeoutError(f"no answer within {self.seconds:g} s") from error
            raise SolverError(f"the process ended: {error or 'no answer'}") from error
        if isinstance(found, str):
            raise SolverError(found)
        return found

    def _get_worker(self) -> _Worker:
        """The process, started if there is none. Raises SolverError."""
        with self._lock:
            if self._closed:
                raise SolverError(_CLOSED)
            if self._worker is None or not self._runs():
                try:
                    self._worker = _Worker.start()
                except OSError as error:
                    raise SolverError(f"the process could not be started: {error}") from error
            return self._worker

    def _runs(self) -> bool:
        worker = self._worker
        return worker is not None and worker.process.is_alive()

    def _start_early(self) -> None:
        try:
            self._get_worker()
        except SolverError:
            return  # the first program tries again, and tells

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        with self._lock:
            if self._worker is worker:
                self._worker = None


_CLOSED: Final = "closed: the operator ends"


@dataclass(frozen=True, slots=True)
class _Worker:
    """The process and this side of its pipe."""

    process: BaseProcess
    pipe: Connection

    @classmethod
    def start(cls) -> _Worker:
        """A new process. It begins to load its libraries; nobody waits for that. Raises OSError."""
        context = multiprocessing.get_context("spawn")  # not forked: this process has threads and open connections
        pipe, far = context.Pipe()
        process = context.Process(target=_serve, args=(far,), name="solver", daemon=True)
        process.start()
        far.close()  # so that the process has the only other end, and its death shows
        return cls(process, pipe)

    def ask(self, question: _Question) -> PoolPlan | str:
        """The plan, or what the solver failed with. Raises EOFError or OSError when the process ends."""
        self.pipe.send(question)
        found: PoolPlan | str = self.pipe.recv()
        return found

    @contextmanager
    def killed_at(self, end: float) -> Iterator[None]:
        """End the process at a time (monotonic), whatever it does: that also ends a question nobody reads."""
        timer = threading.Timer(max(0.0, end - time.monotonic()), self.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def kill(self) -> None:
        """End it, also when it is stopped or hangs. It is waited for where its successor starts, or at the end."""
        self.process.kill()


def _serve(pipe: Connection) -> None:
    """The process: one program after the other, until the operator closes its end or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for the operator: it ends this process itself
    threading.Thread(target=_end_with_operator, daemon=True).start()
    solve(_first_program())
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(question))


def _answer(question: _Question) -> PoolPlan | str:
    try:
        return solve(*question)
    except Exception as error:  # noqa: BLE001 whatever it is, it is told where the program was asked
        return f"{type(error).__name__}: {error}"


def _end_with_operator() -> None:
    """End when the operator does, killed or not, even in the middle of a search."""
    operator = multiprocessing.parent_process()
    if operator is not None:
        operator.join()
    os._exit(1)


def _first_program() -> Problem:
    """A program like a large pool's, solved at once: it loads everything that the next ones need."""
    column = Column("full", "accelerator", 1, 1.0, 60.0)
    classes = (RequestClass("all", 1.0, (1.0,)),)
    routes = (Route("full", (("full", 1.0),)),)
    keys = [f"warm/m{index:02d}" for index in range(SMALL_MODELS + 1)]
    models = tuple(PlannedModel(key, (PlannedTier("full"),), (column,), routes, classes) for key in keys)
    return Problem(models, (Limit("accelerator", len(keys) // 2),))
