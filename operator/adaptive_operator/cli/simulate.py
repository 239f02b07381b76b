"""`kubectl adaptive simulate`: the model of a manifest under a trace, with several policies, without a cluster."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from adaptive_operator.simulate.capacity import CapacityError, effective_capacity, ratio_rows
from adaptive_operator.simulate.cards import measure_cards
from adaptive_operator.simulate.comparison import Comparison, Judged, Tell, compare
from adaptive_operator.simulate.generators import GeneratorError, parse_generator
from adaptive_operator.simulate.plant import BudgetError
from adaptive_operator.simulate.policies.registry import PolicyError, Setting, make_policy
from adaptive_operator.simulate.report.html import build_html
from adaptive_operator.simulate.report.table import build_capacity_document, build_document, build_rows, format_table
from adaptive_operator.simulate.requests import TraceRow
from adaptive_operator.simulate.run import RunSettings
from adaptive_operator.simulate.scaling import cut_trace
from adaptive_operator.simulate.scenario import ScenarioError, load_scenario
from adaptive_operator.simulate.traces import LONGEST_GAP_SECONDS, TraceError, TraceRules, read_trace

_DEFAULT_POLICIES: Final = "ours,hpa,kpa,full,cheapest"
_REFERENCES: Final = ("hpa", "full", "best-static")
_EXPECTED = (ScenarioError, TraceError, PolicyError, GeneratorError, BudgetError, CapacityError, OSError, UnicodeError)


def add_command(commands: Any) -> None:
    """Add `simulate` to the parser."""
    text = "Run policies on a trace without a cluster, and compare them."
    parser = commands.add_parser("simulate", help=text, description=text)
    parser.add_argument("-f", "--filename", type=Path, required=True, help="manifest with an AdaptiveModel")
    parser.add_argument(
        "--trace",
        required=True,
        help="CSV (Azure LLM format) or .jsonl file, or a generator, e.g. square:low=2,high=6,half-period=120",
    )
    parser.add_argument("--policy", default=_DEFAULT_POLICIES, help="names with commas (default: %(default)s)")
    parser.add_argument("--profile", type=Path, help="YAML with step curves by tier; without, guessed from the cards")
    parser.add_argument("--budget", type=_positive_int, help="accelerators, in place of the manifest's")
    parser.add_argument("--scale", type=_positive, default=1.0, help="copies of the trace (default: %(default)s)")
    parser.add_argument("--minutes", type=_positive, help="of the trace, from its start (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of scaling and generators (default: %(default)s)")
    parser.add_argument("--scrape", type=_positive, default=15.0, help="seconds between scrapes (default: %(default)s)")
    parser.add_argument("--longest-gap", type=_positive, default=LONGEST_GAP_SECONDS, help="seconds without a request")
    parser.add_argument("--allow-equal-times", action="store_true", help="rows of a trace may have the same time")
    parser.add_argument(
        "--measure-cards", action="store_true", help="take capacities from the curves at the trace's lengths"
    )
    parser.add_argument(
        "--capacity", action="store_true", help="find the largest scale that each policy carries (many runs)"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for result.json, report.html and the plots")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it. 0, or 1 with the cause on stderr."""
    try:
        comparison, names = _prepare(options)
        if options.capacity:
            return _find_capacities(comparison, names, options.output)
        with _progress() as tell:
            judged = compare(comparison, names, tell)
        sys.stdout.write(format_table(build_rows(judged)) + "\n")
        if comparison.scenario.guessed:
            sys.stderr.write("step times were guessed from the cards; give --profile for measured ones\n")
        if options.output is not None:
            write_report(options.output, comparison, judged)
    except _EXPECTED as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def write_report(folder: Path, comparison: Comparison, judged: list[Judged]) -> None:
    """result.json, the plots as SVG files, and report.html with all of it."""
    # Here, because matplotlib takes a second to import and most runs draw nothing.
    from adaptive_operator.simulate.report.plots import draw_replicas, draw_service, draw_trade

    folder.mkdir(parents=True, exist_ok=True)
    document = build_document(comparison, judged)
    plots = {"Load and quality": draw_service(judged), "Quality against violations": draw_trade(judged)}
    plots.update({f"Replicas: {item.name}": draw_replicas(item) for item in judged})
    (folder / "result.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for title, svg in plots.items():
        (folder / f"{_file_name(title)}.svg").write_text(svg, encoding="utf-8")
    (folder / "report.html").write_text(build_html(document, build_rows(judged), plots), encoding="utf-8")


def _prepare(options: argparse.Namespace) -> tuple[Comparison, list[str]]:
    """Everything read and checked before the first run: a typing error must not cost minutes."""
    scenario = load_scenario(options.filename, options.profile, options.budget)
    trace = _read_load(options)
    names = [name.strip() for name in options.policy.split(",") if name.strip()]
    if not names:
        raise PolicyError("--policy names no policy; e.g. --policy ours,hpa")
    for name in names:
        make_policy(name, Setting(scenario, trace))
    if options.measure_cards:
        measured = measure_cards(scenario, trace, options.seed)
        scenario = measured.scenario
        for name in measured.left_out:
            sys.stderr.write(f"{name} is left out: it misses the objective even when it has next to no load\n")
        for tier in scenario.tiers:
            sys.stderr.write(f"card of {tier.name}: capacityMilliRequestsPerSecond: {round(1000 * tier.rate)}\n")
    settings = RunSettings(scrape_seconds=options.scrape)
    return Comparison(scenario, trace, options.scale, options.seed, settings), names


def _read_load(options: argparse.Namespace) -> tuple[TraceRow, ...]:
    path = Path(options.trace)
    if ":" in options.trace and not path.exists():
        trace = parse_generator(options.trace, options.seed)
    else:
        trace = read_trace(path, TraceRules(options.longest_gap, options.allow_equal_times))
    if options.minutes is not None:
        trace = cut_trace(trace, 0.0, 60 * options.minutes)
    if not trace:
        raise TraceError(f"{options.trace}: no request is left; take more minutes or a higher rate")
    return trace


def _find_capacities(comparison: Comparison, names: list[str], folder: Path | None) -> int:
    with _progress() as tell:
        found = [effective_capacity(comparison, name, tell) for name in names]
    sys.stdout.write(format_table(ratio_rows(found, _REFERENCES)) + "\n")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(build_capacity_document(comparison, found), indent=1, allow_nan=False)
        (folder / "capacity.json").write_text(text + "\n", encoding="utf-8")
    return 0


@contextmanager
def _progress() -> Iterator[Tell]:
    """One line per run on stderr, gone when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:

        def tell(label: str) -> Callable[[float], None]:
            task = progress.add_task(label, total=1.0)

            def update(part: float) -> None:
                progress.update(task, completed=part, visible=part < 1.0)

            return update

        yield tell


def _file_name(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value
