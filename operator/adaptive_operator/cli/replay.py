"""`kubectl adaptive replay FILE`: decide again what a decision log tells, and name what comes out differently.

Useful before an upgrade (what would the new version have done?) and after a surprise.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adaptive_operator.record import RecordError
from adaptive_operator.replay import Replayed, replay_lines


def add_command(commands: Any) -> None:
    """Add `replay` to the parser."""
    text = "Decide again what a decision log tells, with this version, and name what comes out differently."
    parser = commands.add_parser("replay", help=text, description=text)
    parser.add_argument("file", type=Path, help="a decision log (JSON lines)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0 when all decisions come out the same; 1 when some differ, or the file cannot be read (the cause on stderr)."""
    try:
        with options.file.open(encoding="utf-8") as lines:
            replayed = list(replay_lines(lines))
    except (OSError, UnicodeError, RecordError) as error:
        sys.stderr.write(f"error: {options.file}: {error}\n")
        return 1
    different = [item for item in replayed if item.differs_in]
    sys.stdout.writelines(f"{_tell(item)}\n" for item in (different or replayed))
    sys.stdout.write(f"{len(replayed)} decisions, {len(different)} come out differently\n")
    return 1 if different else 0


def _tell(item: Replayed) -> str:
    at = datetime.fromtimestamp(item.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    start = f"{at} {item.then.key} {item.then.reason}: {item.then.message}"
    if not item.differs_in:
        return start
    return f"{start}\n    now {item.again.reason}: {item.again.message} (differs in {', '.join(item.differs_in)})"
