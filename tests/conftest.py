"""What holds for every test: which examples properties are tried on, and what a run says it could not test."""

from __future__ import annotations

import asyncio
import gc
import os

import hypothesis
import pytest

from tests.needed import count_untested
from tests.skipped_waits import skip_waits

# Test processes that share the cores: the thread pools of numpy and torch, one thread per core in each process, would
# wait for one another in busy loops. It counts before either is imported. The project's own kernels and torch decoder
# are told their threads by the tests.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

# A gate gives one commit one verdict, so it tries the same examples each time; `make explore` looks for new ones.
# No example has a time limit of its own (tests have): a busy machine is slow, not wrong.
hypothesis.settings.register_profile("gate", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("ADAPTIVE_TESTS_PROFILE", "gate"))


@pytest.fixture
async def skipped_waits() -> None:
    """The test's loop sleeps through no wait: see tests/skipped_waits.py for what may ask for it."""
    skip_waits(asyncio.get_running_loop())


def pytest_collection_finish() -> None:
    """What was imported lives until the end: let the garbage collector not go through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A section in red for each thing that is missing."""
    for reason, count in count_untested(terminalreporter.stats.get("skipped", [])).items():
        terminalreporter.section(f"{count} tests were NOT run", red=True)
        terminalreporter.line(reason)
