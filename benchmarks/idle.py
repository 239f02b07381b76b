"""Waits until the machine is idle, so that a timing measures the program and not its neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

IDLE_SHARE = 0.93
_INTERVAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class IdleCheck:
    """What the gate found: the idle share of the CPU in its last interval, and whether that was enough."""

    share: float
    passed: bool


def parse_idle(stat: str) -> tuple[int, int]:
    """Idle and total ticks in the text of /proc/stat, all processors together; waiting for disks counts as idle."""
    fields = [int(field) for field in stat.split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def _read() -> tuple[int, int]:
    return parse_idle(Path("/proc/stat").read_text())


def wait_until_idle(
    timeout_seconds: float,
    read: Callable[[], tuple[int, int]] = _read,
    sleep: Callable[[float], None] = time.sleep,
) -> IdleCheck:
    """Returns as soon as one interval was idle enough, else after the time-out with what the last one showed."""
    waited = 0.0
    while True:
        idle, total = read()
        sleep(_INTERVAL_SECONDS)
        waited += _INTERVAL_SECONDS
        idle_after, total_after = read()
        share = (idle_after - idle) / max(1, total_after - total)
        if share >= IDLE_SHARE or waited >= timeout_seconds:
            return IdleCheck(share, share >= IDLE_SHARE)
