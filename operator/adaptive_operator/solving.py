"""Solves pools' programs at the edge: small ones where they are asked for, large ones in a warm process of their own.

A search releases Python's lock, but listing the configurations of a large pool does not: in the same process it would
hold up the event loop, which has a Lease to renew. A process that dies or hangs is replaced.
"""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Final

from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve

SMALL_MODELS: Final = 20  # plain programs: milliseconds, most of them without Python's lock


class SolverError(Exception):
    """The program has no answer: the process died, or took too long."""


@dataclass(slots=True)
class SolverProcess:
    """A solver for `decide_pool`. Called from any thread, one program at a time in the process.

    `seconds`: how long one answer may take, the start of the process included.
    """

    seconds: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _executor: ProcessPoolExecutor | None = None

    def solve(self, problem: Problem) -> PoolPlan:
        """The plan. Raises SolverError."""
        if len(problem.models) <= SMALL_MODELS:
            return solve(problem)
        try:
            return self._submit(problem).result(self.seconds)
        except TimeoutError as error:
            self.close()
            raise SolverError(f"no answer within {self.seconds:g} s") from error
        except (BrokenProcessPool, OSError) as error:
            self.close()
            raise SolverError(f"the process ended: {error or type(error).__name__}") from error

    def close(self) -> None:
        """End the process, whatever it does. The next program starts a new one."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is None:
            return
        workers = list((executor._processes or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()

    def _submit(self, problem: Problem) -> Future[PoolPlan]:
        with self._lock:
            if self._executor is None:
                # Not forked: this process has threads and open connections.
                context = multiprocessing.get_context("spawn")
                self._executor = ProcessPoolExecutor(1, mp_context=context)
            return self._executor.submit(solve, problem)
