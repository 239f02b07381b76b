"""Runs the engine core in a thread of its own and carries requests in and events out.

Cancellations are applied before the next step, so a request leaves the batch within one step. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from inference_pods.engine.core import EngineCore, StepResult
from inference_pods.engine.errors import locate
from inference_pods.engine.sequence import FailureKind, GenerationRequest, TokenEvent

logger = logging.getLogger(__name__)

Deliver = Callable[[list[TokenEvent]], None]
Observe = Callable[[StepResult, float], None]


class EngineLoop:
    """`deliver` gets each step's events, `observe` its result and seconds; both are called in the engine's thread."""

    def __init__(self, core: EngineCore, deliver: Deliver, observe: Observe) -> None:
        self._core = core
        self._deliver = deliver
        self._observe = observe
        self._changed = threading.Condition()
        self._added: list[tuple[int, GenerationRequest]] = []
        self._levels: list[tuple[int, int]] = []
        self._cancelled: list[int] = []
        self._stopping = False
        self._crashed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its present step; unfinished requests get no further events."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._crashed

    @property
    def has_crashed(self) -> bool:
        """The thread ended although nobody asked it to."""
        return self._crashed

    def submit(self, request_id: int, request: GenerationRequest) -> None:
        """Hands a request over; one that comes after a crash fails at once, because nobody would take it."""
        with self._changed:
            if not self._crashed:
                self._added.append((request_id, request))
                self._changed.notify()
                return
        self._deliver(_build_stopped([request_id]))

    def change_level(self, request_id: int, level: int) -> None:
        """From the next step on the request is computed at `level` (an index); one that has ended is left alone."""
        with self._changed:
            self._levels.append((request_id, level))
            self._changed.notify()

    def cancel(self, request_id: int) -> None:
        with self._changed:
            self._cancelled.append(request_id)
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._step_until_stopped()
        except Exception:
            logger.exception("the engine loop ended by an error; open requests are failed")
            with self._changed:
                self._crashed = True
                unseen = [request_id for request_id, _ in self._added]
            self._deliver(_build_stopped(self._core.abandon() + unseen))

    def _step_until_stopped(self) -> None:
        while self._take_changes():
            if not self._core.scheduler.is_idle:
                self._step()
            if self._core.scheduler.is_idle:
                self._core.check_integrity()
        logger.info("engine loop ended")

    def _step(self) -> None:
        started = time.monotonic()
        result = self._core.step()
        self._observe(result, time.monotonic() - started)
        if result.events:
            self._deliver(result.events)

    def _take_changes(self) -> bool:
        """Applies what came in; sleeps while there is nothing to do. False when stopping."""
        with self._changed:
            while not self._has_work():
                self._changed.wait()
            added, self._added = self._added, []
            levels, self._levels = self._levels, []
            cancelled, self._cancelled = self._cancelled, []
        for request_id, request in added:
            self._add(request_id, request)
        for request_id, level in levels:
            self._core.change_level(request_id, level)
        for request_id in cancelled:
            self._core.cancel(request_id)
        return not self._stopping

    def _has_work(self) -> bool:
        has_changes = self._added or self._levels or self._cancelled
        return bool(self._stopping or has_changes or not self._core.scheduler.is_idle)

    def _add(self, request_id: int, request: GenerationRequest) -> None:
        """A request that cannot even be begun ends alone."""
        try:
            self._core.add(request_id, request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the loop goes on
            logger.error("request %d cannot be begun: %s", request_id, locate(error))
            failure = "the engine failed on this request"
            self._deliver([TokenEvent(request_id, error=failure, failure=FailureKind.INTERNAL)])


def _build_stopped(request_ids: list[int]) -> list[TokenEvent]:
    return [TokenEvent(one, error="the engine stopped", failure=FailureKind.STOPPED) for one in request_ids]
