"""Runs the core end-to-end tests: cluster up, images in, pytest inside the cluster's network, cluster down.

`DEMO_CONTEXT=<context>` takes an existing cluster of the present kubeconfig instead; it must have the images and
a Prometheus. Further arguments go to pytest. Knows nothing of what is tested.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

CLUSTER = "e2e"


def cluster(*arguments: str) -> list[str]:
    """Command line of the one-machine cluster."""
    return [sys.executable, "-m", "e2e.cluster", *arguments]


def step(title: str, command: Sequence[str]) -> None:
    """Run one stage, say how long it took, stop at its failure."""
    print(f"e2e: {title}", flush=True)
    started = time.monotonic()
    subprocess.run(command, check=True)
    print(f"e2e: {title}: {time.monotonic() - started:.0f} s", flush=True)


def pytest_command(arguments: Sequence[str]) -> list[str]:
    """The test run itself; unit tests' random order is kept off, because the tests share one cluster."""
    return [sys.executable, "-m", "pytest", "e2e/tests", "-p", "no:randomly", "--timeout=600", *arguments]


def run_on_existing(context: str, arguments: Sequence[str]) -> int:
    """Run against the named context."""
    return subprocess.run(pytest_command(arguments), env={**os.environ, "E2E_CONTEXT": context}, check=False).returncode


def run_on_own(arguments: Sequence[str]) -> int:
    """Start a cluster, run, remove it (E2E_KEEP=1 keeps it for a look around)."""
    try:
        step("cluster up", cluster("up", "--name", CLUSTER, "--scrape-interval", "2s"))
        step("images", cluster("images", "--name", CLUSTER))
        inside = ["env", f"E2E_CONTEXT=adaptive-{CLUSTER}", *pytest_command(arguments)]
        return subprocess.run(cluster("exec", "--name", CLUSTER, "--", *inside), check=False).returncode
    except subprocess.CalledProcessError as error:
        print(f"e2e: failed: {' '.join(error.cmd)} (exit {error.returncode})", file=sys.stderr)
        return 1
    finally:
        if not os.environ.get("E2E_KEEP"):
            subprocess.run(cluster("down", "--name", CLUSTER), check=False)


def parse_arguments(arguments: Sequence[str]) -> list[str]:
    """What goes to pytest: all but the question for help."""
    parser = argparse.ArgumentParser(
        prog="python -m e2e.run",
        usage="%(prog)s [-h] [ARGUMENT OF PYTEST ...]",
        description="Start a cluster on this machine, run the core end-to-end tests in it, and remove it. All other"
        " arguments go to pytest, e.g. -k exchange.",
        epilog="Environment: DEMO_CONTEXT=CONTEXT runs them in an existing cluster of the present kubeconfig, which"
        " must have the images and a Prometheus; E2E_KEEP=1 keeps the cluster that was started.",
        allow_abbrev=False,
    )
    return parser.parse_known_args(arguments)[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status of the tests."""
    for_pytest = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    context = os.environ.get("DEMO_CONTEXT")
    return run_on_existing(context, for_pytest) if context else run_on_own(for_pytest)


if __name__ == "__main__":
    sys.exit(main())
