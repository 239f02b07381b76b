"""Which limit binds where the demand passes what a mix carries, in words that name the remedy."""

from __future__ import annotations

from dataclasses import dataclass, replace

from adaptive_operator.api.v1alpha1 import Mode
from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.decision import Finding
from adaptive_operator.decide.floor import floor_under_load, under_floor
from adaptive_operator.decide.lack import TOLERANCE, capacity, carries, growth_demand, surely
from adaptive_operator.decide.situation import Mix, Situation, as_mix, as_plan, plan_space, with_warm
from adaptive_operator.decide.spaces import Plan, PlanSpace
from adaptive_operator.decide.wording import (
    PASSES,
    accelerators_text,
    budget_field,
    mix_text,
    no_budget_text,
    rate_text,
)
from adaptive_operator.reasons import Reason

_PAUSED = "spec.mode is Paused, so nothing is started; set it to Active"
_NO_ROOM = (
    "more would need accelerators that are free on one node, and they lie on different ones: declare tiers[].replica"
    ".accelerators that divide what a node has, or move pods off a node"
)


@dataclass(frozen=True, slots=True)
class _Lack:
    """What a mix leaves of a demand (requests/s), within what is left to the model (accelerators)."""

    situation: Situation
    mix: Mix
    limit: int
    demand: float
    unserved: float
    carried: str

    def is_less_in(self, space: PlanSpace) -> bool:
        """Does any plan of this space leave less?"""
        settings, tolerated = self.situation.settings, TOLERANCE * self.demand
        for rate in (self.demand * settings.growth_headroom, self.demand):
            plan = best_plan(space, rate, settings.exact_plans)
            if plan is not None and space.fill(plan, self.demand).unserved < self.unserved - tolerated:
                return True
        return False

    def limited(self, cause: str) -> Finding:
        return Finding(Reason.CAPACITY_LIMITED, f"{PASSES}: {self.carried}{cause}")


def limit_findings(situation: Situation, mix: Mix, limit: int) -> tuple[Finding, ...]:
    """What keeps a mix from carrying the present demand; empty when it does carry it."""
    demand = growth_demand(situation)
    space = plan_space(situation, limit)
    plan = as_plan(space, mix)
    if demand is None or carries(space, plan, surely(situation, demand)):
        return ()
    return (find_limit(situation, space, plan, limit, demand),)


def find_limit(situation: Situation, space: PlanSpace, plan: Plan, limit: int, demand: float) -> Finding:
    """Which limit binds: floor, mode, other models, the dip on the way to more, nodes, or budget and tiers' maxima.

    Without numbers that move.
    """
    unserved = space.fill(plan, demand).unserved
    without_floor = replace(space, floor_permille=0.0).fill(plan, demand).unserved
    is_cut = without_floor < unserved - TOLERANCE * demand
    mix = as_mix(situation, space, plan)
    lack = _Lack(
        situation, mix, limit, demand, unserved, _carried_text(situation, mix, space.most(plan) if is_cut else None)
    )
    wider = plan_space(situation, situation.budget)
    if is_cut and not lack.is_less_in(space):
        return floor_under_load(situation, mix, limit, demand)
    if lack.is_less_in(wider):
        return _out_of_reach(lack)
    if lack.is_less_in(replace(wider, room=None)):
        return lack.limited(f"; {_NO_ROOM}")
    if situation.budget <= 0:
        return Finding(Reason.CAPACITY_LIMITED, f"there is demand, and {no_budget_text(situation)}")
    return _within_budget(lack)


def _carried_text(situation: Situation, mix: Mix, within_floor: float | None) -> str:
    """`within_floor`: requests/s, where the floor cuts off a part of what the mix carries."""
    if within_floor is not None:
        return f"{mix_text(mix)} carry {rate_text(within_floor)} within quality.floorPermille"
    return f"{mix_text(mix)} carry {rate_text(capacity(situation, mix))}"


def _out_of_reach(lack: _Lack) -> Finding:
    """The budget has a mix that serves more: why it is not gone to."""
    situation = lack.situation
    if situation.model.spec.mode is Mode.PAUSED:
        return lack.limited(f"; {_PAUSED}")
    if lack.limit < situation.budget:
        told = f"{PASSES}: {lack.carried}; other models hold the rest; raise {budget_field(situation)}"
        return Finding(Reason.BUDGET_SHARED, told)
    return lack.limited(
        f"; an exchange of replicas for more would lose more than it gains; raise {budget_field(situation)}"
    )


def _within_budget(lack: _Lack) -> Finding:
    """The budget has no mix that serves more: the warm tier, the floor, or budget and maxima are in the way."""
    situation = lack.situation
    most = f", the most within {accelerators_text(situation.budget)}"
    without_warm = plan_space(with_warm(situation, None), situation.budget)
    if situation.warm is not None and lack.is_less_in(without_warm):
        other = f"name another tier as routing.warmTier, set replicas.min 0 for {situation.warm}"
        warm = f" beside the warm tier's replica, of {situation.warm}; {other}, or raise {budget_field(situation)}"
        return lack.limited(most + warm)
    lowest = replace(plan_space(under_floor(situation, 0), situation.budget), floor_permille=0.0)
    if lack.is_less_in(lowest):
        return floor_under_load(situation, lack.mix, situation.budget, lack.demand)
    remedy = f"raise {budget_field(situation)} or replicas.max of its tiers, or add a cheaper tier"
    return lack.limited(f"{most}; {remedy}")
