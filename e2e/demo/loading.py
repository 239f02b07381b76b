"""The load of the demo: the steps, the samples beside them, the live view, and the wait for quality to come back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate

from rich.console import Console
from rich.live import Live

from e2e.demo.progress import Progress
from e2e.demo.sample import Sample
from e2e.demo.sampler import Sampler
from e2e.demo.settings import Settings
from e2e.demo.timeline import Baseline, find_baseline, find_timeline
from e2e.demo.view import LoadState, explain, find_decisions, line, render
from e2e.load.arrivals import Pattern, Step, draw_arrivals
from e2e.load.client import StreamClient
from e2e.load.open_loop import OpenLoop
from e2e.load.record import RequestRecord

LINE_SECONDS = 5.0  # between lines where there is no terminal
FRAME_SECONDS = 0.5  # between frames of the live view


class LoadRun:
    """One run over the steps. The last step goes on until quality is restored, at most for the set time."""

    def __init__(
        self,
        settings: Settings,
        steps: Sequence[Step],
        client: StreamClient,
        sampler: Sampler,
        now: Callable[[], float],
        best: str,
        output_tokens: int,
    ) -> None:
        self.step_starts: tuple[float, ...] = ()
        self.baseline: Baseline | None = None
        self._settings = settings
        self._steps = tuple(steps)
        self._sampler = sampler
        self._now = now
        self._best = best
        self._loop = OpenLoop(client, now, output_tokens)

    @property
    def records(self) -> list[RequestRecord]:
        """What has ended so far."""
        return self._loop.records

    async def run(self, progress: Progress) -> None:
        """Send, watch and show until the load is over and every request has ended."""
        durations = [step.duration_seconds for step in self._steps]
        self.step_starts = tuple(self._now() + past for past in (0.0, *list(accumulate(durations))[:-1]))
        stop = asyncio.Event()
        last = self._steps[-1]
        longest = Step(last.rate_per_second, last.duration_seconds + self._settings.restore_timeout_seconds)
        arrivals = draw_arrivals((*self._steps[:-1], longest), Pattern.POISSON, self._settings.seed)
        watching = [asyncio.create_task(self._sampler.run()), asyncio.create_task(self._show(progress))]
        ending = asyncio.create_task(self._end_when_restored(stop))
        try:
            await self._loop.run(arrivals, stop)
            self.baseline = self._find_baseline()
        finally:
            for task in (*watching, ending):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _end_when_restored(self, stop: asyncio.Event) -> None:
        """Set `stop` after the last step, as soon as quality is back."""
        await asyncio.sleep(max(0.0, self.step_starts[-1] + self._steps[-1].duration_seconds - self._now()))
        while not self._is_restored():  # noqa: ASYNC110 - what it waits for is the cluster's state, not an event here
            await asyncio.sleep(1)
        stop.set()

    def _is_restored(self) -> bool:
        baseline = self._find_baseline()
        if baseline is None:
            return False
        starts = self.step_starts
        seen = find_timeline(self._sampler.samples, self.records, baseline, starts[1], starts[-1])
        return seen.restored_at is not None

    def _find_baseline(self) -> Baseline | None:
        overload_at = self.step_starts[1]
        samples = [sample for sample in self._sampler.samples if sample.at < overload_at]
        records = [record for record in self.records if record.due_at < overload_at]
        return find_baseline(samples, records, self._best)

    async def _show(self, progress: Progress) -> None:
        if not sys.stdout.isatty():
            told = 0
            while True:
                await asyncio.sleep(LINE_SECONDS)
                decisions = find_decisions(self._sampler.samples)
                for text in (text for sample in decisions[told:] for text in explain(sample)):
                    progress.tell(f"  {text}")
                told = len(decisions)
                progress.tell(line(*self._state()))
        with Live(console=Console(), auto_refresh=False) as live:
            while True:
                live.update(render(*self._state()), refresh=True)
                await asyncio.sleep(FRAME_SECONDS)

    def _state(self) -> tuple[Sample | None, list[RequestRecord], LoadState, float]:
        at = self._now()
        number = sum(at >= start for start in self.step_starts) - 1
        step = self._steps[max(0, number)]
        load = LoadState(max(0, number), len(self._steps), step.rate_per_second, self._loop.sent, self._loop.in_flight)
        sample = self._sampler.samples[-1] if self._sampler.samples else None
        return sample, self.records, load, at
