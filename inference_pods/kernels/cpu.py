"""What this process may use of the CPU: instruction sets, cores, and the container's quota.

Reads /proc and cgroup files only; knows nothing of kernels or models.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

VARIANTS: dict[str, frozenset[str]] = {  # best first; the flags each one needs
    "avx512": frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx2", "fma", "f16c"}),
    "avx2": frozenset({"avx2", "fma", "f16c"}),
    "generic": frozenset(),
}
REPORTED_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile")


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor as the kernels see it."""

    model: str
    flags: frozenset[str]

    def best_variant(self) -> str:
        return next(name for name, needed in VARIANTS.items() if needed <= self.flags)

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


def read_quota_cores(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that the CPU quota of this container allows; None without a quota. Understands cgroup v2 and v1."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    for folder in ("cpu", "cpu,cpuacct"):
        try:
            quota_us = int((root / folder / "cpu.cfs_quota_us").read_text())
            period_us = int((root / folder / "cpu.cfs_period_us").read_text())
        except (OSError, ValueError):
            continue
        return quota_us / period_us if quota_us > 0 and period_us > 0 else None
    return None


def allowed_threads(available_cores: int, quota_cores: float | None) -> int:
    """Threads worth starting: whole cores within the quota, at least one.

    250m -> 1, 1500m -> 1, 2 -> 2, no quota -> all cores. A thread beyond the quota only burns it at barriers.
    """
    if quota_cores is None:
        return max(1, available_cores)
    return max(1, min(available_cores, int(quota_cores)))


def detect_threads() -> int:
    return allowed_threads(len(os.sched_getaffinity(0)), read_quota_cores())
