"""Looks at the operator's process and metrics while a run goes on: how long passes take, what they cost."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from e2e.scale.operator import METRICS_URL

_TICKS = os.sysconf("SC_CLK_TCK")
_METRIC = "adaptive_operator_pass_seconds"
_SOLVED = "adaptive_operator_solver_seconds"
_COUNTED = {
    "adaptive_operator_decision_total": "reason",
    "adaptive_operator_solver_failures_total": "cause",
    "adaptive_operator_failed_passes_total": "error",
    f"{_SOLVED}_count": "method",
}


@dataclass(frozen=True, slots=True)
class PassTime:
    """A pass that ended shortly before `at` (seconds since the epoch)."""

    at: float
    seconds: float


@dataclass(slots=True)
class PassTimes:
    """From a histogram's sum and count, as they grow. Looked at often enough, each pass is one step of them."""

    times: list[PassTime] = field(default_factory=list)
    _last: tuple[float, int] = (0.0, 0)

    def note(self, at: float, total: float, count: int) -> None:
        """One look; passes that ended between two looks share their mean."""
        before, passes = self._last[0], count - self._last[1]
        self.times += [PassTime(at, (total - before) / passes)] * passes if passes > 0 else []
        self._last = (total, count)


@dataclass(frozen=True, slots=True)
class Usage:
    """A process with its children. CPU seconds since it began; resident memory in bytes."""

    at: float
    cpu_seconds: float
    rss_bytes: int


def read_usage(pid: int) -> Usage:
    """Of a live process tree; raises OSError when it has ended, also when its parent has not noticed yet."""
    if _state(Path(f"/proc/{pid}/stat").read_text()) in "ZX":
        raise ProcessLookupError(pid)
    pids = [pid, *_descendants(pid)]
    cpu, rss = 0.0, 0
    for number in pids:
        try:
            cpu += parse_cpu_seconds(Path(f"/proc/{number}/stat").read_text())
            rss += parse_rss_bytes(Path(f"/proc/{number}/status").read_text())
        except OSError:
            if number == pid:
                raise
    return Usage(time.time(), cpu, rss)


def parse_cpu_seconds(stat: str) -> float:
    """User and system time in /proc/PID/stat, of children that have ended too; the name may hold brackets."""
    fields = stat[stat.rindex(")") + 2 :].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def _state(stat: str) -> str:
    return stat[stat.rindex(")") + 2]


def parse_rss_bytes(status: str) -> int:
    """VmRSS in /proc/PID/status; 0 for a process that has ended."""
    line = next((line for line in status.splitlines() if line.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(line.split()[1]) * 1024


def _descendants(pid: int) -> list[int]:
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(number) for text in texts for number in text.split()]
    return [*children, *(grandchild for child in children for grandchild in _descendants(child))]


class OperatorEndedError(Exception):
    """There is nothing left to look at."""


@dataclass(slots=True)
class Watcher:
    """Both, every two seconds until cancelled: the exposition of many models is work for the operator too."""

    pid: int
    passes: PassTimes = field(default_factory=PassTimes)
    solved: PassTimes = field(default_factory=PassTimes)
    usages: list[Usage] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)  # at the last look

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                try:
                    self.usages.append(read_usage(self.pid))
                except OSError as error:
                    raise OperatorEndedError("the operator has ended") from error
                await self._look(session)
                await asyncio.sleep(2)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(METRICS_URL) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return  # it starts, or is busy: the sums wait for the next look
        self.passes.note(time.time(), *parse_times(text, _METRIC))
        self.solved.note(time.time(), *parse_times(text, _SOLVED))
        self.counts = parse_counts(text)


def parse_times(text: str, metric: str = _METRIC) -> tuple[float, int]:
    """Sum in seconds and number of what a histogram of the operator's exposition saw, under all labels."""
    samples = _samples(text, (f"{metric}_sum", f"{metric}_count"))
    total = sum(value for name, _, value in samples if name == f"{metric}_sum")
    return total, int(sum(value for name, _, value in samples if name == f"{metric}_count"))


def parse_counts(text: str) -> dict[str, dict[str, int]]:
    """Counters that tell what the operator decided and what failed, over all models: by metric, then by label."""
    found: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
    for name, labels, value in _samples(text, tuple(_COUNTED)):
        found[name][labels[_COUNTED[name]]] += int(value)
    return {name: {label: n for label, n in sorted(counts.items()) if n} for name, counts in found.items()}


def _samples(text: str, names: tuple[str, ...]) -> list[tuple[str, dict[str, str], float]]:
    """Name, labels and value: only lines that begin with one of the names are parsed, the others are many."""
    own = "\n".join(line for line in text.splitlines() if line.startswith(names))
    families = text_string_to_metric_families(own)
    return [(s.name, s.labels, s.value) for family in families for s in family.samples]


def cpu_cores(usages: Sequence[Usage], start: float, end: float) -> float:
    """Mean CPU seconds per second in an interval; 0 where nobody looked twice."""
    inside = [usage for usage in usages if start <= usage.at < end]
    if len(inside) < 2:
        return 0.0
    return (inside[-1].cpu_seconds - inside[0].cpu_seconds) / (inside[-1].at - inside[0].at)
