"""Decide again what a decision log tells. The policy is a function of what was seen: only a changed one differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

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


@dataclass(frozen=True, slots=True)
class Undecided:
    """A record on which this version cannot decide: it raises, whatever the cause."""

    line: int
    now: float
    error: Exception


def replay_lines(lines: Iterable[str]) -> Iterator[Replayed | Undecided]:
    """All decisions of a log, made again. Raises RecordError with the line's number."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = decode_record(line)
        except RecordError as error:
            raise RecordError(f"line {number}: {error}") from error
        yield from _replay(number, record)


def _replay(number: int, record: DecisionRecord) -> Iterator[Replayed | Undecided]:
    told = {decision.key: decision for decision in record.decisions}
    try:
        decided = decide_pool(record.observation, record.settings).decisions
    except Exception as error:  # noqa: BLE001 a defect on one record must not hide what comes after it
        yield Undecided(number, record.observation.now, error)
        return
    for again in decided:
        if again.key in told:  # earlier versions also recorded models that failed
            yield Replayed(number, record.observation.now, told[again.key], again)
