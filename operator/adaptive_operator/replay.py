"""Decide again what a decision log tells, with the pool's plan that it tells, and solve that plan anew.

The policy is a function of what was seen and of the plan: only a changed one differs. A plan that is solved anew may be
another one; what it is worth differs by no more than the gaps of both.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Final

from adaptive_operator.decide.adopted import AdoptedPlan, rebuild_plan
from adaptive_operator.decide.decision import Decision
from adaptive_operator.decide.optimize.problem import Problem
from adaptive_operator.decide.optimize.solve import PoolPlan, solve
from adaptive_operator.decide.pool import decide_pool
from adaptive_operator.decide.settings import DecideSettings
from adaptive_operator.record import DecisionRecord, RecordError, decode_record

# Words beside a decision, which earlier formats told less of: in them other words are no other decision. Before format
# 4 an explanation was kept under another budget, before 5 under other shares of the pool; before 5 only demand and peak
# had ages, a swap's gain had no unit, and that of most swaps was told as 0, and dry runs were not told how they are
# decided. Before 6 swaps were not predicted while replicas of a tier that had left the spec were there, and what tiers
# were measured by had no age; an explanation was kept under another demand, or beside other neighbours; any budget
# that was too small was said to have been lowered, a minimum that was not kept was told nowhere, and a model that
# lacked something was called satisfied where no neighbour had it. Before 7 a mix that others keep from a model
# was named for the demand of the moment.
_TOLD_SINCE: Final = {
    "findings": 7,
    **dict.fromkeys(("message", "inputs", "binding", "alternative", "demand_milli", "limit", "pool", "part"), 6),
    "shares": 5,
    "budget": 4,
}
_PREDICTED_SINCE: Final = 5
_LEFT_TIERS_PREDICTED_SINCE: Final = 6
_STANDS_SINCE: Final = 7  # before, what had been told last made no difference
_ROUNDING: Final = 1e-6  # share of the weighted demand: sums in another order


@dataclass(frozen=True, slots=True)
class Replayed:
    """One model in one record: what was decided then, and what is decided now."""

    line: int
    now: float
    then: Decision
    again: Decision
    format: int  # of the record, as written

    @property
    def differs_in(self) -> tuple[str, ...]:
        """Fields of the decision that are not the same, of those that the record's format tells as they are now."""
        names = (item.name for item in fields(Decision) if self.format >= _TOLD_SINCE.get(item.name, 0))
        then, again = (self._as_told(decision) for decision in (self.then, self.again))
        return tuple(name for name in names if getattr(then, name) != getattr(again, name))

    @property
    def _is_prediction_told(self) -> bool:
        """Is what the record says of the swap's gain and dip what would be said now? Of none it may not be."""
        is_predicted = self.then.swap is not None and self.then.swap.predicted_gain_permille is not None
        return self.format >= (_PREDICTED_SINCE if is_predicted else _LEFT_TIERS_PREDICTED_SINCE)

    def _as_told(self, decision: Decision) -> Decision:
        """Without what the record's format did not tell of a swap as it is told now."""
        if decision.swap is None or self._is_prediction_told:
            return decision
        swap = replace(decision.swap, predicted_gain_permille=None, predicted_gain_of=None, predicted_dip_permille=None)
        return replace(decision, swap=swap)


@dataclass(frozen=True, slots=True)
class SolvedAgain:
    """One record's plan, and what the solver finds for the same program now."""

    line: int
    now: float
    models: int
    weighted_demand: float  # what gaps are shares of
    then: AdoptedPlan
    again: PoolPlan

    @property
    def allowed(self) -> float:
        """By how much the two objectives may differ: by what each plan may miss."""
        gap = math.inf if self.then.gap is None else self.then.gap
        return (gap + self.again.gap + _ROUNDING) * self.weighted_demand

    @property
    def is_within(self) -> bool:
        """Is the one plan worth as much as the other, up to their gaps?"""
        return abs(self.again.objective - self.then.objective) <= self.allowed


@dataclass(frozen=True, slots=True)
class Undecided:
    """A record on which this version cannot decide, or that it cannot solve: it raises, whatever the cause."""

    line: int
    now: float
    error: Exception


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is no record."""

    line: int
    error: RecordError


Outcome = Replayed | SolvedAgain | Undecided | Unreadable


def replay_lines(lines: Iterable[str]) -> Iterator[Outcome]:
    """All decisions of a log, made again, and after them the plan that they were made with, solved again.

    A line that is no record is told, and the next one follows.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = decode_record(line)
        except RecordError as error:
            yield Unreadable(number, error)
            continue
        yield from _replay(number, record)


@dataclass(slots=True)
class _ToldPlan:
    """Answers a program with the plan of the record; keeps what was asked."""

    plan: AdoptedPlan
    asked: list[tuple[Problem, Collection[str] | None]] = field(default_factory=list)

    def __call__(self, problem: Problem, changed: Collection[str] | None) -> PoolPlan:
        self.asked.append((problem, changed))
        return rebuild_plan(problem, self.plan)


def _replay(number: int, record: DecisionRecord) -> Iterator[Outcome]:
    told = {decision.key: decision for decision in record.decisions}
    solver = _ToldPlan(record.plan) if record.plan is not None else None
    try:
        decided = decide_pool(record.observation, _settings_of(record), solver or solve).decisions
    except Exception as error:  # noqa: BLE001 a defect on one record must not hide what comes after it
        yield Undecided(number, record.observation.now, error)
        return
    for again in decided:
        if again.key in told:  # earlier versions also recorded models that failed
            yield Replayed(number, record.observation.now, told[again.key], again, record.format)
    if solver is not None:
        yield from _solve_again(number, record.observation.now, solver)


def _settings_of(record: DecisionRecord) -> DecideSettings:
    """Those that it was decided with, of which earlier formats do not tell all."""
    return record.settings if record.format >= _STANDS_SINCE else replace(record.settings, standing_band=0.0)


def _solve_again(number: int, now: float, told: _ToldPlan) -> Iterator[SolvedAgain | Undecided]:
    """Of a greedy choice nothing: no solver was asked then, and none is now."""
    for problem, changed in told.asked:
        try:
            again = solve(problem, changed)
        except Exception as error:  # noqa: BLE001 as above
            yield Undecided(number, now, error)
            return
        yield SolvedAgain(number, now, len(problem.models), problem.weighted_demand, told.plan, again)
