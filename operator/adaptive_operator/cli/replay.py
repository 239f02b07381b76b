"""`kubectl adaptive replay FILE`: decide again what a decision log tells, and name what comes out differently.

Decisions are made with the plans that the log tells, so that they are the same to the last digit; each plan is solved
again, too, and has to be worth the same up to the gaps of both.

Useful before an upgrade (what would the new version have done?) and after a surprise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from adaptive_operator.cli.summaries import SUMMARIES
from adaptive_operator.record import UnknownFormatError
from adaptive_operator.replay import Outcome, Replayed, SolvedAgain, Undecided, Unreadable, replay_lines

_FIRST_LINES: Final = 5  # of a log, of which one or two may be cut off
_MOST_TOLD: Final = 5


class _NoLogError(ValueError):
    """The file has something else in it; the text says what is wrong with its first line."""


def add_command(commands: Any) -> None:
    """Add `replay` to the parser."""
    text = SUMMARIES["replay"]
    parser = commands.add_parser("replay", help=text, description=text)
    parser.add_argument("file", type=Path, help="a decision log (JSON lines)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when all decisions come out the same, and all plans within their gaps.

    1 when some do not, or cannot be made again, or a line or the file cannot be read (the cause on stderr).
    """
    try:
        with options.file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            outcomes = _read(replay_lines(lines))
    except OSError as error:
        return _refuse(options.file, f"{error.strerror}; give the path of a decision log (JSON lines)")
    except _NoLogError as error:
        return _refuse(options.file, f"not a decision log: {error}; give one that the operator wrote (JSON lines)")
    if not outcomes:
        return _refuse(options.file, "no decision is in it; give a decision log (JSON lines)")
    _tell_unreadable(options.file, [item for item in outcomes if isinstance(item, Unreadable)])
    readable = [item for item in outcomes if not isinstance(item, Unreadable)]
    news = [item for item in readable if _is_news(item)]
    # Each plan is told; of the decisions those that differ, or all where nothing is new.
    told = [item for item in readable if not news or item in news or isinstance(item, SolvedAgain)]
    sys.stdout.writelines(f"{_tell(item)}\n" for item in told)
    sys.stdout.write(f"{_count(outcomes)}\n")
    return int(len(readable) < len(outcomes) or bool(news))


def _read(found: Iterator[Outcome]) -> list[Outcome]:
    """All of them. Raises _NoLogError as soon as the first few lines are no records, or all of a shorter file."""
    first = list(islice(found, _FIRST_LINES))
    unreadable = [item for item in first if isinstance(item, Unreadable) and not _is_of_other_version(item)]
    if unreadable and len(unreadable) == len(first):
        raise _NoLogError(f"line {unreadable[0].line}: {unreadable[0].error}")
    return [*first, *found]


def _is_of_other_version(line: Unreadable) -> bool:
    return isinstance(line.error, UnknownFormatError)


def _refuse(file: Path, cause: str) -> int:
    sys.stderr.write(f"error: {file}: {cause}\n")
    return 1


def _tell_unreadable(file: Path, lines: Sequence[Unreadable]) -> None:
    told = [f"line {item.line}: {item.error}" for item in lines[:_MOST_TOLD]]
    if len(lines) > _MOST_TOLD:
        told.append(f"and {len(lines) - _MOST_TOLD} more that could not be read")
    sys.stderr.writelines(f"error: {file}: {line}\n" for line in told)


def _is_news(item: Replayed | SolvedAgain | Undecided) -> bool:
    if isinstance(item, SolvedAgain):
        return not item.is_within
    return isinstance(item, Undecided) or bool(item.differs_in)


def _count(outcomes: Sequence[Outcome]) -> str:
    decisions = [item for item in outcomes if isinstance(item, Replayed)]
    plans = [item for item in outcomes if isinstance(item, SolvedAgain)]
    undecided = sum(isinstance(item, Undecided) for item in outcomes)
    unreadable = sum(isinstance(item, Unreadable) for item in outcomes)
    differ, beyond = sum(bool(item.differs_in) for item in decisions), sum(not item.is_within for item in plans)
    parts = [f"{len(decisions)} decisions, {differ} come out differently"]
    parts += [f"{len(plans)} plans solved again, {beyond} not within their gaps"] if plans else []
    parts += [f"lines that could not be decided again: {undecided}"] if undecided else []
    parts += [f"lines that could not be read: {unreadable}"] if unreadable else []
    return "; ".join(parts)


def _tell(item: Replayed | SolvedAgain | Undecided) -> str:
    at = datetime.fromtimestamp(item.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(item, Undecided):
        return f"{at} line {item.line}: could not be decided again: {type(item.error).__name__}: {item.error}"
    if isinstance(item, SolvedAgain):
        return f"{at} line {item.line}: {_tell_plan(item)}"
    start = f"{at} {item.then.key} {item.then.reason}: {item.then.message}"
    if not item.differs_in:
        return start
    return f"{start}\n    now {item.again.reason}: {item.again.message} (differs in {', '.join(item.differs_in)})"


def _tell_plan(item: SolvedAgain) -> str:
    """What the plan was worth (quality x requests/s) and is now, with the gaps, shares of the weighted demand."""
    then, again = item.then, item.again
    took = "" if then.seconds is None else f" in {then.seconds:.2f} s"
    gap = "unknown" if then.gap is None else f"{then.gap:.2%}"
    return (
        f"plan of {item.models} models ({then.method}{took}) worth {then.objective:.4f}, gap {gap};"
        f" now ({again.method}) {again.objective:.4f}, gap {again.gap:.2%}"
        f" ({'within' if item.is_within else 'NOT within'} the gaps)"
    )
