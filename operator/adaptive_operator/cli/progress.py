"""How far a simulation is: a bar per run in a terminal, and now and then a plain line where stderr is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from adaptive_operator.simulate.comparison import Tell

LINE_SECONDS: Final = 15.0  # at least so long between two plain lines, and before the first


@contextmanager
def show_progress(runs: int | None) -> Iterator[Tell]:
    """Where runs are told, on stderr, each with its number; `runs` None: nobody knows how many there will be."""
    console = Console(stderr=True)
    if not console.is_interactive:
        yield number_runs(tell_lines(sys.stderr.write, time.monotonic), runs)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        yield number_runs(_tell_bars(progress), runs)


def number_runs(tell: Tell, runs: int | None) -> Tell:
    """Labels such as `run 7 of 42: tune hpa:0.3`."""
    numbers = count(1)
    of = "" if runs is None else f" of {runs}"
    return lambda label: tell(f"run {next(numbers)}{of}: {label}")


def tell_lines(write: Callable[[str], object], clock: Callable[[], float]) -> Tell:
    """Lines such as `run 7 of 42: tune hpa:0.3, 40 %`, the first one after a while: short runs say nothing."""
    last = clock()

    def tell(label: str) -> Callable[[float], None]:
        def update(part: float) -> None:
            nonlocal last
            if clock() - last >= LINE_SECONDS:
                last = clock()
                write(f"{label}, {100 * part:.0f} %\n")

        return update

    return tell


def _tell_bars(progress: Progress) -> Tell:
    """Each bar is gone when its run is done."""

    def tell(label: str) -> Callable[[float], None]:
        task = progress.add_task(label, total=1.0)

        def update(part: float) -> None:
            progress.update(task, completed=part, visible=part < 1.0)

        return update

    return tell
