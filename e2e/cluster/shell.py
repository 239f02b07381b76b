"""Run a command to its end and say well what went wrong.

Knows nothing of clusters.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from e2e.cluster.settings import ClusterError

TAIL_LINES = 12


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_seconds: float = 60,
) -> str:
    """Return the standard output; raise ClusterError with the command's last lines if it fails."""
    try:
        done = subprocess.run(
            [str(a) for a in argv],
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{argv[0]}: not found; install it or check PATH") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{_shown(argv)}` did not end within {timeout_seconds:g} s") from error
    if done.returncode != 0:
        raise ClusterError(f"`{_shown(argv)}` failed ({done.returncode}):\n{last_lines(done.stderr or done.stdout)}")
    return done.stdout


def is_success(argv: Sequence[str | Path], timeout_seconds: float = 20) -> bool:
    """Whether the command ends with status 0; False also when it is missing or too slow."""
    try:
        run(argv, timeout_seconds=timeout_seconds)
    except ClusterError:
        return False
    return True


def last_lines(text: str, count: int = TAIL_LINES) -> str:
    """The last `count` lines, indented, for use inside an error message."""
    lines = text.rstrip().splitlines()[-count:]
    return "\n".join(f"    {line[:400]}" for line in lines) or "    (no output)"


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Hold an exclusive lock on `path`; print `waiting` once if someone else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_atomic(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` in one step, so that a reader or an interruption never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)


def _shown(argv: Sequence[str | Path]) -> str:
    text = " ".join(str(a) for a in argv)
    return text if len(text) <= 200 else text[:197] + "..."
