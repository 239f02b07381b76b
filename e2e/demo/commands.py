"""Runs kubectl, helm and the cluster command. A failure becomes a DemoError that shows the tool's own last lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from e2e.demo.settings import ROOT, DemoError, Settings

_TAIL_LINES = 15


def run(argv: Sequence[str], *, stdin: str | None = None, timeout_seconds: float = 120) -> str:
    """Standard output of a command that must succeed."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise DemoError(f"{argv[0]}: not found; install it or put it on PATH") from error
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"`{' '.join(argv)[:160]}` did not end within {timeout_seconds:g} s") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:]
        raise DemoError(f"`{' '.join(argv)[:160]}` failed:\n" + "\n".join(f"    {line}" for line in lines))
    return done.stdout


def cluster_command(*arguments: str, timeout_seconds: float = 3600) -> None:
    """`python -m e2e.cluster …` with its output shown as it comes; its own message explains a failure."""
    argv = [sys.executable, "-m", "e2e.cluster", *arguments]
    try:
        status = subprocess.run(argv, cwd=ROOT, timeout=timeout_seconds, check=False).returncode
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"`e2e.cluster {' '.join(arguments)}` did not end within {timeout_seconds:g} s") from error
    if status != 0:
        raise DemoError(f"`python -m e2e.cluster {' '.join(arguments)}` failed ({status}): see its message above")


def kubectl(settings: Settings, *arguments: str, stdin: str | None = None, timeout_seconds: float = 60) -> str:
    """kubectl on the demo's context."""
    return run(
        ["kubectl", "--context", settings.kube_context, *arguments], stdin=stdin, timeout_seconds=timeout_seconds
    )


def helm(settings: Settings, *arguments: str, timeout_seconds: float = 300) -> str:
    """helm on the demo's context."""
    return run(["helm", "--kube-context", settings.kube_context, *arguments], timeout_seconds=timeout_seconds)
