"""What a report was made from: files by name and SHA-256, the generator, the options, the version.

A figure without them cannot be run again. A folder's path says nothing of what was simulated, so it is not told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

_SHOWN_DIGITS: Final = 12  # of a SHA-256, where people read it


@dataclass(frozen=True, slots=True)
class Source:
    """A file by its name and SHA-256 (empty: what was read from is no regular file, so it cannot be read again)."""

    file: str
    sha256: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.file} (sha256 {self.sha256[:_SHOWN_DIGITS]})" if self.sha256 else self.file


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a run depends on. `options` by name, `shown` those of them that people are told."""

    version: str
    model: Source
    profile: Source | None
    trace: Source | str  # str: a generator as it was written
    options: Mapping[str, Any]
    shown: Sequence[str]

    def as_record(self) -> dict[str, Any]:
        """For JSON."""
        trace = {"generator": self.trace} if isinstance(self.trace, str) else _record(self.trace)
        return {
            "version": self.version,
            "model": _record(self.model),
            "profile": None if self.profile is None else _record(self.profile),
            "trace": trace,
            "options": dict(self.options),
        }

    def lines(self) -> list[tuple[str, str]]:
        """(what, text), for people."""
        options = ", ".join(f"{name} {_text(self.options[name])}".rstrip() for name in self.shown)
        return [
            ("model", str(self.model)),
            ("profile", "none: step times were guessed from the cards" if self.profile is None else str(self.profile)),
            ("trace", f"generator {self.trace}" if isinstance(self.trace, str) else str(self.trace)),
            ("options", options),
            ("version", f"adaptive-llm {self.version}"),
        ]


def describe_file(path: Path) -> Source:
    """Name and hash; a pipe's name says nothing. Raises OSError."""
    if path.is_fifo():
        return Source("a pipe", "")
    if not path.is_file():
        return Source(path.name, "")
    with path.open("rb") as file:
        return Source(path.name, hashlib.file_digest(file, "sha256").hexdigest())


def format_lines(lines: Iterable[tuple[str, str]]) -> str:
    """Above a table in the terminal."""
    return "\n".join(f"{what:<7}  {text}" for what, text in lines)


def format_html(lines: Iterable[tuple[str, str]]) -> str:
    """One paragraph."""
    return "<p>" + "<br>".join(f"<b>{escape(what)}</b> {escape(text)}" for what, text in lines) + "</p>"


def _record(source: Source) -> dict[str, str | None]:
    return {"file": source.file, "sha256": source.sha256 or None}


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    if isinstance(value, bool):
        return ""  # the option's name says it
    return f"{value:.12g}" if isinstance(value, float) else str(value)
