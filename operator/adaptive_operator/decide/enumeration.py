"""The best of all plans of a space, without looking at each: tiers in the order in which they are filled, depth first.

What the tiers so far serve is poured once for all plans that agree in them. A branch is left out where nothing in it
can be better than the best plan so far, so that the answer is the one that looking at every plan would find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple

from adaptive_operator.decide.fill import TRICKLE, Poured, Step, outcome_of, pour, start_of
from adaptive_operator.decide.spaces import Plan, PlanSpace, Value, Worth, rounded_worth, thrift

_NOTHING_YET: Final[Worth] = (float("inf"), float("inf"))
# Of two plans the better one is told by a ten-thousandth of the demand and a tenth of a permille: a bound that is
# further away than that is not a matter of rounding. What is half a step better may round to better.
_UNSERVED_STEP: Final = 1e-4
_PERMILLE_STEP: Final = 0.1


class _Branch(NamedTuple):
    """One tier's turn: its counts, what is poured then (lower levels of tiers before it included), what follows."""

    tier: int
    counts: range
    accelerators: int
    steps: tuple[Step, ...]
    sheds: bool  # has the tier steps in later turns?
    # What this turn and all after it add to what is served (requests/s): with all counts at their most, at their least,
    # and at most for each accelerator beyond that.
    most: float
    least: float
    per_accelerator: float


def best_of_all(space: PlanSpace, ranges: Sequence[range], demand: float) -> Plan | None:
    """The plan of the least value for a demand (requests/s) with counts in these ranges, room on nodes left aside."""
    counts = [counts.start for counts in ranges]
    spare = space.limit - space.cost(tuple(counts))
    if spare < 0:
        return None
    search = _Search(space, demand, _branches(space, ranges), counts)
    search.visit(0, start_of(demand), spare)
    return None if search.best is None else search.best[-1]


@dataclass(slots=True)
class _Search:
    """`counts`: the plan that is looked at, with the least of the tiers whose turn has not come."""

    space: PlanSpace
    demand: float
    branches: Sequence[_Branch]
    counts: list[int]
    best: Value | None = None
    worth: Worth = field(default=_NOTHING_YET)  # of the best

    def visit(self, turn: int, poured: Poured, spare: int) -> None:
        """Look at all plans with the counts of the turns so far, and `spare` accelerators for the rest."""
        if turn == len(self.branches) or not poured.left:
            self._note(poured)  # where nothing is left to serve, more replicas only cost
            return
        branch = self.branches[turn]
        for count, then in reversed(self._choices(branch, poured, spare)):
            self.counts[branch.tier] = count
            rest = spare - (count - branch.counts.start) * branch.accelerators
            if self._may_be_better(turn + 1, then, rest):
                self.visit(turn + 1, then, rest)
        self.counts[branch.tier] = branch.counts.start

    def _choices(self, branch: _Branch, poured: Poured, spare: int) -> list[tuple[int, Poured]]:
        """Affordable counts of a tier, with what is poured then; none that serves just what a smaller one does."""
        found: list[tuple[int, Poured]] = []
        for count in branch.counts[: spare // branch.accelerators + 1]:
            self.counts[branch.tier] = count
            then = pour(poured, self.counts, branch.steps, self.space.floor_permille)
            if count > 1 and found and then == found[-1][1] and not (branch.sheds and then.left):
                break
            found.append((count, then))
        return found

    def _may_be_better(self, turn: int, poured: Poured, spare: int) -> bool:
        """Can any plan of a branch be as good as the best one so far?"""
        if turn == len(self.branches) or self.best is None or self.demand <= TRICKLE:
            return True
        branch, (unserved, permille) = self.branches[turn], self.worth
        reach = min(branch.most, branch.least + spare * branch.per_accelerator)
        least = max(0.0, poured.left - reach) / self.demand - _UNSERVED_STEP
        if least > unserved:
            return False
        if least < unserved - 1.5 * _UNSERVED_STEP + 1e-9:
            return True
        # It serves no more than the best plan, so it has to do that better.
        further = max(0.0, poured.left - (unserved + _UNSERVED_STEP) * self.demand)
        highest = _mean_with(poured, further, branch.steps[0][2])
        cost = self.space.cost_permille(tuple(self.counts), self.demand)
        return highest - cost > -permille - _PERMILLE_STEP

    def _note(self, poured: Poured) -> None:
        plan = tuple(self.counts)
        cost = self.space.cost_permille(plan, self.demand)
        worth = rounded_worth(outcome_of(poured, self.demand), self.demand, cost)
        if worth > self.worth or not any(plan):
            return
        found = (*worth, *thrift(self.space, plan))
        if self.best is None or found < self.best:
            self.best, self.worth = found, worth


def _mean_with(poured: Poured, further: float, permille: float) -> float:
    """Mean quality if so much more were served (requests/s), at the best quality that is left."""
    served = poured.served + further
    return (poured.points + further * permille) / served if served > 0 else permille


def _branches(space: PlanSpace, ranges: Sequence[range]) -> list[_Branch]:
    """A turn for each tier, when its first step is filled."""
    turns: list[list[Step]] = []
    seen: set[int] = set()
    for step in space.steps:
        if step[0] not in seen:
            seen.add(step[0])
            turns.append([])
        turns[-1].append(step)
    branches: list[_Branch] = []
    later = _Later()
    for steps in reversed(turns):
        later = later.with_turn(steps, space, ranges)
        branches.append(_branch(space, ranges, steps, later))
    return branches[::-1]


class _Later(NamedTuple):
    """Of a turn and all after it: see `_Branch`. `sheds`: of tiers whose own turn is earlier, what one replica adds."""

    most: float = 0.0
    least: float = 0.0
    per_accelerator: float = 0.0
    sheds: Mapping[int, float] = MappingProxyType({})

    def with_turn(self, steps: Sequence[Step], space: PlanSpace, ranges: Sequence[range]) -> _Later:
        """With the turn before it. Until its own turn, a tier may still have the least; then it has what it has."""
        tier, sheds = steps[0][0], dict(self.sheds)
        for i, rate, _ in steps:
            sheds[i] = sheds.get(i, 0.0) + rate
        added = sum(ranges[i][-1] * rate for i, rate, _ in steps)
        whole = sheds.pop(tier)
        return _Later(
            most=self.most + added,
            least=self.least + added - (ranges[tier][-1] - ranges[tier].start) * whole,
            per_accelerator=max(self.per_accelerator, whole / space.tiers[tier].accelerators),
            sheds=sheds,
        )


def _branch(space: PlanSpace, ranges: Sequence[range], steps: Sequence[Step], later: _Later) -> _Branch:
    tier = steps[0][0]
    return _Branch(
        tier=tier,
        counts=ranges[tier],
        accelerators=space.tiers[tier].accelerators,
        steps=tuple(steps),
        sheds=bool(space.tiers[tier].shed),
        most=later.most,
        least=later.least,
        per_accelerator=later.per_accelerator,
    )
