"""Why this mix and not another one: which constraints bind, and what the best other mix would have given and cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from adaptive_operator.decide.candidates import best_of, best_plan, is_enumerable
from adaptive_operator.decide.fill import Outcome
from adaptive_operator.decide.lack import capacity, growth_demand
from adaptive_operator.decide.placing import largest_replica
from adaptive_operator.decide.situation import UNBOUNDED, Mix, Situation, as_plan, plan_space
from adaptive_operator.decide.spaces import Plan, PlanSpace, value
from adaptive_operator.decide.wording import accelerators_text, mix_text, rate_text
from adaptive_operator.reasons import Reason

_LEAST_GAIN_PERMILLE = 1.0
_TOLERANCE = 0.005
# An explanation is for people: where there are more plans than this, only the chosen one's neighbours are looked at.
_EXACT_PLANS = 200
_OTHERS_HOLD = "other models hold the rest of the budget"
# A demand that moved by less is explained already: by a fifth of the larger one, and of what is planned to be served.
_DEMAND_STEP = 0.2
_CAPACITY_STEP = 0.05


@dataclass(frozen=True, slots=True)
class Explanation:
    """What stands beside a decision; empty where the demand or the cards are not known."""

    binding: tuple[str, ...] = ()  # constraints without which the model would be served better
    alternative: str = ""  # the best other mix, and what it would have given and cost
    demand_milli: int | None = None  # requests per 1000 s that both are told for
    limit: int | None = None  # accelerators of its budget that others left to the model


def explain(situation: Situation, mix: Mix, limit: int) -> Explanation:
    """Constraints that bind at the demand of the moment, and the best mix beside `mix` within `limit` accelerators."""
    space, demand = plan_space(situation, limit), _demand(situation)
    if demand is None or not space.tiers:
        return Explanation()
    chosen = as_plan(space, mix)
    here = _served(space, chosen, demand)
    relaxed = _relaxed(situation, space, limit)
    binding = tuple(name for name, wider in relaxed if _is_better(wider, here, chosen, demand))
    return Explanation(binding, _alternative_text(space, chosen, demand), round(demand * 1000), limit)


def recall_explanation(
    situation: Situation, reason: Reason, mix: Mix, limit: int, shares: str = ""
) -> Explanation | None:
    """What the status says beside this very decision.

    None where it tells another one, or of an earlier spec, another budget, other shares of the pool (their hash), a
    demand that is far away by now, or a budget that others held a part of and no longer do, or the other way round.
    To work it out again in each pass takes 0.7 ms a model of three tiers: a third of a calm pool's pass, for no news.
    """
    status = situation.model.status
    last = status.last_decision if status is not None and not situation.spec_changed else None
    if last is None or (last.reason, last.to) != (reason.value, mix_text(mix)):
        return None
    if (last.budget, last.shares or "") != (situation.budget, shares):
        return None
    told = Explanation(last.binding, last.alternative or "", last.demand_milli, last.limit)
    return None if _is_outdated(told, situation, mix, limit) else told


def _is_outdated(told: Explanation, situation: Situation, mix: Mix, limit: int) -> bool:
    """By another demand, or by others that came or went, where the budget binds: a calm pool tells of no neighbour."""
    demand = _demand(situation)
    if demand is None:
        return False  # nothing is known that would be told instead
    if told.demand_milli is None or told.limit is None:
        return True
    if _is_far(told.demand_milli / 1000, demand, capacity(situation, mix)):
        return True
    if (told.limit < situation.budget) == (limit < situation.budget):
        return False
    told_budget = _held_text(situation, limit=situation.budget), _OTHERS_HOLD
    return any(name in told_budget for name in told.binding) or _binds_limit(situation, mix, limit, demand)


def _is_far(told: float, demand: float, served: float) -> bool:
    return abs(demand - told) > max(_DEMAND_STEP * max(demand, told), _CAPACITY_STEP * served)


def _binds_limit(situation: Situation, mix: Mix, limit: int, demand: float) -> bool:
    space = plan_space(situation, limit)
    if not space.tiers:
        return False
    chosen = as_plan(space, mix)
    return _is_better(_with_one_more(situation, space, limit), _served(space, chosen, demand), chosen, demand)


def _demand(situation: Situation) -> float | None:
    """What has to be carried, with headroom (requests/s): the hold window's maximum, else what is there now."""
    now = growth_demand(situation)
    known = [rate for rate in (now, situation.demand.peak) if rate is not None]
    return max(known) * situation.settings.shrink_headroom if known and now is not None else None


def _relaxed(situation: Situation, space: PlanSpace, limit: int) -> Iterator[tuple[str, PlanSpace]]:
    """Each constraint by the name that a user knows it by, with the space as it were without it."""
    yield _held_text(situation, limit), _with_one_more(situation, space, limit)
    if space.room is not None:
        yield f"room on one node for {largest_replica(situation)} accelerators", replace(space, room=None)
    if space.floor_permille > 0:
        yield f"quality.floorPermille {space.floor_permille:.0f}", replace(space, floor_permille=0.0)
    for tier in situation.tiers:
        if 0 < tier.most < UNBOUNDED:
            yield f"replicas.max {tier.most} of {tier.name}", _with_bounds(space, tier.name, most=UNBOUNDED)
        if tier.least > 0:
            what = "replicas.min" if tier.name != situation.warm or tier.least > 1 else "the warm tier's replica"
            yield f"{what} {tier.least} of {tier.name}", _with_bounds(space, tier.name, least=0)


