"""`kubectl adaptive replay FILE`: decide again what a decision log tells, and name what comes out differently.

Useful before an upgrade (what would the new version have done?) and after a surprise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptive_operator.record import RecordError
from adaptive_operator.replay import Replayed, Undecided, replay_lines


def add_command(commands: Any) -> None:
    """Add `replay` to the parser."""
    text = "Decide again what a decision log tells, with this version, and name what comes out differently."
    parser = commands.add_parser("replay", help=text, description=text)
    parser.add_argument("file", type=Path, help="a decision log (JSON lines)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when all decisions come out the same.

    1 when some differ or cannot be made again, or the file cannot be read (the cause on stderr).
    """
    try:
        with options.file.open(encoding="utf-8") as lines:
            replayed = list(replay_lines(lines))
    except (OSError, UnicodeError, RecordError) as error:
        sys.stderr.write(f"error: {options.file}: {error}\n")
        return 1
    news = [item for item in replayed if isinstance(item, Undecided) or item.differs_in]
    sys.stdout.writelines(f"{_tell(item)}\n" for item in (news or replayed))
    sys.stdout.write(_count(replayed, news))
    return 1 if news else 0


def _count(replayed: Sequence[Replayed | Undecided], news: Sequence[Replayed | Undecided]) -> str:
    undecided = sum(isinstance(item, Undecided) for item in news)
    told = f"{len(replayed) - undecided} decisions, {len(news) - undecided} come out differently"
    return f"{told}; lines that could not be decided again: {undecided}\n" if undecided else f"{told}\n"


def _tell(item: Replayed | Undecided) -> str:
    at = datetime.fromtimestamp(item.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(item, Undecided):
        return f"{at} line {item.line}: could not be decided again: {type(item.error).__name__}: {item.error}"
    start = f"{at} {item.then.key} {item.then.reason}: {item.then.message}"
    if not item.differs_in:
        return start
    return f"{start}\n    now {item.again.reason}: {item.again.message} (differs in {', '.join(item.differs_in)})"
