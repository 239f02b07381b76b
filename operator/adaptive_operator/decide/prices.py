"""What one more accelerator, and one more request/s of a tier, would be worth: shadow prices, for routers and people.

Worth is quality (0..1) x requests/s; a request that is not served costs ten. While nothing is scarce, prices are 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from adaptive_operator.decide.candidates import PlanSpace
from adaptive_operator.decide.optimize.problem import UNSERVED
from adaptive_operator.decide.planned import planned_demand
from adaptive_operator.decide.situation import Mix, Situation, as_plan, can_act_on_demand, plan_space

_STEP: Final = 1e-3  # share of the demand by which a tier's rate is raised
_NOTHING: Final = 1e-9


def tier_prices(situation: Situation, mix: Mix) -> dict[str, float]:
    """Worth of one more request/s of each tier, beside what `mix` serves of the demand that is planned for (Λ)."""
    demand = planned_demand(situation) if can_act_on_demand(situation) else 0.0
    space = plan_space(situation, situation.budget)
    if demand <= _NOTHING:
        return {tier.name: 0.0 for tier in space.tiers}
    step = _STEP * demand
    worth = _worth(space, mix, demand, {})
    return {tier.name: max(0.0, _worth(space, mix, demand, {tier.name: step}) - worth) / step for tier in space.tiers}


def accelerator_price(situations: Sequence[Situation], prices: Mapping[str, Mapping[str, float]], spare: int) -> float:
    """Worth of one more accelerator: of the replica that would gain most by it. 0 while `spare` holds that replica."""
    gains = [
        (prices[s.model.key].get(tier.name, 0.0) * tier.card.requests_per_second * s.settings.utilisation, tier)
        for s in situations
        for tier in s.tiers
        if tier.card is not None and tier.high > 0
    ]
    return max((gain / tier.accelerators for gain, tier in gains if tier.accelerators > spare), default=0.0)


def _worth(space: PlanSpace, mix: Mix, demand: float, more: Mapping[str, float]) -> float:
    """What a mix serves, with some tiers (requests/s) faster than they are."""
    added = tuple(replace(t, name=f"{t.name}+", rate=more[t.name], shed=()) for t in space.tiers if t.name in more)
    wider = replace(space, tiers=(*space.tiers, *added))
    filled = wider.fill((*as_plan(space, mix), *(1 for _ in added)), demand)
    return filled.quality_permille / 1000 * (demand - filled.unserved) - UNSERVED * filled.unserved
