"""Which version this is, as reports and `--version` tell it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """`unknown` where the package is not installed, as in a bare checkout."""
    try:
        return version("adaptive-llm")
    except PackageNotFoundError:
        return "unknown"
