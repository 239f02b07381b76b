"""Stands in the place of a command whose packages are not installed, and says how to get them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class MissingCommand:
    """`name` needs `package`, which comes with `extra`."""

    name: str
    package: str
    extra: str

    def add_command(self, commands: Any) -> None:
        """Add it to the parser, with any arguments."""
        # No argument begins with a NUL, so options that nobody knows here are arguments like others.
        parser = commands.add_parser(self.name, help=self._remedy(), add_help=False, prefix_chars="\0")
        parser.add_argument("arguments", nargs="*")
        parser.set_defaults(run=self.run)

    def run(self, options: argparse.Namespace) -> int:
        """1, with the cause and the remedy on stderr."""
        sys.stderr.write(f"error: {self.name} needs {self.package}, which is not installed: {self._remedy()}\n")
        return 1

    def _remedy(self) -> str:
        return f"run pip install '.[{self.extra}]' in the checkout"
