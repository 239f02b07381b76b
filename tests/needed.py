"""What tests need beside Python: a test without it is skipped with a reason that nobody can overlook.

Where everything has to be there (.ci/run sets ADAPTIVE_TESTS_COMPLETE) it fails instead: a skipped test proves nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

TRACE_VARIABLE = "ADAPTIVE_TRACE"
COMPLETE_VARIABLE = "ADAPTIVE_TESTS_COMPLETE"
MARK = "NOT TESTED: "


def give_up(reason: str) -> NoReturn:
    """Ends a test, or the collection of its file, that cannot run here; `reason`: what is missing, and the remedy."""
    if os.environ.get(COMPLETE_VARIABLE):
        pytest.fail(f"{reason} ({COMPLETE_VARIABLE} is set, so nothing may be missing)", pytrace=False)
    pytest.skip(MARK + reason, allow_module_level=True)


def need_module(name: str, reason: str) -> ModuleType:
    """The module; where it is not installed the test is given up for `reason`. One that is broken raises."""
    if importlib.util.find_spec(name) is None:
        give_up(reason)
    return importlib.import_module(name)


def need_trace() -> Path:
    """Azure's conversation trace, where it is: in the file that $ADAPTIVE_TRACE names, or beside the checkout.

    It does not belong to the project, and nothing here fetches it, so that CI, too, goes on without, saying so.
    """
    beside = Path(__file__).parents[2] / "shared" / "data" / "azure_llm_2023_conv.csv"
    path = Path(os.environ.get(TRACE_VARIABLE) or beside)
    if not path.is_file():
        pytest.skip(f"{MARK}Azure's conversation trace is not here: name its CSV file in {TRACE_VARIABLE}")
    return path


def count_untested(skipped: Iterable[pytest.TestReport]) -> Counter[str]:
    """How many tests were given up, by reason; other skips, such as those for another CPU, are left out."""
    reasons = (str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple))
    return Counter(reason.partition(MARK)[2] for reason in reasons if MARK in reason)
