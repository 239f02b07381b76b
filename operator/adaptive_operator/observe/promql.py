"""Pieces of PromQL from typed, escaped values: a name from outside can never change an expression's shape.

Knows the grammar only; which metrics are asked for is decided in `queries.py`. Valid for Prometheus 2.42 and 3.x.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_REGEX_META: Final = re.compile(r"([\\.+*?()|\[\]{}^$])")
_STRING_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher; `text` is the value as meant, unescaped (for `=~` a complete regular expression)."""

    label: str
    operator: Literal["=", "=~"]
    text: str

    def __str__(self) -> str:
        if not _LABEL.fullmatch(self.label):
            raise ValueError(f"not a label name: {self.label!r}")
        return f'{self.label}{self.operator}"{self.text.translate(_STRING_ESCAPES)}"'


def equal(label: str, value: str) -> Matcher:
    """`label="value"`."""
    return Matcher(label, "=", value)


def one_of(label: str, values: Iterable[str]) -> Matcher:
    """`label=~"a|b"` over literal values; every special character of the regular expression is escaped."""
    return Matcher(label, "=~", "|".join(_REGEX_META.sub(r"\\\1", value) for value in sorted(set(values))))


def selector(metric: str, *matchers: Matcher) -> str:
    """`metric{a="b"}`."""
    if not _METRIC.fullmatch(metric):
        raise ValueError(f"not a metric name: {metric!r}")
    return f"{metric}{{{','.join(map(str, matchers))}}}"


def duration(seconds: float) -> str:
    """A PromQL duration, to the millisecond, at least 1 ms. Example: 7.5 gives `7500ms`."""
    return f"{max(1, round(seconds * 1000))}ms"


def sum_by(labels: Iterable[str], expression: str) -> str:
    """`sum by (a, b) (expression)`."""
    return aggregate("sum", labels, expression)


def aggregate(operation: Literal["sum", "max", "min", "count"], labels: Iterable[str], expression: str) -> str:
    """An aggregation that keeps `labels` only."""
    names = list(labels)
    for name in names:
        if not _LABEL.fullmatch(name):
            raise ValueError(f"not a label name: {name!r}")
    return f"{operation} by ({', '.join(names)}) ({expression})"


def rate(series: str, window_seconds: float) -> str:
    """Per-second rate of a counter over the window."""
    return f"rate({series}[{duration(window_seconds)}])"


def over(expression: str, range_seconds: float, step_seconds: float) -> str:
    """An expression at every step of a range (a subquery). Steps are whole multiples of their length since 1970."""
    return f"({expression})[{duration(range_seconds)}:{duration(step_seconds)}]"


def at(subquery: str, seconds: float) -> str:
    """A subquery that ends at a given time (Unix seconds) instead of now: what it says of the past never changes."""
    return f"{subquery} @ {seconds:.3f}"


def max_over(expression: str, range_seconds: float, step_seconds: float) -> str:
    """Maximum of an expression over a range, by a subquery."""
    return f"max_over_time({over(expression, range_seconds, step_seconds)})"


def min_over(expression: str, range_seconds: float, step_seconds: float) -> str:
    """Minimum of an expression over a range, by a subquery; steps without a number are left out."""
    return f"min_over_time({over(expression, range_seconds, step_seconds)})"


def number_or_zero(expression: str, present: str) -> str:
    """An expression where it is a number (0 or more); else 0, where `present` is there with the same labels.

    A comparison drops what is NaN, and `or` fills in by labels.
    """
    return f"({expression} >= 0) or 0 * {present}"
