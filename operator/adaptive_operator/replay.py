"""Decide again what a decision log tells, and name what comes out differently.

`python -m adaptive_operator.replay FILE`. Useful before an upgrade (what would the new version have done?) and after a
surprise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.record import DecisionRecord, RecordError, decode_record


@dataclass(frozen=True, slots=True)
class Replayed:
    """One model in one record: what was decided then, and what is decided now."""

    line: int
    now: float
    then: Decision
    again: Decision

    @property
    def differs_in(self) -> tuple[str, ...]:
        """Fields of the decision that are not the same."""
        names = (item.name for item in fields(Decision))
        return tuple(name for name in names if getattr(self.then, name) != getattr(self.again, name))


def replay_lines(lines: Iterable[str]) -> Iterator[Replayed]:
    """All decisions of a log, made again. Raises RecordError with the line's number."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = decode_record(line)
        except RecordError as error:
            raise RecordError(f"line {number}: {error}") from error
        yield from _replay(number, record)


def _replay(number: int, record: DecisionRecord) -> Iterator[Replayed]:
    told = {decision.key: decision for decision in record.decisions}
    for again in decide_pool(record.observation, record.settings).decisions:
        if again.key in told:  # the others failed then
            yield Replayed(number, record.observation.now, told[again.key], again)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when all decisions come out the same, 1 when some differ, 2 when the file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m adaptive_operator.replay", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, help="a decision log (JSON lines)")
    options = parser.parse_args(arguments)
    try:
        with options.file.open(encoding="utf-8") as lines:
            replayed = list(replay_lines(lines))
    except (OSError, RecordError) as error:
        sys.stderr.write(f"{options.file}: {error}\n")
        return 2
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


if __name__ == "__main__":
    sys.exit(main())
