"""What `kubectl adaptive simulate` was called with, as a report tells it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from adaptive_operator.cli.option_values import format_failing_loads, format_node_loss
from adaptive_operator.cli.version import package_version
from adaptive_operator.simulate.failing_loads import FailingLoads
from adaptive_operator.simulate.report.inputs import Inputs, describe_file
from adaptive_operator.simulate.run import NodeLoss

# Told as a file or generator, or no matter of what is simulated.
_NO_OPTIONS: Final = frozenset({"filename", "profile", "trace", "output", "run", "default_of"})
_ALWAYS_SHOWN: Final = ("scale", "seed", "seeds", "scrape")  # the others where they differ from their defaults


def describe_inputs(options: argparse.Namespace, generated: bool) -> Inputs:
    """`generated`: the trace is a generator. `options.default_of` says an option's default. Raises OSError."""
    values = {dest: value for dest, value in sorted(vars(options).items()) if dest not in _NO_OPTIONS}
    changed = [dest for dest, value in values.items() if value != options.default_of(dest)]
    shown = [dest for dest in values if dest in _ALWAYS_SHOWN or dest in changed]
    return Inputs(
        version=package_version(),
        model=describe_file(options.filename),
        profile=None if options.profile is None else describe_file(options.profile),
        trace=options.trace if generated else describe_file(Path(options.trace)),
        options={_name(dest): _plain(value) for dest, value in values.items()},
        shown=[_name(dest) for dest in shown],
    )


def _name(dest: str) -> str:
    return dest.replace("_", "-")


def _plain(value: Any) -> Any:
    """As JSON has it, and as it is typed."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, NodeLoss):
        return format_node_loss(value)
    return format_failing_loads(value) if isinstance(value, FailingLoads) else value
