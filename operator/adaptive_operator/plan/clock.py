"""Times as the API writes them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(seconds: float) -> str:
    """`2026-01-31T12:00:00Z` for Unix seconds; fractions are cut off."""
    return datetime.fromtimestamp(int(seconds), tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """Unix seconds. Raises ValueError for anything but RFC 3339."""
    return datetime.fromisoformat(text).timestamp()
