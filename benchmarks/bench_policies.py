"""The acceptance table of the simulated policies: `python -m benchmarks.bench_policies [--rows flaps] [--seeds 3]`.

Every cell is written to the results file as soon as it is there, and not run again: stop it, go on later, or run rows
and seeds in pieces. `--report` only prints what is there. Ends with 1 when something that must be met was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.policy_rows import ROWS, Cell, Record, Verdict, group_of
from benchmarks.policy_scenes import TABLES, Setup

OUTPUT = Path("out/bench/policies.jsonl")
_TOLD_EVERY_SECONDS = 15.0


def cells_of(rows: Sequence[str], tables: Sequence[str], seeds: Sequence[int]) -> Iterator[Cell]:
    """Everything that was asked for, seed by seed: an early stop leaves whole seeds."""
    for seed in seeds:
        for row in rows:
            yield from (Cell(row, case, seed) for case in ROWS[row].cases(tables))


def read_results(path: Path, setup: Setup) -> dict[str, Record]:
    """What is there of this setup, by key; a last line that was cut off is ignored."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if entry["setup"] == describe(setup):
            found[entry["key"]] = entry["record"]
    return found


def describe(setup: Setup) -> dict[str, object]:
    """A setup as JSON. The trace by its name: its folder differs from machine to machine."""
    return {**asdict(setup), "trace": setup.trace.name if setup.trace is not None else None}


def run_cells(cells: Iterable[Cell], setup: Setup, path: Path, known: dict[str, Record]) -> None:
    """Run what is not known yet, and write each down at once."""
    todo = [cell for cell in cells if cell.key not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(todo, start=1):
        started = time.monotonic()
        record = ROWS[cell.row].run(cell, setup, _teller(f"{number}/{len(todo)} {cell.key}"))
        known[cell.key] = json.loads(json.dumps(record))
        seconds = time.monotonic() - started
        entry = {"key": cell.key, "setup": describe(setup), "seconds": round(seconds, 1), "record": record}
        _append(path, json.dumps(entry, allow_nan=False))
        print(f"{number}/{len(todo)} {cell.key}: {seconds:.0f} s", file=sys.stderr, flush=True)


def _append(path: Path, line: str) -> None:
    """A line of its own, also after one that was cut off."""
    written = path.read_bytes() if path.exists() else b""
    torn = written != b"" and not written.endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + line + "\n")


def _teller(cell: str) -> Callable[[str], Callable[[float], None]]:
    """Progress of long cells, a line every 15 s."""
    told = time.monotonic()

    def tell(label: str) -> Callable[[float], None]:
        def update(part: float) -> None:
            nonlocal told
            if time.monotonic() - told > _TOLD_EVERY_SECONDS:
                told = time.monotonic()
                print(f"  {cell}: {label} {part:.0%}", file=sys.stderr, flush=True)

        return update

    return tell


def judge(cells: Iterable[Cell], known: dict[str, Record]) -> tuple[list[Verdict], int]:
    """The lines of the table, and how many cells are missing."""
    groups: dict[tuple[str, str], list[Record]] = {}
    missing = 0
    for cell in cells:
        if cell.key in known:
            groups.setdefault((cell.row, group_of(cell)), []).append(known[cell.key])
        else:
            missing += 1
    return [v for (row, group), records in groups.items() for v in ROWS[row].judge(group, records)], missing


def render(verdicts: Sequence[Verdict]) -> str:
    """A Markdown table."""
    words = {True: "met", False: "**missed**", None: "–"}
    lines = ["| what | must | found | |", "|---|---|---|---|"]
    lines += [f"| {v.what} | {v.must} | {v.found} | {words[v.met]} |" for v in verdicts]
    return "\n".join(lines)


def _names(allowed: Iterable[str]) -> Callable[[str], list[str]]:
    known = list(allowed)

    def parse(text: str) -> list[str]:
        names = text.split(",")
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"there are {', '.join(known)}")
        return names

    return parse


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Acceptance table of the simulated policies, in resumable pieces.")
    parser.add_argument("--rows", type=_names(ROWS), default=list(ROWS), help=f"of {','.join(ROWS)} (default: all)")
    parser.add_argument("--tables", type=_names(TABLES), default=list(TABLES), help="tier tables (default: both)")
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--trace", type=Path, help="Azure's conversation trace; without, a synthetic one")
    parser.add_argument("--minutes", type=float, help="of the trace, held-out third included (default: all)")
    parser.add_argument("--budget", type=int, default=4, help="accelerators (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=OUTPUT, help="where cells are kept (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="forget the results that are there")
    parser.add_argument("--report", action="store_true", help="run nothing, print what is there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    setup = Setup(options.budget, options.trace, options.minutes)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    cells = list(cells_of(options.rows, options.tables, seeds))
    if options.fresh:
        options.results.unlink(missing_ok=True)
    known = read_results(options.results, setup)
    if not options.report:
        run_cells(cells, setup, options.results, known)
    verdicts, missing = judge(cells, known)
    trace = "a synthetic trace" if setup.trace is None else setup.trace.name
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {trace}, {setup.budget} accelerators\n")
    print(render(verdicts))
    if missing:
        print(f"\n{missing} of {len(cells)} cells were not run yet")
    return int(any(verdict.met is False for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
