"""Hundreds of models of which few changed: plan those and some that could give, leave the others as they are."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from adaptive_operator.decide.optimize.problem import Counts, Problem, used_of

_DONORS_AT_LEAST: Final = 20
_DONORS_AT_MOST: Final = 100


def choose_free(problem: Problem, changed: Collection[str]) -> frozenset[str]:
    """Keys to plan anew: what changed, what runs nothing yet, and donors.

    Under scarcity somebody has to give: the models of the least weight that hold most.
    """
    new = {model.key for model in problem.models if model.demand > 0 and not any(model.present)}
    free = (set(changed) & {model.key for model in problem.models}) | new
    donors = [model for model in problem.models if model.key not in free and any(model.present)]
    donors.sort(key=lambda model: (model.weight, -model.held(model.present), model.key))
    count = min(_DONORS_AT_MOST, max(_DONORS_AT_LEAST, len(free)))
    return frozenset(free | {model.key for model in donors[:count]})


def narrow(problem: Problem, free: Collection[str], kept: Counts) -> Problem:
    """The program of some models, within what the others leave of the limits."""
    frozen = replace(problem, models=tuple(model for model in problem.models if model.key not in free))
    limits = tuple(
        replace(limit, accelerators=max(0, limit.accelerators - used_of(frozen, limit, kept)))
        for limit in problem.limits
    )
    return replace(problem.part(free), limits=limits)
