"""The quality floor where it cannot be kept: the cause by its field, the nearest floor that can be, and the remedy.

A floor is out of reach when no replica that is good enough fits, whatever the load; or the load passes what the floor
allows within the budget, and requests are refused although cheaper tiers could answer them. Pure.
"""

from __future__ import annotations

import math
from dataclasses import replace

from adaptive_operator.decide.candidates import best_plan
from adaptive_operator.decide.cards import warm_tier
from adaptive_operator.decide.decision import Finding
from adaptive_operator.decide.demand import in_steps
from adaptive_operator.decide.situation import UNBOUNDED, Mix, Situation, minimum_mix, plan_space, with_warm
from adaptive_operator.decide.spaces import PlanSpace
from adaptive_operator.decide.wording import accelerators_text, budget_field, mix_text
from adaptive_operator.reasons import Reason

_TOLERANCE = 0.005  # share of the demand that may stay unserved, as everywhere


def floor_out_of_reach(situation: Situation) -> tuple[Finding, ...]:
    """Said while no replica that reaches `quality.floorPermille` runs or has room; empty when one does."""
    floor = situation.model.spec.quality.floor_permille
    best = situation.best_within_reach
    if best is None or best.quality_permille >= floor:
        return ()
    cause, remedy = _cause_and_remedy(situation, floor)
    told = (
        f"quality.floorPermille {floor} is out of reach: {cause}; the nearest that can be kept is"
        f" {best.quality_permille}, of {best.name}, and routers refuse what is below the floor"
    )
    return (_infeasible(f"{told}; lower quality.floorPermille to {best.quality_permille}, or {remedy}"),)


def floor_under_load(situation: Situation, mix: Mix, limit: int, demand: float) -> Finding:
    """The floor keeps `mix` from serving more of the demand (requests/s), and so does it all other plans that it has
    within `limit` accelerators."""
    told = f"demand passes what quality.floorPermille {situation.floor_permille:.0f} allows on {mix_text(mix)}"
    raised, within = f"raise {budget_field(situation)}", accelerators_text(plan_space(situation, limit).limit)
    nearest = nearest_floor_of(situation, limit, demand)
    if nearest is None:
        return _infeasible(f"{told}, and no floor carries it within {within}; {raised}")
    carried = f"the nearest that carries it within {within} is {nearest}"
    return _infeasible(f"{told}: {carried}; lower quality.floorPermille to {nearest}, or {raised}")


def nearest_floor_of(situation: Situation, limit: int, demand: float) -> int | None:
    """The largest floor (permille), up to the spec's, at which the model serves all of the demand (requests/s) within
    `limit` accelerators. None: no floor does.

    Between two tiers' qualities the warm tier is the same: a floor below the worse one's may have a smaller one.
    """
    floor = int(situation.floor_permille)
    qualities = sorted({t.quality_permille for t in situation.tiers if t.card and t.most > 0})
    below = [quality for quality in qualities if quality < floor]
    for least, most in reversed(list(zip([0, *below], [*below, floor], strict=True))):
        space = plan_space(under_floor(situation, most), limit)
        nearest = nearest_floor(space, demand, situation.settings.exact_plans)
        if nearest is not None and min(nearest, most) > least:
            return min(nearest, most)
    return None


def under_floor(situation: Situation, floor: int) -> Situation:
    """The same situation with the warm tier of another floor (permille), and the minimums that go with it."""
    left_out = frozenset(situation.memory.quarantined_until) - frozenset(situation.held_back)
    return with_warm(situation, warm_tier(situation.model.spec, situation.settings, left_out, floor))


def nearest_floor(space: PlanSpace, demand: float, exact_plans: int) -> int | None:
    """The largest floor (permille) at which a plan of this space serves all of the demand (requests/s), rounded up to
    the next of steps of a tenth where that can be served, too. None: no floor does.

    Served best first without a floor, a plan has the best mean that it can have while nobody waits.
    """
    free = replace(space, floor_permille=0.0, accelerator_price=0.0)
    for rounded in (in_steps(demand), demand):
        plan = best_plan(free, rounded, exact_plans)
        if plan is None:
            return None
        outcome = free.fill(plan, rounded)
        if outcome.unserved <= _TOLERANCE * rounded:
            return math.floor(outcome.quality_permille + 1e-6)
    return None


def _cause_and_remedy(situation: Situation, floor: int) -> tuple[str, str]:
    able = [tier for tier in situation.tiers if tier.card is not None and tier.quality_permille >= floor]
    if not able:
        return "no tier has this quality", "add a better tier"
    allowed = [tier for tier in able if tier.most > 0]
    if not allowed:
        names = ", ".join(tier.name for tier in able)
        return f"replicas.max of {names} is 0", "raise replicas.max"
    least = minimum_mix(situation, UNBOUNDED)
    tier = min(allowed, key=lambda t: t.accelerators)
    needed = situation.cost(least) + (0 if least[tier.name] else tier.accelerators)
    field, budget = budget_field(situation), accelerators_text(situation.budget)
    beside = " beside what other tiers keep" if needed > tier.accelerators else ""
    cause = f"{tier.name} does not fit{beside} within the {budget} of {field}"
    return cause, f"raise {field} to {needed}"


def _infeasible(message: str) -> Finding:
    return Finding(Reason.QUALITY_FLOOR_INFEASIBLE, message)
