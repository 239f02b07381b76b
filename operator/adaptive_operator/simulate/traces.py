"""Traces from files: the Azure LLM inference CSV and JSON lines, checked row by row.

A bad row is an error that names the file, the row and the remedy: a trace that was silently repaired proves nothing.
Knows no generators and no scaling.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from adaptive_operator.simulate.requests import LONGEST_SECONDS, TraceRow

LONGEST_GAP_SECONDS: Final = 600.0  # longer silence is a hole in the record rather than a quiet night
# A gap that the limit allows, and yet no chance of a trace with this mean gap: what is told of, and not refused.
_LEAST_HOLE_SECONDS: Final = 60.0
_HOLE_IN_MEAN_GAPS: Final = 50.0
# Field -> what a file calls it.
_CSV: Final[Mapping[str, str]] = {
    "time": "TIMESTAMP",
    "prompt_tokens": "ContextTokens",
    "output_tokens": "GeneratedTokens",
}
_JSON: Final[Mapping[str, str]] = {field: field for field in _CSV}
_MOST_SHOWN: Final = 60  # characters of a value
_MOST_TOKENS: Final = 1_000_000
_A_TIME: Final = "a date and time, e.g. 2023-11-16 18:15:46.68, or seconds"
_A_COUNT: Final = f"a whole number from 1 to {_MOST_TOKENS}"
_FRACTION: Final = re.compile(r"(\.\d{6})\d+")  # the Azure files have seven digits, datetime reads six


class TraceError(ValueError):
    """The trace cannot be used; the text names file, row and remedy."""


class _RepeatedError(Exception):
    """A key stands twice; the text is the key."""


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
    written: str  # the time, as it stands there
    prompt_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)]
    output_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)]

    @field_validator("time", "prompt_tokens", "output_tokens", mode="before")
    @classmethod
    def _check_no_truth(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("a truth is no number")
        return value


def read_trace(
    path: Path, rules: TraceRules | None = None, tell: Callable[[str], None] | None = None
) -> tuple[TraceRow, ...]:
    """The requests of a file, times from 0. `.jsonl` is JSON lines, everything else CSV with a header.

    CSV columns: TIMESTAMP (`2023-11-16 18:15:46.6805900`, or seconds), ContextTokens, GeneratedTokens. JSON lines:
    {"time": seconds, "prompt_tokens": n, "output_tokens": n}. `tell` is called with what looks wrong, and may be right.
    Raises TraceError; OSError when it cannot be read.
    """
    rules = rules or TraceRules()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # as Excel writes it, too
            rows = _json_lines(path, file) if path.suffix.lower() == ".jsonl" else _csv_lines(path, file)
            trace, numbers = _ordered(path, rows, rules)
    except UnicodeDecodeError:
        raise TraceError(f"{path}: not a text; give CSV or JSON lines in UTF-8, not compressed") from None
    hole = _describe_holes(path, trace, numbers)
    if hole and tell is not None:
        tell(hole)
    return trace


def _json_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, _Line]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _validate_json(path, number, line)


def _validate_json(path: Path, number: int, line: str) -> _Line:
    try:
        document = json.loads(line, object_pairs_hook=_once_each)
    except _RepeatedError as error:
        raise TraceError(f"{path}, row {number}: {error} is there twice; remove one") from None
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}, row {number}: not JSON ({_cause(error)}); write one object per line") from None
    if not isinstance(document, dict):
        raise TraceError(f"{path}, row {number}: not an object; write one object per line")
    return _parse(path, number, document, _JSON)


def _cause(error: Exception) -> str:
    """Without the advice that Python gives to programmers."""
    return str(error).partition(";")[0]


def _once_each(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys stand once: of two, the last one would silently win. Raises _RepeatedError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedError(next(name for name in names if names.count(name) > 1))
    return found


def _csv_lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, _Line]]:
    reader = csv.DictReader(lines)
    rows = reader.reader  # counts the lines of the file, also those that are empty
    try:
        missing = [column for column in _CSV.values() if column not in (reader.fieldnames or ())]
        if missing:
            told = f"{path}, row {rows.line_num or 1}: no column {', '.join(missing)}"
            raise TraceError(f"{told}; {_describe_header(','.join(reader.fieldnames or ()))}")
        columns = reader.fieldnames or ()
        twice = next((column for column in _CSV.values() if columns.count(column) > 1), None)
        if twice is not None:
            raise TraceError(f"{path}, row {rows.line_num}: the column {twice} is there twice; remove one")
        for row in reader:
            _check_width(f"{path}, row {rows.line_num}", row, columns)
            values = {field: row[column] for field, column in _CSV.items()}
            yield rows.line_num, _parse(path, rows.line_num, values, _CSV)
    except csv.Error as error:
        raise TraceError(f"{path}, row {rows.line_num}: not CSV ({error}); correct or remove it") from None


def _describe_header(header: str) -> str:
    """What is there in the place of the right header, and the remedy."""
    if header.startswith("{"):
        return "JSON lines need a name that ends in .jsonl"
    wanted = ",".join(_CSV.values())
    return f"the header is {_describe_value(header)}, and has to be {wanted}" if header else f"it has to be {wanted}"


def _check_width(where: str, row: Mapping[str | None, Any], columns: Sequence[str]) -> None:
    """Which of too many values belong to which columns nobody knows."""
    surplus = row.get(None)  # where DictReader puts them
    if surplus:
        count = f"{len(columns) + len(surplus)} values for {len(columns)} columns"
        raise TraceError(f"{where}: {count}; write numbers without commas, or remove the row")


def _parse(path: Path, number: int, values: Mapping[str, Any], names: Mapping[str, str]) -> _Line:
    """`names`: what the file calls the fields."""
    time, clock = _read_time(values.get("time"))
    try:
        return _Line.model_validate({**values, "time": time, "clock": clock, "written": str(values.get("time"))})
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        accepted = _A_TIME if field == "time" else _A_COUNT
        seen = _describe_value(values.get(field))
        raise TraceError(
            f"{path}, row {number}: {names[field]} is {seen}; give {accepted}, or remove the row"
        ) from None


def _describe_value(value: Any) -> str:
    """As the file has it."""
    if value is None:
        return "missing"
    seen = str(value).lower() if isinstance(value, bool) else repr(value)
    return seen if len(seen) <= _MOST_SHOWN else f"{seen[:_MOST_SHOWN]}…"


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


def _ordered(
    path: Path, rows: Iterable[tuple[int, _Line]], rules: TraceRules
) -> tuple[tuple[TraceRow, ...], tuple[int, ...]]:
    """The requests, and the row of each."""
    trace: list[TraceRow] = []
    numbers: list[int] = []
    first = before = None
    for number, line in rows:
        first = first or line
        if before is not None:
            _check_clock(path, number, line.clock, first.clock)
            _check_order(f"{path}, row {number}", before, line, rules)
        before = line
        trace.append(TraceRow(line.time - first.time, line.prompt_tokens, line.output_tokens))
        numbers.append(number)
    if not trace:
        raise TraceError(f"{path}: no request in it; give a trace with at least one row")
    return tuple(trace), tuple(numbers)


def _describe_holes(path: Path, trace: Sequence[TraceRow], numbers: Sequence[int]) -> str:
    """The longest gap that the trace's mean rate does not explain, and how many there are; empty without any."""
    mean = trace[-1].arrival / max(1, len(trace) - 1)
    least = max(_LEAST_HOLE_SECONDS, _HOLE_IN_MEAN_GAPS * mean)
    gaps = ((after.arrival - row.arrival, i) for i, (row, after) in enumerate(pairwise(trace), start=1))
    holes = [(gap, i) for gap, i in gaps if gap > least]
    if not holes:
        return ""
    gap, index = max(holes)
    more = f" (and {len(holes) - 1} more such gaps)" if len(holes) > 1 else ""
    return (
        f"{path}, row {numbers[index]}: {_seconds(gap, 0)} s after the row before, where {mean:.2g} s are the"
        f" mean{more}; if requests are missing there, cut the trace"
    )


def _seconds(seconds: float, digits: int) -> str:
    """Without the hundreds of digits of a time that cannot be meant."""
    return f"{seconds:.{digits}f}" if seconds <= LONGEST_SECONDS else f"{seconds:.4g}"


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


def _check_order(where: str, before: _Line, line: _Line, rules: TraceRules) -> None:
    gap = line.time - before.time
    if gap < 0:
        raise TraceError(f"{where}: {_seconds(-gap, 3)} s earlier than the row before; sort the rows by time")
    if gap == 0 and not rules.equal_times:
        same = "the same time as" if line.written == before.written else "within a microsecond of"
        hint = "remove the duplicate, or allow equal times with --allow-equal-times if they are different requests"
        raise TraceError(f"{where}: {same} the row before; {hint}")
    if gap > rules.longest_gap_seconds:
        hint = "cut the trace there"
        if gap <= LONGEST_SECONDS:
            hint += f", or allow it with --longest-gap {math.ceil(gap)}"
        limit = f"{rules.longest_gap_seconds:g}"
        raise TraceError(f"{where}: {round(gap, 3):g} s after the row before, more than {limit} s; {hint}")
