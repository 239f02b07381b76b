"""Traces from files: the Azure LLM inference CSV and JSON lines, checked row by row.

A bad row is an error that names the file, the row and the remedy: a trace that was silently repaired proves nothing.
Knows no generators and no scaling.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptive_operator.simulate.requests import TraceRow

LONGEST_GAP_SECONDS: Final = 600.0  # longer silence is a hole in the record rather than a quiet night
_COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_MOST_TOKENS: Final = 1_000_000
_FRACTION: Final = re.compile(r"(\.\d{6})\d+")  # the Azure files have seven digits, datetime reads six


class TraceError(ValueError):
    """The trace cannot be used; the text names file, row and remedy."""


@dataclass(frozen=True, slots=True)
class TraceRules:
    """What is accepted. `longest_gap_seconds` between two requests; equal times only if `equal_times`."""

    longest_gap_seconds: float = LONGEST_GAP_SECONDS
    equal_times: bool = False


class _Clock(StrEnum):
    """What a row's time says. Times of different kinds cannot be put in order."""

    SECONDS = "is a number of seconds"
    LOCAL = "has no UTC offset"
    ZONED = "has a UTC offset"


class _Line(BaseModel):
    """One row of either format: `time` in seconds, or as the timestamp of the Azure files."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    time: float = Field(allow_inf_nan=False)
    clock: _Clock
    prompt_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)]
    output_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)]


def read_trace(path: Path, rules: TraceRules | None = None) -> tuple[TraceRow, ...]:
    """The requests of a file, times from 0. `.jsonl` is JSON lines, everything else CSV with a header.

    CSV columns: TIMESTAMP (`2023-11-16 18:15:46.6805900`, or seconds), ContextTokens, GeneratedTokens. JSON lines:
    {"time": seconds, "prompt_tokens": n, "output_tokens": n}. Raises TraceError; OSError when it cannot be read.
    """
    rules = rules or TraceRules()
    with path.open(encoding="utf-8", newline="") as file:
        rows = _json_lines(path, file) if path.suffix == ".jsonl" else _csv_lines(path, file)
        return _ordered(path, rows, rules)


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, _Line]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _validate_json(path, number, line)


def _validate_json(path: Path, number: int, line: str) -> _Line:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise TraceError(f"{path}, row {number}: not JSON ({error}); write one object per line") from None
    if not isinstance(document, dict):
        raise TraceError(f"{path}, row {number}: not an object; write one object per line")
    return _parse(path, number, document)


def _csv_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, _Line]]:
    reader = csv.DictReader(lines)
    missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise TraceError(f"{path}, row 1: no column {', '.join(missing)}; the header has to be {','.join(_COLUMNS)}")
    try:
        for number, row in enumerate(reader, start=2):
            values = {"time": row["TIMESTAMP"], "prompt_tokens": row["ContextTokens"]}
            yield number, _parse(path, number, {**values, "output_tokens": row["GeneratedTokens"]})
    except csv.Error as error:
        raise TraceError(f"{path}, row {reader.line_num + 1}: not CSV ({error}); correct or remove it") from None


def _parse(path: Path, number: int, values: Mapping[str, Any]) -> _Line:
    time, clock = _read_time(values.get("time"))
    try:
        return _Line.model_validate({**values, "time": time, "clock": clock})
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        seen = values.get(field)
        raise TraceError(f"{path}, row {number}: {field} is {seen!r}: {problem['msg']}; correct or remove it") from None


def _read_time(time: Any) -> tuple[Any, _Clock]:
    """A timestamp as seconds, by its UTC offset if it has one; anything else is left to the check."""
    if not isinstance(time, str):
        return time, _Clock.SECONDS
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(r"\1", time.strip()))
    except ValueError:
        return time, _Clock.SECONDS
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC).timestamp(), _Clock.LOCAL
    return moment.timestamp(), _Clock.ZONED


def _ordered(path: Path, rows: Iterable[tuple[int, _Line]], rules: TraceRules) -> tuple[TraceRow, ...]:
    trace: list[TraceRow] = []
    start = before = 0.0
    clock = _Clock.SECONDS
    for number, line in rows:
        if not trace:
            start = before = line.time
            clock = line.clock
        else:
            _check_clock(path, number, line.clock, clock)
            _check_order(path, number, line.time - before, rules)
        before = line.time
        trace.append(TraceRow(line.time - start, line.prompt_tokens, line.output_tokens))
    if not trace:
        raise TraceError(f"{path}: no request in it; give a trace with at least one row")
    return tuple(trace)


def _check_clock(path: Path, number: int, clock: _Clock, first: _Clock) -> None:
    if clock is first:
        return
    than = {
        _Clock.SECONDS: "is a number of seconds",
        _Clock.LOCAL: "is a timestamp" if clock is _Clock.SECONDS else "has none",
        _Clock.ZONED: "is a timestamp" if clock is _Clock.SECONDS else "has one",
    }[first]
    hint = "write all times in the same way"
    raise TraceError(f"{path}, row {number}: its time {clock.value}, but that of the first row {than}; {hint}")


def _check_order(path: Path, number: int, gap: float, rules: TraceRules) -> None:
    where = f"{path}, row {number}"
    if gap < 0:
        raise TraceError(f"{where}: {-gap:.3f} s earlier than the row before; sort the rows by time")
    if gap == 0 and not rules.equal_times:
        hint = "remove the duplicate, or allow equal times with --allow-equal-times if they are different requests"
        raise TraceError(f"{where}: the same time as the row before; {hint}")
    if gap > rules.longest_gap_seconds:
        hint = f"cut the trace there, or allow it with --longest-gap {gap:.0f}"
        raise TraceError(
            f"{where}: {gap:.0f} s after the row before, more than {rules.longest_gap_seconds:.0f} s; {hint}"
        )
