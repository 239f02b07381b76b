"""`kubectl adaptive simulate`: the models of a manifest under a trace, with several policies, without a cluster."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Final

from adaptive_operator.cli.option_values import (
    FAILURES,
    accelerators,
    failing_loads,
    folder,
    node_loss,
    positive,
    scrape_seconds,
    seeds,
    whole,
)
from adaptive_operator.cli.progress import show_progress
from adaptive_operator.cli.simulated_inputs import describe_inputs
from adaptive_operator.cli.simulated_loads import by_seed, is_generator, prepare, seeds_of
from adaptive_operator.cli.summaries import SUMMARIES
from adaptive_operator.simulate.capacity import Capacity, CapacityError, effective_capacity, ratio_rows
from adaptive_operator.simulate.comparison import (
    Comparison,
    Judged,
    Tell,
    compare,
    count_runs,
    judge_tuned,
    note_comparison,
)
from adaptive_operator.simulate.generators import GeneratorError
from adaptive_operator.simulate.plant import BudgetError
from adaptive_operator.simulate.policies.registry import POLICIES, PolicyError, is_tunable
from adaptive_operator.simulate.repeated import Repeated, summarize
from adaptive_operator.simulate.repeated_capacity import summarize_capacities
from adaptive_operator.simulate.report.capacities import build_capacity_document, build_repeated_capacity_rows
from adaptive_operator.simulate.report.files import write_report
from adaptive_operator.simulate.report.inputs import Inputs, format_lines
from adaptive_operator.simulate.report.table import (
    build_repeated_rows,
    build_rows,
    format_table,
)
from adaptive_operator.simulate.scenario import ScenarioError
from adaptive_operator.simulate.traces import LONGEST_GAP_SECONDS, TraceError

_DEFAULT_POLICIES: Final = "ours,hpa,kpa,full,cheapest"
_REFERENCES: Final = ("hpa", "full", "best-static")
_EXPECTED = (ScenarioError, TraceError, PolicyError, GeneratorError, BudgetError, CapacityError, OSError, UnicodeError)


def add_command(commands: Any) -> None:
    """Add `simulate` to the parser."""
    text = SUMMARIES["simulate"]
    parser = commands.add_parser("simulate", help=text, description=text)
    parser.add_argument(
        "-f", "--filename", type=Path, required=True, help="manifest with AdaptiveModels, which share a pool"
    )
    parser.add_argument(
        "--trace",
        required=True,
        help="CSV (Azure LLM format) or .jsonl file, or a generator, e.g. square:low=2,high=6,half-period=120; with the"
        " mean lengths 1155 + 211 tokens, or e.g. steady:rate=1,prompt=16,output=24",
    )
    parser.add_argument(
        "--policy",
        default=_DEFAULT_POLICIES,
        help=f"names with commas, of {', '.join(POLICIES)}; with a parameter e.g. hpa:0.7 or static:full=2+int4=1"
        " (docs/simulator.md; default: %(default)s)",
    )
    parser.add_argument("--profile", type=Path, help="YAML with step curves by tier; without, guessed from the cards")
    parser.add_argument("--budget", type=accelerators, help="accelerators (default: the manifest's)")
    parser.add_argument("--scale", type=positive, default=1.0, help="copies of the trace (default: %(default)s)")
    parser.add_argument("--minutes", type=positive, help="of the trace, from its start (default: all)")
    parser.add_argument(
        "--seeds", type=seeds, default=1, help="seeds to repeat it on, from --seed on (default: %(default)s)"
    )
    parser.add_argument(
        "--lose",
        type=node_loss,
        action="append",
        default=[],
        metavar="AT:ACCELERATORS[:SECONDS]",
        help="a node goes away at AT seconds, and comes back after SECONDS (default: never); may be repeated",
    )
    parser.add_argument(
        "--fail-loads",
        type=failing_loads,
        action="append",
        default=[],
        metavar="TIER:HOW[:PART[:AT[:SECONDS]]]",
        help=f"loads of TIER fail ({FAILURES}): this PART of them (default: all), from AT seconds on (default: 0), for"
        " SECONDS (default: ever); may be repeated",
    )
    parser.add_argument("--seed", type=whole, default=1, help="of scaling and generators (default: %(default)s)")
    parser.add_argument(
        "--scrape", type=scrape_seconds, default=15.0, help="seconds between scrapes (default: %(default)s)"
    )
    parser.add_argument(
        "--longest-gap",
        type=positive,
        default=LONGEST_GAP_SECONDS,
        help="seconds without a request that a trace may have; more ends the run (default: %(default)s)",
    )
    parser.add_argument("--allow-equal-times", action="store_true", help="rows of a trace may have the same time")
    parser.add_argument(
        "--measure-cards", action="store_true", help="take capacities from the curves at the held-out trace's lengths"
    )
    parser.add_argument(
        "--capacity",
        action="store_true",
        help="find the largest scale that each policy carries, from --scale on, for each of --seeds (many runs)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=folder,
        help="folder for result.json, report.html and the plots (SVG and PNG); with --capacity for capacity.json alone",
    )
    parser.set_defaults(run=run, default_of=parser.get_default)


def run(options: argparse.Namespace) -> int:
    """Do it. 0, or 1 with the cause on stderr."""
    try:
        comparison, names = prepare(options)
        if options.output is not None:
            _make_folder(options.output)
        inputs = describe_inputs(options, is_generator(options.trace))
        report = _report_capacities if options.capacity else _report_comparison
        report(options, comparison, inputs, names)
    except _EXPECTED as error:
        sys.stderr.writelines(f"error: {line}\n" for line in str(error).splitlines())
        return 1
    return 0


def _make_folder(folder: Path) -> None:
    """Before the first run: hours of runs must not end at a folder that cannot be written. Raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise OSError(f"-o {folder}: {error.strerror}; give a folder that can be written") from None


