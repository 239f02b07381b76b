"""Until which demand a full budget can still be changed: an exchange drains a replica before its successor loads.

For that time (drain, then load) only what stays serves. So a mix whose next step is an exchange has to be left while
what stays still carries the load, not when the mix itself no longer does. Pure.
"""

from __future__ import annotations

from dataclasses import replace

from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.damping import moments, survivors
from adaptive_operator.decide.dip import step_and_life
from adaptive_operator.decide.situation import Mix, Situation, as_mix, as_plan
from adaptive_operator.decide.spaces import Plan, PlanSpace

_TOLERANCE = 0.005
_ROUNDS = 8  # of asking for a larger plan


def exchange_rate(situation: Situation, space: PlanSpace, plan: Plan, limit: int) -> float | None:
    """Demand (requests/s) at which `plan` has to be left for a larger one; None where it may be left at any time.

    At any time: `limit` accelerators have room to start before anything is drained, or no plan carries more. Else it is
    what those that stay carry, but never less than what the plan carries / `exchange_headroom`: below that, nothing
    asks for more yet. Example, headroom 1.25, 4 accelerators: int8 3 · int4 1 carry 58.9/s; int8 2 · int4 1 stay, which
    carry 45.6/s; so 47.1/s.
    """
    settings, carried = situation.settings, space.most(plan)
    larger = best_plan(space, carried * settings.growth_headroom, settings.exact_plans)
    if larger is None or space.most(larger) <= carried * (1 + _TOLERANCE):
        return None
    stays = staying_rate(situation, space, as_mix(situation, space, plan), as_mix(situation, space, larger), limit)
    return None if stays >= carried * (1 - _TOLERANCE) else max(carried / settings.exchange_headroom, stays)


def staying_rate(situation: Situation, space: PlanSpace, mix: Mix, target: Mix, limit: int) -> float:
    """What stays while `mix`, all of it ready, is exchanged for `target` carries (requests/s, derated)."""
    return space.most(as_plan(space, survivors(_all_ready(situation, mix), target, limit)))


def _all_ready(situation: Situation, mix: Mix) -> Situation:
    """The same situation when `mix` is wanted and serves."""
    ready = tuple(replace(t, wanted=mix.get(t.name, 0), ready=mix.get(t.name, 0)) for t in situation.tiers)
    return replace(situation, tiers=ready)


def roomy_plan(
    situation: Situation, space: PlanSpace, need: float, leave: float, limit: int, choice: PlanSpace | None = None
) -> Plan | None:
    """The best plan for `need` (requests/s) that does not have to be left at a demand of `leave`; None: there is none.

    `choice` holds the plans to choose from, if not all of `space`. A plan that could be left only too late is passed
    over for a larger one; if even the largest could, that one is taken.
    """
    choice, asked, found = choice or space, need, None
    for _ in range(_ROUNDS):
        plan = best_plan(choice, asked, situation.settings.exact_plans)
        if plan is None or plan == found:
            break
        found = plan
        if space.most(found) >= leave * situation.settings.exchange_headroom:
            break  # it never has to be left earlier
        rate = exchange_rate(situation, space, found, limit)
        if rate is None or rate >= leave:
            break
        asked = max(asked * leave / rate, space.most(found) * (1 + 2 * _TOLERANCE))
    return found


def plan_with_a_way_on(
    situation: Situation, space: PlanSpace, need: float, limit: int, choice: PlanSpace | None = None
) -> Plan | None:
    """The best plan for `need` (requests/s) that may be left in time at that demand; None: there is none.

    Where it would be final and the history does not yet tell how the load moves, one that may be left at more, as if
    the load rose by what exchanges in time are kept for.
    """
    plan = roomy_plan(situation, space, need, need, limit, choice)
    is_seen = situation.expected is None or situation.expected.settled
    if plan is None or is_seen or not _is_final(situation, space, plan, limit):
        return plan
    return roomy_plan(situation, space, need, need * situation.settings.exchange_headroom, limit, choice)


def _is_final(situation: Situation, space: PlanSpace, plan: Plan, limit: int) -> bool:
    """Does a larger plan exist, but none that is worth an exchange once all of `plan` is ready?"""
    leave = exchange_rate(situation, space, plan, limit)
    if leave is None:
        return False
    there = _all_ready(situation, as_mix(situation, space, plan))
    return worthwhile_plan(there, space, plan, limit, leave) is None


def worthwhile_plan(situation: Situation, space: PlanSpace, keep: Plan, limit: int, demand: float) -> Plan | None:
    """The next larger plan, or where that gains too little the one nearest to twice as much; None: neither gains."""
    settings, carried = situation.settings, space.most(keep)
    need = max(demand * settings.growth_headroom, carried * (1 + 2 * _TOLERANCE))
    far = best_plan(space, 2 * carried, settings.exact_plans)
    plans = (roomy_plan(situation, space, need, demand, limit), far)
    return next((p for p in plans if p is not None and _gains(situation, space, keep, p, limit)), None)


def _gains(situation: Situation, space: PlanSpace, keep: Plan, plan: Plan, limit: int) -> bool:
    """Is what a plan can serve more, over its life, more than what cannot be served while replicas are exchanged?"""
    step, life = step_and_life(situation)
    *steps, after = [space.most(as_plan(space, m)) for m in moments(situation, as_mix(situation, space, plan), limit)]
    now = space.most(keep)
    return sum(max(0.0, now - left) for left in steps) * step < (after - now) * life