def _held_text(situation: Situation, limit: int) -> str:
    return _OTHERS_HOLD if limit < situation.budget else f"the budget of {accelerators_text(limit)}"


def _with_one_more(situation: Situation, space: PlanSpace, limit: int) -> PlanSpace:
    """With room for one more replica of any tier."""
    return plan_space(situation, limit + max(tier.accelerators for tier in space.tiers))


def _with_bounds(space: PlanSpace, name: str, least: int | None = None, most: int | None = None) -> PlanSpace:
    tiers = (
        replace(
            tier,
            low=tier.low if least is None else min(tier.low, least),
            high=tier.high if most is None else max(tier.high, most),
        )
        if tier.name == name
        else tier
        for tier in space.tiers
    )
    return replace(space, tiers=tuple(tiers))


def _served(space: PlanSpace, chosen: Plan, demand: float) -> Outcome:
    """What the best plan of a space serves; where none is affordable, the chosen one."""
    best = _best_around(space, chosen, demand)
    return space.fill(best if best is not None else chosen, demand)


def _is_better(relaxed: PlanSpace, here: Outcome, chosen: Plan, demand: float) -> bool:
    """Would the best plan of a wider space serve more of the demand than is served here, or serve it better?"""
    other = _best_around(relaxed, chosen, demand)
    if other is None:
        return False
    there = relaxed.fill(other, demand)
    if there.unserved < here.unserved - _TOLERANCE * demand:
        return True
    same = there.unserved <= here.unserved + _TOLERANCE * demand
    return same and there.quality_permille >= here.quality_permille + _LEAST_GAIN_PERMILLE


def _alternative_text(space: PlanSpace, chosen: Plan, demand: float) -> str:
    other = _best_other(space, chosen, demand)
    if other is None:
        return ""
    here, there = space.fill(chosen, demand), space.fill(other, demand)
    served = _instead(f"{there.quality_permille:.0f}", f"{here.quality_permille:.0f}") + " permille"
    refused = _refused_text(demand, here.unserved, there.unserved)
    spent = _instead(str(space.cost(other)), str(space.cost(chosen))) + " accelerators"
    mix = mix_text({tier.name: n for tier, n in zip(space.tiers, other, strict=True)})
    return f"{mix}: {served}{refused}, {spent}, at {rate_text(demand)}"


def _refused_text(demand: float, here: float, there: float) -> str:
    """Only where one of the two refuses something."""
    if max(here, there) <= _TOLERANCE * demand:
        return ""
    return f", {_instead(f'{100 * there / demand:.0f}', f'{100 * here / demand:.0f}')} % refused"


def _instead(there: str, here: str) -> str:
    return f"also {there}" if there == here else f"{there} instead of {here}"


def _best_other(space: PlanSpace, chosen: Plan, demand: float) -> Plan | None:
    """The best plan that is not the chosen one."""
    if is_enumerable(space, demand, _EXACT_PLANS):
        found = (best_plan(item, demand, _EXACT_PLANS) for item in _spaces_without(space, chosen))
        others = [plan for plan in found if plan is not None and plan != chosen]
        return min(others, key=lambda plan: value(space, plan, demand), default=None)
    return best_of(space, _neighbours(space, chosen), demand)


def _best_around(space: PlanSpace, chosen: Plan, demand: float) -> Plan | None:
    if is_enumerable(space, demand, _EXACT_PLANS):
        return best_plan(space, demand, _EXACT_PLANS)
    beside = best_of(space, _neighbours(space, chosen), demand)
    return chosen if beside is None else min(chosen, beside, key=lambda plan: value(space, plan, demand))


def _neighbours(space: PlanSpace, chosen: Plan) -> Iterator[Plan]:
    """One replica less of a tier, one more, or one in exchange for another, where bounds allow."""
    bounded = list(enumerate(zip(chosen, space.tiers, strict=True)))
    outside = {i for i, (n, tier) in bounded if not tier.low <= n <= tier.high}
    fewer = [i for i, (n, tier) in bounded if tier.low < n <= tier.high + 1]
    further = [i for i, (n, tier) in bounded if tier.low - 1 <= n < tier.high]
    for less, more in itertools.product((None, *fewer), (None, *further)):
        if less == more or not outside <= {less, more}:
            continue
        yield tuple(n - (i == less) + (i == more) for i, n in enumerate(chosen))


def _spaces_without(space: PlanSpace, chosen: Plan) -> Iterator[PlanSpace]:
    """All plans but the chosen one, as a union: in some tier there are fewer replicas, or more."""
    for i, (tier, count) in enumerate(zip(space.tiers, chosen, strict=True)):
        for low, high in ((tier.low, min(tier.high, count - 1)), (max(tier.low, count + 1), tier.high)):
            if low <= high and low * tier.accelerators <= space.limit:
                changed = replace(tier, low=low, high=high)
                yield replace(space, tiers=(*space.tiers[:i], changed, *space.tiers[i + 1 :]))
