"""`kubectl-adaptive`: finds the command and runs it. `kubectl adaptive …` calls it when it is on the PATH."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

from adaptive_operator.cli import explain, replay
from adaptive_operator.cli.missing import MissingCommand


class Command(Protocol):
    """A module or object that knows a command."""

    def add_command(self, commands: Any) -> None:
        """Add it to the parser, with `run` as a default."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 could not be done (the cause is on stderr), 2 the arguments make no sense."""
    parser = argparse.ArgumentParser(prog="kubectl adaptive", description="Elastic LLM deployment in quality tiers.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _commands():
        command.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130


def _commands() -> tuple[Command, ...]:
    """All of them; for the simulator a stand-in where what it draws and shows progress with is not installed."""
    try:
        if find_spec("matplotlib") is None:  # imported only when a report is written, after all runs
            raise ModuleNotFoundError(name="matplotlib")
        simulate = cast("Command", import_module("adaptive_operator.cli.simulate"))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "adaptive_operator":
            raise
        simulate = MissingCommand("simulate", package, extra="cli")
    return explain, replay, simulate


if __name__ == "__main__":
    sys.exit(main())
