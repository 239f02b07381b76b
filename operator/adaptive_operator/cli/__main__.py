"""`kubectl-adaptive`: finds the command and runs it. `kubectl adaptive …` calls it when it is on the PATH.

Only the command that is named is loaded: the simulator takes a second, and what `explain` says needs none of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol, cast

from adaptive_operator.cli.missing import MissingCommand
from adaptive_operator.cli.summaries import SUMMARIES
from adaptive_operator.cli.version import package_version

# Packages of which a run is not to find out at its end that they are not installed: they draw, and show progress.
_NEEDED: Final = {"simulate": ("rich", "matplotlib")}


class Command(Protocol):
    """A module or object that knows a command."""

    def add_command(self, commands: Any) -> None:
        """Add it to the parser, with `run` as a default."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 could not be done (the cause is on stderr), 2 the arguments make no sense."""
    parser = argparse.ArgumentParser(prog="kubectl adaptive", description="Elastic LLM deployment in quality tiers.")
    parser.add_argument("--version", action="version", version=f"adaptive-llm {package_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    given = list(sys.argv[1:] if arguments is None else arguments)
    named = next((argument for argument in given if not argument.startswith("-")), None)
    for name in SUMMARIES:
        _add_command(commands, name, is_named=name == named)
    options = parser.parse_args(given)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130


def _add_command(commands: Any, name: str, is_named: bool) -> None:
    """With all that it takes where it is the one to run, else with what the help says of it."""
    missing = next((package for package in _NEEDED.get(name, ()) if find_spec(package) is None), None)
    if missing is not None:
        MissingCommand(name, missing, extra="cli").add_command(commands)
    elif is_named:
        _load(name).add_command(commands)
    else:
        commands.add_parser(name, help=SUMMARIES[name])


def _load(name: str) -> Command:
    """The command's module; a stand-in where a package that it imports is not installed."""
    try:
        return cast("Command", import_module(f"adaptive_operator.cli.{name}"))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "adaptive_operator":
            raise
        return MissingCommand(name, package, extra="cli")


if __name__ == "__main__":
    sys.exit(main())
