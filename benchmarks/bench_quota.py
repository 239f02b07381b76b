"""The engine in half a core: speed against its share of a full core, threads, and how often it is stopped.

    PYTHONPATH=. python -m benchmarks.bench_quota [--rounds 3] [--precision int8]

The engine runs in a cgroup with a CPU quota, its clients outside of it. Compared are one core, half a core, and half a
core with the two threads that the engine would not start by itself. Fair would be half of the speed of one core; what
is missing is lost to threads that wait for a stopped one. Cases alternate; medians over the rounds. Needs root and
cgroups.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu_quota import QuotaUnavailableError, Throttling, cpu_quota
from benchmarks.engine_process import run_engine
from benchmarks.http_load import OURS, Endpoint, LoadShape, run_load, tokens_per_second
from benchmarks.idle import wait_until_idle
from inference_pods.kernels.cpu import detect_cpu

SHAPE = LoadShape(clients=4, requests=1, prompt_tokens=64, new_tokens=48)
WARM_UP = LoadShape(clients=4, requests=1, prompt_tokens=16, new_tokens=4)
_LOG = Path("out/bench/quota.log")
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Case:
    """A quota in cores; `threads` 0: as many as the engine chooses."""

    name: str
    cores: float
    threads: int = 0


CASES = (Case("one core", 1.0), Case("half a core", 0.5), Case("half a core, two threads forced", 0.5, 2))


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: generated tokens per second, compute threads and all threads, cores used, throttling; load only."""

    tokens_per_second: float
    compute_threads: int
    process_threads: int
    cores_used: float
    throttling: Throttling


def parse_cpu_seconds(stat: str) -> float:
    """User and system time in the text of /proc/PID/stat."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS


def count_threads(status: str) -> int:
    """Threads in the text of /proc/PID/status."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:"))


def measure(case: Case, precision: str, seed: int) -> Figures:
    """One engine, started in its group, warmed up, and loaded."""
    flags = ["--precision", precision, "--permutation-seed", "7", "--threads", str(case.threads)]
    with cpu_quota(case.cores) as group, run_engine(flags, _LOG, group.wrap) as engine:
        process = Path(f"/proc/{engine.process.pid}")
        endpoint = Endpoint(engine.base, OURS, {})
        asyncio.run(run_load(endpoint, WARM_UP, seed))
        throttling, used = group.read_throttling(), parse_cpu_seconds((process / "stat").read_text())
        started = time.monotonic()
        times = asyncio.run(run_load(endpoint, SHAPE, seed + 1))
        seconds = time.monotonic() - started
        return Figures(
            tokens_per_second(times),
            int(json.loads(engine.read("/info"))["threads"]),
            count_threads((process / "status").read_text()),
            (parse_cpu_seconds((process / "stat").read_text()) - used) / seconds,
            group.read_throttling().since(throttling),
        )


def render(cases: Sequence[Case], runs: Sequence[Sequence[Figures]]) -> str:
    """A row per case: medians of its runs, and their range; the first case is what the others are a share of."""
    lines = [
        "| quota | compute threads / all | tokens/s (range) | share of one core | cores used | periods throttled |",
        "|---|---|---|---|---|---|",
    ]
    full = statistics.median(one.tokens_per_second for one in runs[0])
    for case, own in zip(cases, runs, strict=True):
        speeds = [one.tokens_per_second for one in own]
        speed = statistics.median(speeds)
        lines.append(
            f"| {case.name} | {own[0].compute_threads} / {max(one.process_threads for one in own)}"
            f" | {speed:.1f} ({min(speeds):.1f}-{max(speeds):.1f}) | {speed / full:.0%}"
            f" | {statistics.median(one.cores_used for one in own):.2f}"
            f" | {statistics.median(one.throttling.share for one in own):.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the engine under a CPU quota.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--gate-seconds", type=float, default=5.0, help="wait so long for an idle machine")
    options = parser.parse_args()
    _LOG.parent.mkdir(parents=True, exist_ok=True)
    runs: list[list[Figures]] = [[] for _ in CASES]
    gate = wait_until_idle(options.gate_seconds)
    try:
        for round_ in range(options.rounds):
            for case, own in zip(CASES, runs, strict=True):
                own.append(measure(case, options.precision, round_))
    except QuotaUnavailableError as error:
        print(f"skipped: {error}")
        return
    print(
        f"CPU: {detect_cpu().describe()}; {options.precision}, {options.rounds} rounds; idle before: {gate.share:.0%}\n"
    )
    print(render(CASES, runs))


if __name__ == "__main__":
    main()
