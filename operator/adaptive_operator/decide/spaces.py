"""Plans that a model may have, and what each is worth: which replicas, within bounds, a floor and accelerators.

A plan is a tuple of replica counts, in the order of the `PlanSpace`'s tiers. Which is best is for `candidates.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import mul
from typing import Final

from adaptive_operator.decide.fill import TRICKLE, Outcome, Step, fill_outcome
from adaptive_operator.decide.room import Change, Room

Plan = tuple[int, ...]
Worth = tuple[float, float]
Value = tuple[float, float, int, int, Plan]

_ALMOST_NOTHING: Final = 1e-9
_PLENTY: Final = 1e12  # requests/s that no plan serves


@dataclass(frozen=True, slots=True)
class PlanTier:
    """One tier that may be planned with. `rate` is what one replica is planned to serve (requests/s, derated).

    `shed` is what a replica of a nested tier serves beyond that at lower levels: (requests/s, permille) per step.
    """

    name: str
    accelerators: int
    rate: float
    quality_permille: int
    low: int
    high: int
    present: int
    shed: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PlanSpace:
    """All plans that are allowed: tiers (best quality first), the mean quality floor and the accelerators to spend.

    `room`: of the nodes, which have to hold what a plan starts. None: they hold whatever the accelerators allow.
    """

    tiers: tuple[PlanTier, ...]
    floor_permille: float
    limit: int
    accelerator_price: float = 0.0  # permille x requests/s that one has to add to be worth its money
    room: Room | None = None
    # What a replica adds, step by step, best first.
    steps: tuple[Step, ...] = field(init=False, repr=False, compare=False)
    _accelerators: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Order all tiers' steps once: a space is filled and priced for thousands of plans."""
        steps = [
            (i, *step) for i, t in enumerate(self.tiers) for step in ((t.rate, float(t.quality_permille)), *t.shed)
        ]
        steps.sort(key=lambda step: -step[2])
        object.__setattr__(self, "steps", tuple(steps))
        object.__setattr__(self, "_accelerators", tuple(tier.accelerators for tier in self.tiers))

    def cost(self, plan: Plan) -> int:
        """Accelerators that a plan holds."""
        return sum(map(mul, plan, self._accelerators))

    def fill(self, plan: Plan, demand: float) -> Outcome:
        """How much of the demand (requests/s) a plan serves, and at which quality."""
        return fill_outcome(demand, plan, self.steps, self.floor_permille)

    def net_quality(self, plan: Plan, demand: float) -> float:
        """Quality (permille) that a plan serves at a demand (requests/s), less what its accelerators cost."""
        return self.fill(plan, demand).quality_permille - self.cost_permille(plan, demand)

    def cost_permille(self, plan: Plan, demand: float) -> float:
        """What a plan's accelerators cost, as quality of the requests (permille); 0 without a price."""
        if not self.accelerator_price:
            return 0.0
        return self.cost(plan) * self.accelerator_price / max(demand, TRICKLE)

    def most(self, plan: Plan) -> float:
        """What a plan serves at most within the floor (requests/s)."""
        return self.fill(plan, _PLENTY).served

    def has_room(self, plan: Plan) -> bool:
        """Do nodes have room for what a plan starts?"""
        if self.room is None:
            return True
        pairs = zip(plan, self.tiers, strict=True)
        return self.room.holds([Change(t.name, t.accelerators, t.rate, t.present, n) for n, t in pairs])

    def present(self) -> Plan:
        """What is wanted now."""
        return tuple(tier.present for tier in self.tiers)


def value(space: PlanSpace, plan: Plan, demand: float) -> Value:
    """Smaller is better: unserved, then quality less its price, then accelerators, then starts; the plan itself breaks
    ties."""
    return (*worth(space, plan, demand), *thrift(space, plan))


def worth(space: PlanSpace, plan: Plan, demand: float) -> Worth:
    """What comes first in a plan's value: it leaves few to look at for what they spend."""
    outcome = space.fill(plan, demand)
    return rounded_worth(outcome, demand, space.cost_permille(plan, demand))


def rounded_worth(outcome: Outcome, demand: float, cost_permille: float) -> Worth:
    """The same of what is served of a demand (requests/s) and of what the accelerators cost."""
    unserved = round(outcome.unserved / max(demand, _ALMOST_NOTHING), 4)
    return unserved, -round(outcome.quality_permille - cost_permille, 1)


def thrift(space: PlanSpace, plan: Plan) -> tuple[int, int, Plan]:
    """What comes next: accelerators, starts, and the plan itself."""
    starts = sum(n - tier.present for n, tier in zip(plan, space.tiers, strict=True) if n > tier.present)
    return space.cost(plan), starts, plan
