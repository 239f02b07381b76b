"""Start, adopt and stop the processes of a cluster.

A process writes its own record (pid, start time, boot, path) before it becomes the program, so that a killed caller
leaves no unknown process. Pids are only signalled after start time and path were checked. Knows no component by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.settings import Cluster, ClusterError
from e2e.cluster.shell import last_lines

_MAX_LOG_BYTES = 50_000_000
# $0 is the record; the shell's pid, and so its start time, stay the same through exec.
_RECORD_AND_EXEC = 'cat /proc/$$/stat /proc/sys/kernel/random/boot_id > "$0"; exec "$@"'
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process as it should run; a change of the command line or of a file it reads means a restart."""

    name: str
    argv: tuple[str, ...]
    prefix: tuple[str, ...] = ()  # command that enters the network namespace
    files: tuple[Path, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Hash of all that decides how the process behaves."""
        digest = hashlib.sha256(repr((self.argv, self.prefix, sorted(self.env.items()))).encode())
        for path in self.files:
            digest.update(path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """A process that was started: enough to know it again, or to know that it is gone."""

    name: str
    pid: int
    start_ticks: int  # since boot, field 22 of /proc/PID/stat
    boot_id: str
    path: str
    fingerprint: str

    def is_alive(self) -> bool:
        """Whether the very process (not another with its pid) still runs."""
        if self.boot_id != BOOT_ID.read_text().strip():
            return False
        try:
            state, start_ticks = parse_stat(Path(f"/proc/{self.pid}/stat").read_text())[1:]
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        # In the middle of an exec the command line reads as empty for a moment: still the same process.
        is_ours = not command or self.path.encode() in command
        return state not in ("Z", "X") and start_ticks == self.start_ticks and is_ours


def parse_stat(text: str) -> tuple[int, str, int]:
    """/proc/PID/stat → (pid, state letter, start time in ticks since boot); the name may hold spaces and brackets."""
    pid, rest = text.split(" ", 1)
    fields = rest[rest.rindex(")") + 2 :].split()
    return int(pid), fields[0], int(fields[19])


def read_record(cluster: Cluster, name: str) -> Record | None:
    """The record of the process called `name`, whether it is alive or not."""
    try:
        stat, boot_id = (cluster.records / f"{name}.pid").read_text().splitlines()[:2]
        path, fingerprint = (cluster.records / f"{name}.spec").read_text().splitlines()[:2]
        pid, _, start_ticks = parse_stat(stat)
    except (OSError, ValueError, IndexError):
        return None
    return Record(name, pid, start_ticks, boot_id, path, fingerprint)


def read_records(cluster: Cluster) -> list[Record]:
    """All records of a cluster."""
    names = sorted(path.stem for path in cluster.records.glob("*.pid"))
    return [record for name in names if (record := read_record(cluster, name))]


def ensure(cluster: Cluster, spec: ProcessSpec) -> bool:
    """Adopt the running process if it is as `spec` says, else (re)start it; True if it was started."""
    record = read_record(cluster, spec.name)
    if record and record.is_alive():
        if record.fingerprint == spec.fingerprint():
            return False
        stop([record])
    start(cluster, spec)
    return True


def start(cluster: Cluster, spec: ProcessSpec) -> None:
    """Start in an own session, output appended to the component's log."""
    cluster.records.mkdir(parents=True, exist_ok=True)
    (cluster.records / f"{spec.name}.pid").unlink(missing_ok=True)
    (cluster.records / f"{spec.name}.spec").write_text(f"{spec.argv[0]}\n{spec.fingerprint()}\n")
    log = log_file(cluster, spec.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        output.write(f"--- started {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
        output.flush()
        subprocess.Popen(
            ["sh", "-c", _RECORD_AND_EXEC, str(cluster.records / f"{spec.name}.pid"), *spec.prefix, *spec.argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **spec.env},
            cwd=cluster.folder,
            start_new_session=True,
        )
    _wait_for_record(cluster, spec.name)


def stop(records: Sequence[Record], grace_seconds: float = 10) -> None:
    """End the processes: SIGTERM, then SIGKILL after `grace_seconds` (0: at once); waits until they are gone."""
    handles = [handle for record in records if (handle := _open(record)) is not None]
    try:
        for handle in handles:
            _signal(handle, signal.SIGTERM if grace_seconds else signal.SIGKILL)
        left = _wait(handles, grace_seconds)
        for handle in left:
            _signal(handle, signal.SIGKILL)
        _wait(left, 10)
    finally:
        for handle in handles:
            os.close(handle)


def kill_pids(pids: Sequence[int]) -> None:
    """SIGKILL processes that the caller has just identified by cgroup or namespace, and wait for their end."""
    handles = []
    for pid in pids:
        with contextlib.suppress(OSError):
            handles.append(os.pidfd_open(pid))
    for handle in handles:
        _signal(handle, signal.SIGKILL)
    _wait(handles, 10)
    for handle in handles:
        os.close(handle)


def log_file(cluster: Cluster, name: str) -> Path:
    """The component's log."""
    return cluster.logs / f"{name}.log"


def explain_death(cluster: Cluster, name: str) -> str:
    """The end of a component's log, for an error message."""
    log = log_file(cluster, name)
    text = log.read_bytes()[-20_000:].decode(errors="replace") if log.exists() else ""
    latest = text.rsplit("--- started", 1)[-1].partition("\n")[2]
    return f"{last_lines(latest)}\n  log: {log}"


def check_alive(cluster: Cluster, name: str) -> None:
    """Raise ClusterError with the last log lines if the component has ended."""
    record = read_record(cluster, name)
    if record is None or not record.is_alive():
        raise ClusterError(
            f"{name} ended; its last lines:\n{explain_death(cluster, name)}\n"
            f"  if the cause is not in there: python -m e2e.cluster down --name {cluster.name}, then up again"
        )


def _wait_for_record(cluster: Cluster, name: str) -> None:
    deadline = time.monotonic() + 10
    while read_record(cluster, name) is None:
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} did not start:\n{explain_death(cluster, name)}")
        time.sleep(0.005)


def _open(record: Record) -> int | None:
    """A handle that cannot come to mean another process, or None if the recorded one is gone."""
    try:
        handle = os.pidfd_open(record.pid)
    except OSError:
        return None
    if record.is_alive():
        return handle
    os.close(handle)
    return None


def _signal(handle: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def _wait(handles: Sequence[int], seconds: float) -> list[int]:
    """Wait until the processes ended; returns the handles of those that did not in time."""
    left, deadline = list(handles), time.monotonic() + seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(left, [], [], remaining)
        left = [handle for handle in left if handle not in ended]
    return left
