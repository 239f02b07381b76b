"""Upgrades and smaller plans, damped: back to better tiers, and fewer accelerators for the same quality.

The preferred mix is the one with the best quality at the hold window's maximum x headroom, then with the fewest
accelerators; so an idle model returns to its best tier plus the warm one.
"""

from __future__ import annotations

from dataclasses import replace

from adaptive_operator.api.status import GainOf
from adaptive_operator.decide.damping import agree, dwell_seconds, dwells, is_agreed, is_freshly_started, survivors
from adaptive_operator.decide.demand import Trust, in_steps
from adaptive_operator.decide.exchange import plan_with_a_way_on
from adaptive_operator.decide.growth import replace_wanted
from adaptive_operator.decide.lack import capacity, carries
from adaptive_operator.decide.proposal import Prediction, Proposal
from adaptive_operator.decide.situation import Mix, Situation, as_mix, as_plan, can_act_on_demand, plan_space
from adaptive_operator.decide.spaces import Plan, PlanSpace
from adaptive_operator.decide.wording import clock_text, fingerprint, mix_text, rate_text
from adaptive_operator.observe.observation import PolicyMemory
from adaptive_operator.reasons import Reason

_SAME_QUALITY_PERMILLE = 0.05
_TOLERANCE = 0.005


def restore(situation: Situation, limit: int) -> Proposal | None:
    """Go to a better or smaller mix if every check allows, else hold with the reason; None if no mix is better."""
    demand = situation.demand
    if not can_act_on_demand(situation) or demand.rate is None:
        return None
    space = plan_space(situation, limit)
    # Seen with everything that may be chance on top, so that a hold is said when the load fell, not when it flickers.
    now = _improvement(situation, space, limit, demand.rate + situation.settings.significance * demand.chance)
    if demand.trust is not Trust.FULL or demand.peak is None:
        return None if now is None else _held_for_metrics(situation, now)
    mix = _improvement(situation, space, limit, demand.peak)
    if mix is None:
        return None if now is None else _held_by_window(situation, now)
    if now is not None and _gives_up_too_early(situation, space, mix, now):
        return _held_by_window(situation, now)
    return _checked(situation, space, mix, limit)


def _gives_up_too_early(situation: Situation, space: PlanSpace, mix: Mix, now: Mix) -> bool:
    """Only smaller, though what the present load allows would be of better quality? Quality rises first.

    The window is over soon; a smaller mix now would start another dwell, and the better tier's replica start later.
    """
    if not all(mix[tier.name] <= tier.wanted for tier in situation.tiers):
        return False
    gain = _gain(space, as_plan(space, mix), as_plan(space, now), _beyond_chance(situation))
    return gain >= situation.settings.least_gain_permille


def restore_to(situation: Situation, mix: Mix, limit: int) -> Proposal | None:
    """Go to a mix that was chosen elsewhere if it is better and every check allows it, else hold; None: not better."""
    demand, space = situation.demand, plan_space(situation, limit)
    need = demand.peak if demand.peak is not None else demand.rate
    if need is None or not _is_improvement(situation, space, as_plan(space, mix), need):
        return None
    if demand.trust is not Trust.FULL or demand.peak is None:
        return _held_for_metrics(situation, dict(mix))
    return _checked(situation, space, dict(mix), limit)


def wished_mix(situation: Situation, mix: Mix, *, in_words: bool = False) -> dict[str, int] | None:
    """The mix that would serve better than `mix` with the whole budget at hand; None when there is none.

    `in_words`: at the next step of the demand, so that the name of a large one does not move with the load.
    """
    peak = situation.demand.peak if situation.demand.peak is not None else situation.demand.rate
    need = peak if peak is not None else (situation.memory.planned_demand_milli or 0) / 1000
    seen = replace_wanted(situation, mix)
    space = plan_space(seen, seen.budget)
    return _improvement(seen, space, seen.budget, in_steps(need) if in_words else need)


def _checked(situation: Situation, space: PlanSpace, mix: dict[str, int], limit: int) -> Proposal:
    """The damping checks in order; the agreement of plans is counted only when nothing else holds."""
    hold, dwell = situation.model.spec.scaling.hold_seconds, dwell_seconds(situation)
    if is_freshly_started(situation):
        until = clock_text(situation.acting_since + hold)
        cause = (
            f"this operator started a short while ago: it waits until {until}, when it has watched the load for one"
            f" hold window (scaling.holdSeconds: {hold} s), and gives nothing up before; it adds capacity all the same"
        )
        return _held(situation, Reason.HELD_AFTER_RESTART, mix, cause)
    if dwells(situation):
        return _held(
            situation, Reason.HELD_BY_DWELL, mix, f"the last change is less than the dwell of {dwell:.0f} s ago"
        )
    if not _survives(situation, space, mix, limit):
        return _held(situation, Reason.HELD_BY_SURVIVOR_CHECK, mix, _survivor_text(situation))
    memory = agree(situation, fingerprint(mix))
    if not is_agreed(situation, memory):
        agreement = situation.model.spec.scaling.plans_in_agreement
        return _held(situation, Reason.HELD_FOR_AGREEMENT, mix, f"waits for {agreement} equal plans in a row", memory)
    return _restored(situation, space, mix, limit)


def _held_for_metrics(situation: Situation, mix: dict[str, int]) -> Proposal:
    demand = situation.demand
    reason = Reason.HELD_FOR_STALE_METRICS if demand.stale else Reason.HELD_FOR_MISSING_METRICS
    return _held(situation, reason, mix, demand.doubt)


