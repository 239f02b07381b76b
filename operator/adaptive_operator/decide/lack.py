"""Whether the demand passes what a mix carries, and whether by more than chance."""

from __future__ import annotations

import math
from typing import Final

from adaptive_operator.decide.situation import Mix, Situation, as_plan, can_act_on_demand, plan_space
from adaptive_operator.decide.spaces import Plan, PlanSpace

# A share of the demand that is too small to act on.
TOLERANCE: Final = 0.005
# Of the history's bins that have to be known, for their mean to say something of it all.
_LEAST_PART: Final = 0.5


def growth_demand(situation: Situation) -> float | None:
    """Demand that the replicas have to carry now (requests/s).

    What waits counts only while nothing is being added and some time after: it is the same deficit. A burst that is
    over does not count: only what is left of it in the queues does.
    """
    demand, memory = situation.demand, situation.memory
    if not can_act_on_demand(situation):
        return None
    settling = memory.last_add_at is not None and (
        situation.now - memory.last_add_at < 2 * situation.settings.backlog_seconds
    )
    if demand.rate is None or demand.arrivals is None or demand.lasting is None:
        return None
    waiting = 0.0 if situation.swap is not None or settling else demand.rate - demand.arrivals
    return demand.lasting + waiting


def capacity(situation: Situation, mix: Mix) -> float:
    """What a mix is planned to serve (requests/s, derated), whatever its quality: at the tiers' fastest levels."""
    rates = (t.card.most_requests_per_second * mix.get(t.name, 0) for t in situation.tiers if t.card)
    return sum(rates) * situation.settings.utilisation


def carries(space: PlanSpace, plan: Plan, demand: float) -> bool:
    """Is all of the demand (requests/s) served, up to a tolerance?"""
    return space.fill(plan, demand).unserved <= TOLERANCE * demand


def lacks_capacity(situation: Situation) -> bool:
    """Does the demand pass what is wanted, pending replicas included?"""
    demand, space = growth_demand(situation), plan_space(situation, situation.budget)
    return demand is not None and not carries(space, as_plan(space, situation.wanted), demand)


def surely(situation: Situation, demand: float) -> float:
    """What of the demand (requests/s) is neither chance nor a burst that may be over soon."""
    seen = situation.demand
    return 0.0 if seen.is_burst else max(0.0, demand - seen.chance)


def has_lasted(situation: Situation, mix: Mix, demand: float) -> bool:
    """Does the demand (requests/s) pass what a mix carries by more than chance, now or in the mean of the history?

    A lack that is less than chance in a minute is not in ten.
    """
    space = plan_space(situation, situation.budget)
    plan, seen = as_plan(space, mix), situation.model.metrics.history
    if not carries(space, plan, surely(situation, demand)):
        return True
    known = [rate for rate in seen.bins if rate is not None] if seen is not None else []
    if seen is None or len(known) < _LEAST_PART * len(seen.bins):
        return False
    mean = sum(known) / len(known)
    return not carries(space, plan, max(0.0, mean - math.sqrt(mean / (len(known) * seen.bin_seconds))))
