"""`kubectl-adaptive`: finds the command and runs it. `kubectl adaptive …` calls it when it is on the PATH."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from adaptive_operator.cli import explain, replay, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 could not be done (the cause is on stderr), 2 the arguments make no sense."""
    parser = argparse.ArgumentParser(prog="kubectl adaptive", description="Elastic LLM deployment in quality tiers.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (explain, replay, simulate):
        command.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
