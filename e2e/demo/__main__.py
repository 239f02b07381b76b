"""`python -m e2e.demo`: the whole story with one command. `python -m e2e.demo --check` only checks what it needs.

Outside the cluster's network it checks, starts the cluster and builds the images; then it goes on inside.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time

from e2e.demo.commands import cluster_command
from e2e.demo.preflight import require
from e2e.demo.progress import Progress
from e2e.demo.settings import ROOT, DemoError, Settings, settings_from_environment


def main() -> int:
    """Exit status 0: the story was seen and no request failed; 1: it was not; 2: it could not be told."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.add_argument("--check", action="store_true", help="check dependencies and end")
    parser.add_argument("--inside", type=float, default=0.0, metavar="STARTED_AT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        settings = settings_from_environment()
        if arguments.inside:
            return _inside(settings, Progress(arguments.inside))
        return _outside(settings, Progress(time.time()), arguments.check)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: interrupted; what was started stays: see `make demo-down`", file=sys.stderr)
        return 130


def _outside(settings: Settings, progress: Progress, only_check: bool) -> int:
    """What needs the machine's own network. The rest runs inside the cluster's."""
    with progress.stage("Dependencies"):
        require(settings)
    if only_check:
        return 0
    if not settings.is_own_cluster:
        return _inside(settings, progress)
    with progress.stage("Cluster"):
        cluster_command("up", "--name", settings.cluster)
    with progress.stage("Images"):
        cluster_command("images", "--name", settings.cluster)
    argv = [sys.executable, "-m", "e2e.cluster", "exec", "--name", settings.cluster, "--"]
    argv += [sys.executable, "-m", "e2e.demo", "--inside", str(progress.started_at)]
    return subprocess.run(argv, cwd=ROOT, check=False).returncode  # it goes on with the same terminal


def _inside(settings: Settings, progress: Progress) -> int:
    from e2e.demo.story import tell_story  # after the check: matplotlib and rich may be missing

    status = asyncio.run(tell_story(settings, progress))
    print(f"Total: {progress.total_seconds:.0f} s. {_look_around(settings)}")
    return status


def _look_around(settings: Settings) -> str:
    if not settings.is_own_cluster:
        return f"The model is still there: kubectl --context {settings.context} -n {settings.namespace} get am"
    prefix = f"python -m e2e.cluster exec --name {settings.cluster} --"
    return (
        "The cluster stays up.\n"
        f"  look:   {prefix} kubectl -n {settings.namespace} get am,pods\n"
        f"  why:    {prefix} kubectl -n {settings.namespace} describe am {settings.model}\n"
        f"  remove: make demo-down   (python -m e2e.cluster down --name {settings.cluster})"
    )


if __name__ == "__main__":
    sys.exit(main())