def _held_by_window(situation: Situation, mix: dict[str, int]) -> Proposal:
    hold, own = situation.model.hold_seconds, situation.model.spec.scaling.hold_seconds
    because = f"longer than scaling.holdSeconds ({own} s) because an upgrade or a smaller plan was undone soon"
    longer = f", {because}," if hold > own else ""
    cause = f"the maximum of the last {hold} s{longer} does not allow it yet"
    return _held(situation, Reason.HELD_BY_HOLD_WINDOW, mix, cause)


def _held(
    situation: Situation, reason: Reason, mix: dict[str, int], cause: str, memory: PolicyMemory | None = None
) -> Proposal:
    """Nothing changes; the message says what would, and has no number that moves with the load."""
    kept = memory or replace(situation.memory, agreed_plan=None, agreed_count=0, agreed_at=None)
    return Proposal(reason, f"{mix_text(mix)} would be better, but {cause}", situation.wanted, kept)


def _survives(situation: Situation, space: PlanSpace, mix: dict[str, int], limit: int) -> bool:
    """Do the replicas that stay carry the present demand while the others are exchanged?

    Of N equal replicas one goes: the others carry demand·N/(N−1) each, which is the same as demand on N−1.
    """
    rate = situation.demand.rate or 0.0
    return carries(space, as_plan(space, survivors(situation, mix, limit)), rate)


def _survivor_text(situation: Situation) -> str:
    """Why what stays is too little, and what helps for good where it is the warm tier."""
    cause = "what stays while replicas are exchanged would not carry the demand"
    warm = situation.tier(situation.warm) if situation.warm else None
    if warm is None or warm.card is None or warm.quality_permille >= situation.floor_permille:
        return cause
    floor = f"the quality floor of {situation.floor_permille:.0f} permille"
    return f"{cause}: the warm tier {warm.name} is below {floor}; name a better one as routing.warmTier"


def _improvement(situation: Situation, space: PlanSpace, limit: int, demand: float) -> dict[str, int] | None:
    """The best mix for a demand (requests/s) with headroom, if it is better than the wanted one; else None.

    A mix that could not be left any more at that demand is passed over: the way back has to stay open.
    """
    need = demand * situation.settings.shrink_headroom
    plan = plan_with_a_way_on(situation, space, need, limit)
    if plan is None or not _is_improvement(situation, space, plan, demand):
        return None
    return as_mix(situation, space, plan)


def _is_improvement(situation: Situation, space: PlanSpace, plan: Plan, demand: float) -> bool:
    """Is a plan better than the wanted one at a demand (requests/s) with headroom?

    Fewer accelerators count when the quality is the same even at demand x headroom; more quality counts when it shows
    at the demand that is there beyond chance. The gap between the two is the hysteresis. Where accelerators have a
    price (`scaling.idleShrink`), quality counts less what they cost, at both demands.
    """
    need = demand * situation.settings.shrink_headroom
    keep = as_plan(space, situation.wanted)
    if plan == keep:
        return False
    old, new = space.fill(keep, need), space.fill(plan, need)
    if new.unserved > old.unserved + _TOLERANCE * need:
        return False
    surely = min(demand, _beyond_chance(situation))
    gain = min(_gain(space, keep, plan, need), _gain(space, keep, plan, surely))
    cheaper = space.cost(plan) < space.cost(keep) and gain >= -_SAME_QUALITY_PERMILLE
    return cheaper or gain >= situation.settings.least_gain_permille


def _beyond_chance(situation: Situation) -> float:
    """Demand that is there even if the count of arrivals was high by chance (requests/s)."""
    seen = situation.demand
    return max(0.0, (seen.rate or 0.0) - situation.settings.significance * seen.chance)


def _gain(space: PlanSpace, keep: Plan, plan: Plan, demand: float) -> float:
    """In permille of quality; less what the accelerators cost, where the model has them weighed."""
    return space.net_quality(plan, demand) - space.net_quality(keep, demand)


def _restored(situation: Situation, space: PlanSpace, mix: dict[str, int], limit: int) -> Proposal:
    shrinks = all(mix[tier.name] <= tier.wanted for tier in situation.tiers)
    reason = Reason.REMOVED_REPLICA if shrinks else Reason.RESTORED_TIER
    need = (situation.demand.peak or 0.0) * situation.settings.shrink_headroom
    old, new = (space.fill(as_plan(space, m), need) for m in (situation.wanted, mix))
    during = space.fill(as_plan(space, survivors(situation, mix, limit)), need).unserved
    now = float(int(situation.now))
    carried = f"{mix_text(mix)} carry {rate_text(capacity(situation, mix))}"
    better = f"at {new.quality_permille:.0f} instead of {old.quality_permille:.0f} permille of quality"
    fewer = (
        f"with {space.cost(as_plan(space, mix))} instead of {space.cost(as_plan(space, situation.wanted))} accelerators"
    )
    gain = new.quality_permille - old.quality_permille
    why = better if gain >= situation.settings.least_gain_permille else fewer
    if gain <= -situation.settings.least_gain_permille:
        why = f"{fewer}, {better}: more accelerators cost more than that is worth (scaling.idleShrink)"
    return Proposal(
        reason=reason,
        message=f"{carried} {why}; the hold window needs {rate_text(need)}",
        replicas=mix,
        memory=replace(situation.memory, last_restore_at=now, agreed_plan=None, agreed_count=0, agreed_at=None),
        prediction=Prediction(gain, GainOf.QUALITY, 1000 * during / need if need > 0 else 0.0),
    )