def _report_comparison(options: argparse.Namespace, comparison: Comparison, inputs: Inputs, names: list[str]) -> None:
    with show_progress(count_runs(names, options.seeds)) as tell:
        judged, repeated = _compare(options, comparison, names, tell)
    if options.output is not None:  # before the table, which may go to a terminal or pipe that does not take it
        write_report(options.output, comparison, inputs, judged, repeated, seeds_of(options))
    means = build_repeated_rows(repeated, comparison.seconds) if repeated else []
    _print_tables(inputs, means, build_rows(judged))
    _warn(comparison, names, (note for item in judged for note in item.notes))


def _report_capacities(options: argparse.Namespace, comparison: Comparison, inputs: Inputs, names: list[str]) -> None:
    """Each seed has its own search, and is tuned by itself: unlike a comparison it has no load that is tuned once."""
    with show_progress(None) as tell:
        runs = [_capacities(own, names, tell, len(seeds_of(options))) for own in by_seed(options, comparison)]
    found, repeated = runs[0], summarize_capacities(runs, _REFERENCES) if len(runs) > 1 else ()
    if options.output is not None:
        document = build_capacity_document(comparison, inputs, found, repeated, seeds_of(options))
        text = json.dumps(document, indent=1, allow_nan=False)
        (options.output / "capacity.json").write_text(text + "\n", encoding="utf-8")
    means = build_repeated_capacity_rows(repeated) if repeated else []
    _print_tables(inputs, means, ratio_rows(found, _REFERENCES))
    _warn(comparison, names, (note for item in found for note in item.notes))


def _capacities(comparison: Comparison, names: list[str], tell: Tell, seeds: int) -> list[Capacity]:
    def tell_seed(label: str) -> Callable[[float], None]:
        return tell(f"{label}, seed {comparison.seed}" if seeds > 1 else label)

    return [effective_capacity(comparison, name, tell_seed) for name in names]


def _print_tables(inputs: Inputs, means: list[list[str]], first: list[list[str]]) -> None:
    """`means` over several seeds, if there are; `first`: figures of the first seed."""
    sys.stdout.write(format_lines(inputs.lines()) + "\n\n")
    if means:
        sys.stdout.write(format_table(means) + "\n\nThe first seed:\n")
    sys.stdout.write(format_table(first) + "\n")


def _warn(comparison: Comparison, names: list[str], notes: Iterable[str]) -> None:
    guesses = (line for model in comparison.models for line in model.scenario.guesses)
    for note in (*guesses, *note_comparison(comparison, any(is_tunable(name) for name in names)), *notes):
        sys.stderr.write(f"{note}\n")


def _compare(
    options: argparse.Namespace, comparison: Comparison, names: list[str], tell: Tell
) -> tuple[list[Judged], list[Repeated]]:
    """The runs of the first seed, and what all seeds say together (nothing of a single one).

    Parameters are tuned once, on the first seed's held-out load.
    """
    judged = compare(comparison, names, tell)
    runs = [[(item.name, item.scores) for item in judged]]
    for other in islice(by_seed(options, comparison), 1, None):
        found = _judge_again(other, judged, tell)
        runs.append([(item.name, item.scores) for item in found])
    return judged, summarize(runs) if len(runs) > 1 else []


def _judge_again(comparison: Comparison, judged: list[Judged], tell: Tell) -> list[Judged]:
    """The same policies, with the parameters that they have, on another seed."""
    parts = comparison.parts()

    def tell_seed(name: str) -> Callable[[float], None]:
        return tell(f"{name}, seed {comparison.seed}")

    return [judge_tuned(comparison, item.name, parts, tell_seed) for item in judged]
