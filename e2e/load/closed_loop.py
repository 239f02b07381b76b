"""Closed-loop load: a fixed number of requests always in flight; what calibration needs. Bounded in time.

Concurrency rises level by level without a pause, so that the engine's batch is full all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from e2e.load.client import Due, Prompt, StreamClient
from e2e.load.prompts import prompt_for
from e2e.load.record import RequestRecord


async def run_levels(
    client: StreamClient,
    now: Callable[[], float],
    levels: Sequence[int],
    level_seconds: float,
    prompt: Callable[[str], Prompt],
) -> list[RequestRecord]:
    """Keep `levels[i]` requests in flight during the i-th stretch; `step` of a record is the level it started in."""
    records: list[RequestRecord] = []
    start = now()
    end = start + level_seconds * len(levels)

    async def worker(number: int, begin: float) -> None:
        await asyncio.sleep(max(0.0, begin - now()))
        count = 0
        while now() < end:
            level = min(int((now() - start) / level_seconds), len(levels) - 1)
            due = Due(number * 10_000 + count, level, now())
            record = await client.send(prompt(prompt_for(number * 5 + count)), due)
            records.append(record)
            count += 1
            if not record.ok:
                await asyncio.sleep(0.5)  # a refusal must not become a busy loop

    begins = [start + _first_level(levels, number) * level_seconds for number in range(max(levels))]
    await asyncio.gather(*(worker(number, begin) for number, begin in enumerate(begins)))
    return records


def _first_level(levels: Sequence[int], worker: int) -> int:
    """The first level that needs this worker. Levels must not fall."""
    if list(levels) != sorted(levels):
        raise ValueError(f"levels {list(levels)}: concurrency must not fall from level to level")
    return next(number for number, level in enumerate(levels) if worker < level)
