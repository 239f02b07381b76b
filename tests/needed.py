"""What tests need beside Python: a test without it is skipped with a reason that nobody can overlook.

Where everything has to be there (.ci/run sets ADAPTIVE_TESTS_COMPLETE) it fails instead: a skipped test proves nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import NoReturn

import pytest

COMPLETE_VARIABLE = "ADAPTIVE_TESTS_COMPLETE"
MARK = "NOT TESTED: "


def give_up(reason: str) -> NoReturn:
    """Ends a test that cannot run here; `reason` names what is missing and how to get it."""
    if os.environ.get(COMPLETE_VARIABLE):
        pytest.fail(f"{reason} ({COMPLETE_VARIABLE} is set, so nothing may be missing)", pytrace=False)
    pytest.skip(MARK + reason)


def count_untested(skipped: Iterable[pytest.TestReport]) -> Counter[str]:
    """How many tests were given up, by reason; other skips, such as those for another CPU, are left out."""
    reasons = (str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple))
    return Counter(reason.partition(MARK)[2] for reason in reasons if MARK in reason)
