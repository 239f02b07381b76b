"""Open-loop load: requests leave when they are due, whether or not earlier ones have been answered.

Bounded in count (the arrivals), in time (each request's own limit) and in flight. Knows nothing of Kubernetes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from e2e.load.arrivals import Arrival
from e2e.load.client import Due, Prompt, StreamClient
from e2e.load.prompts import prompt_for
from e2e.load.record import RequestRecord


class OpenLoop:
    """A run in progress: `records` grows as answers end, in the order they end."""

    def __init__(
        self,
        client: StreamClient,
        now: Callable[[], float],
        output_tokens: int,
        max_in_flight: int = 500,
        tier: str = "",
    ) -> None:
        self.records: list[RequestRecord] = []
        self.sent = 0
        self.step = 0  # of the request that left last
        self._client = client
        self._now = now
        self._output_tokens = output_tokens
        self._max_in_flight = max_in_flight
        self._tier = tier
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Requests that have left and not ended."""
        return len(self._tasks)

    async def run(self, arrivals: Iterable[Arrival], stop: asyncio.Event) -> None:
        """Send until the arrivals or `stop` end it, then wait for the answers of what was sent."""
        origin = self._now()
        try:
            for arrival in arrivals:
                if await _stopped_before(stop, origin + arrival.offset_seconds - self._now()):
                    break
                self._start(arrival, Due(arrival.index, arrival.step, origin + arrival.offset_seconds))
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()

    def _start(self, arrival: Arrival, due: Due) -> None:
        self.sent += 1
        self.step = arrival.step
        if len(self._tasks) >= self._max_in_flight:
            text = f"not sent: {self._max_in_flight} requests are in flight already (the generator's limit)"
            now = self._now()
            self.records.append(RequestRecord(due.index, due.step, due.at, now, now, error=text))
            return
        task = asyncio.create_task(self._send(due))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, due: Due) -> None:
        prompt = Prompt(prompt_for(due.index), self._output_tokens, self._tier)
        self.records.append(await self._client.send(prompt, due))


async def _stopped_before(stop: asyncio.Event, wait_seconds: float) -> bool:
    """Wait, at most until `stop` is set; whether it is."""
    if wait_seconds <= 0:
        await asyncio.sleep(0)
        return stop.is_set()
    try:
        await asyncio.wait_for(stop.wait(), wait_seconds)
    except TimeoutError:
        return False
    return True
