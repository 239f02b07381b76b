"""A cgroup with a CPU quota for a process of a benchmark, as a container with a CPU limit is in; versions 1 and 2."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_PERIOD_MICROSECONDS = 100_000  # Kubernetes' own


class QuotaUnavailableError(RuntimeError):
    """No such cgroup can be made here; the message says why."""


@dataclass(frozen=True, slots=True)
class Throttling:
    """Periods in which the group ran, and those in which it was stopped because its time was used up."""

    periods: int
    throttled: int

    def since(self, before: Throttling) -> Throttling:
        return Throttling(self.periods - before.periods, self.throttled - before.throttled)

    @property
    def share(self) -> float:
        return self.throttled / self.periods if self.periods else 0.0


@dataclass(frozen=True, slots=True)
class QuotaGroup:
    """A cgroup that exists."""

    folder: Path

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command, in the group from its first moment: what it reads of its quota is true."""
        return ["sh", "-c", f'echo $$ > "{self.folder}/cgroup.procs" && exec "$@"', "sh", *command]

    def read_throttling(self) -> Throttling:
        return parse_throttling((self.folder / "cpu.stat").read_text())


def parse_throttling(text: str) -> Throttling:
    """Both versions write `nr_periods` and `nr_throttled` into cpu.stat."""
    fields = dict(line.split() for line in text.splitlines() if len(line.split()) == 2)
    return Throttling(int(fields.get("nr_periods", 0)), int(fields.get("nr_throttled", 0)))


def find_parent(root: Path = ROOT) -> Path:
    """The folder in which groups with a CPU quota can be made.

    Raises:
        QuotaUnavailableError: version 2 without its cpu controller, or no hierarchy at all.
    """
    if (root / "cgroup.controllers").exists():
        if "cpu" in (root / "cgroup.subtree_control").read_text().split():
            return root
        raise QuotaUnavailableError(f"{root}/cgroup.subtree_control does not have the cpu controller")
    if (root / "cpu" / "cpu.cfs_quota_us").exists():
        return root / "cpu"
    raise QuotaUnavailableError(f"there is no cgroup hierarchy with the cpu controller under {root}")


@contextmanager
def cpu_quota(cores: float, root: Path = ROOT) -> Iterator[QuotaGroup]:
    """A group that may use so many cores; its processes must have ended on exit.

    Raises:
        QuotaUnavailableError: it cannot be made here.
    """
    folder = find_parent(root) / f"bench-quota-{os.getpid()}"
    try:
        folder.mkdir()
        _write_quota(folder, round(cores * _PERIOD_MICROSECONDS))
    except OSError as error:
        raise QuotaUnavailableError(f"{folder}: {error.strerror}; this needs root and writable cgroups") from error
    try:
        yield QuotaGroup(folder)
    finally:
        folder.rmdir()


def _write_quota(folder: Path, microseconds: int) -> None:
    if (folder / "cpu.max").exists():
        (folder / "cpu.max").write_text(f"{microseconds} {_PERIOD_MICROSECONDS}")
    else:
        (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
        (folder / "cpu.cfs_quota_us").write_text(str(microseconds))
