"""What this process may use of the CPU: instruction sets, cores, and the container's quota.

Reads /proc and cgroup files only; knows nothing of kernels or models.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VARIANTS: dict[str, frozenset[str]] = {  # best first; the flags each one needs
    "avx512": frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx2", "fma", "f16c"}),
    "avx2": frozenset({"avx2", "fma", "f16c"}),
    "generic": frozenset(),
}
MOST_THREADS = 4096  # that a compiled decoder takes (MANY in cpp/step.cpp)
REPORTED_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile")


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor as the kernels see it."""

    model: str
    flags: frozenset[str]

    def can_run(self, variant: str) -> bool:
        return VARIANTS[variant] <= self.flags

    def best_variant(self) -> str:
        return next(filter(self.can_run, VARIANTS))

    def describe(self) -> str:
        """Model and the flags that matter, for logs and benchmark tables."""
        present = [flag for flag in REPORTED_FLAGS if flag in self.flags]
        return f"{self.model} [{' '.join(present) or platform.machine()}]"


def parse_cpuinfo(text: str) -> Cpu:
    """Model and flags of the first processor in /proc/cpuinfo (empty flags on other architectures)."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    return Cpu(model=fields.get("model name", platform.machine()), flags=frozenset(fields.get("flags", "").split()))


@cache
def detect_cpu() -> Cpu:
    try:
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text())
    except OSError:
        return Cpu(model=platform.machine(), flags=frozenset())


def parse_own_cgroups(text: str) -> dict[str, str]:
    """Path of this process by controller list in /proc/self/cgroup; "" is the controller list of version 2."""
    entries = (line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2)
    return {controllers: path.strip("/") for _, controllers, path in entries}


def cgroup_folders(mount: Path, path: str) -> list[Path]:
    """The cgroup's folder and those above it. In a container only the mount itself may exist."""
    parts = [part for part in path.split("/") if part and part != ".."]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]


def _read_v2(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _read_v1(folder: Path) -> float | None:
    quota_us = int((folder / "cpu.cfs_quota_us").read_text())
    period_us = int((folder / "cpu.cfs_period_us").read_text())
    return quota_us / period_us if quota_us > 0 and period_us > 0 else None


def read_quota_cores(
    root: Path = Path("/sys/fs/cgroup"), own_cgroups: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Cores that the CPU quotas of this process's cgroups allow; None without a quota. Understands versions 1 and 2."""
    try:
        own = parse_own_cgroups(own_cgroups.read_text())
    except OSError:
        own = {}
    quotas = []
    for controllers, path in {"": "", "cpu": "", "cpu,cpuacct": "", **own}.items():
        if controllers and "cpu" not in controllers.split(","):
            continue
        for folder in cgroup_folders(root / controllers, path):
            with suppress(OSError, ValueError):
                quotas.append(_read_v1(folder) if controllers else _read_v2(folder))
    return min((quota for quota in quotas if quota is not None), default=None)


def allowed_threads(available_cores: int, quota_cores: float | None) -> int:
    """Threads worth starting: whole cores within the quota, at least one.

    250m -> 1, 1500m -> 1, 2 -> 2, no quota -> all cores. A thread beyond the quota only burns it at barriers.
    """
    if quota_cores is None:
        return max(1, available_cores)
    return max(1, min(available_cores, int(quota_cores)))


def detect_threads() -> int:
    return allowed_threads(len(os.sched_getaffinity(0)), read_quota_cores())
