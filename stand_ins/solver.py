"""A solver that remembers its answers: a toy plant asks for the same program pass after pass, and each is pure."""

from __future__ import annotations

from collections.abc import Collection

from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve

_KEPT_AT_MOST = 4096
_answers: dict[str, PoolPlan] = {}


def solve_once(problem: Problem, changed: Collection[str] | None = None) -> PoolPlan:
    """What `solve` says. The key is all that a program holds; `repr` of two floats is the same only if they are."""
    key = repr((problem, None if changed is None else sorted(changed)))
    if key not in _answers:
        if len(_answers) >= _KEPT_AT_MOST:
            _answers.clear()
        _answers[key] = solve(problem, changed)
    return _answers[key]
