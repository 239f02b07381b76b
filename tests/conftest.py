"""Says at the end of a run which tests were skipped because something is missing, also when workers ran them."""

from __future__ import annotations

import pytest

from tests.needed import count_untested


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A section in red for each thing that is missing."""
    for reason, count in count_untested(terminalreporter.stats.get("skipped", [])).items():
        terminalreporter.section(f"{count} tests were NOT run", red=True)
        terminalreporter.line(reason)
