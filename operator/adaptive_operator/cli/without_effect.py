"""What was asked for and changes nothing of a run: told, and not refused. Knows options, and no simulation."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from adaptive_operator.cli.option_values import format_failing_loads, format_node_loss
from adaptive_operator.simulate.generators import is_level


def describe_idle_options(options: argparse.Namespace, generated: bool, models: int, seconds: float) -> Iterator[str]:
    """A line each. `generated`: the trace is a generator; `seconds`: how long the judged load of the models lasts."""
    if generated:
        yield from _of_files_only(options)
        if all(is_level(options.trace, seconds, index / models) for index in range(models)):
            yield (
                f"--trace {options.trace}: the rate never changes within the {seconds:.0f} s that are simulated; let it"
                " change earlier, or take more seconds or --minutes"
            )
    for loss in options.lose:
        if loss.at > seconds:
            yield _too_late(f"--lose {format_node_loss(loss)}", seconds, generated)
    for failing in options.fail_loads:
        if failing.at > seconds:
            yield _too_late(f"--fail-loads {format_failing_loads(failing)}", seconds, generated)


def _of_files_only(options: argparse.Namespace) -> Iterator[str]:
    for dest in ("longest_gap", "allow_equal_times"):
        if getattr(options, dest) != options.default_of(dest):
            option = f"--{dest.replace('_', '-')}"
            yield f"{option} is for traces from files, and changes nothing of a generator; leave it out"


def _too_late(option: str, seconds: float, generated: bool) -> str:
    counted = "" if generated else ", counted from where the judged part of the trace begins"
    return f"{option}: the load is over after {seconds:.0f} s{counted}, so nothing comes of it; take an earlier time"
